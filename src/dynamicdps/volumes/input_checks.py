"""Scans as they come: several volumes in a file, colours, CT, voxels without a number, headers that contradict themselves."""

from os.path import exists
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.analyze import AnalyzeHeader
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.acquisition import across_slices
from dynamicdps.volumes.volume import Volume

# Air in Hounsfield units, and the share of a CT that is at least air.
AIR_HU = (-1100.0, -900.0)
LEAST_AIR = 0.05
# Positions that differ by less than this are rounding.
SAME_PLACE_MM = 0.1
# An axis along which there is this little detail, against the others, was interpolated; and the least slices to tell.
LEAST_DETAIL = 0.03
FEWEST_SLICES = 16
AXES = ("from left to right", "from back to front", "from feet to head")


def choose_volume(image: Any, name: str, number: int | None) -> Any:
    """The volume that is asked for, of an image of several; an image of one as it is.

    Args:
        image: of nibabel.
        name: what messages call it.
        number: of the volume, from 1; `None` where nobody has chosen.

    Raises:
        InputError: it holds colours, or several volumes and none is chosen, or there is no volume of that number.
    """
    dtype = np.dtype(image.get_data_dtype())
    if dtype.names is not None:
        raise InputError(
            f"{name} is a colour picture ({', '.join(dtype.names)}), not a scan; expected one intensity a voxel; export the scan itself"
        )
    count = int(np.prod(image.shape[3:]))
    if number is None and count <= 1:
        return image
    if number is None:
        raise InputError(
            f"{name} holds {count} volumes ({' x '.join(map(str, image.shape))}); expected one; choose with --volume N, from 1 to {count}"
        )
    if not 1 <= number <= count:
        raise InputError(f"there is no volume {number} in {name}; expected 1 to {count}; change --volume")
    if count == 1:
        return image
    where = np.unravel_index(number - 1, image.shape[3:], order="F")
    return image.slicer[(..., *(int(i) for i in where))]


def without_nan_around(image: Any) -> tuple[Any, list[str]]:
    """The image with 0 where it has no numbers around the head, as masks leave it, and a sentence that says so.

    What is no number inside, apart from the edges of the image, stays; whoever reads the image refuses it.
    """
    if np.dtype(image.get_data_dtype()).kind != "f":
        return image, []
    from scipy import ndimage

    data = np.asarray(image.dataobj, dtype=np.float32)
    missing = np.isnan(data)
    if not missing.any() or missing.ndim != 3:
        return image, []
    labels, _ = ndimage.label(missing)
    edges = [labels.take(end, axis) for axis in range(3) for end in (0, -1)]
    outside = np.isin(labels, np.unique(np.concatenate([edge.ravel() for edge in edges]))) & missing
    if not np.array_equal(outside, missing):
        return image, []
    mended = nib.Nifti1Image(np.where(missing, np.float32(0), data), image.affine)
    return mended, [f"{missing.mean():.0%} of the voxels, all of them around the head, hold no number (NaN); they were taken as 0"]


def refuse_ct(volume: Volume, name: str) -> None:
    """Refuse an image in Hounsfield units.

    Raises:
        InputError: a share of it lies where air does.
    """
    air = float(((volume.data > AIR_HU[0]) & (volume.data < AIR_HU[1])).mean())
    if air >= LEAST_AIR:
        raise InputError(
            f"{name} looks like CT: {air:.0%} of it lie near -1000, which is air in Hounsfield units; expected an MR scan of a head; name "
            "the MR scan, or add 1000 if it is one that was stored with an offset"
        )


def position_warnings(image: Any) -> list[str]:
    """What the header of an image leaves open of where the scan lies, a sentence each.

    A NIfTI file gives its position twice, as sform and qform, or not at all; an Analyze file does not know left from right.
    """
    header = image.header
    if isinstance(header, nib.Nifti1Header):
        try:
            (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
        except (ValueError, HeaderDataError):  # numbers that are no rotation: nobody can say what they mean
            return []
        if not s_code and not q_code:
            return [
                "the header does not say where the scan lies (sform and qform are unset): which side is left is a guess, and the "
                "orientation too; compare with the scanner's own images"
            ]
        return _disagreement(sform, qform, image.shape) if s_code and q_code else []
    placed = image.file_map.get("mat")
    if isinstance(header, AnalyzeHeader) and not (placed is not None and placed.filename and exists(placed.filename)):
        return ["an Analyze file does not say which side is left; it was read by the format's custom, columns from right to left"]
    return []


def _disagreement(sform: NDArray[np.float64], qform: NDArray[np.float64], shape: tuple[int, ...]) -> list[str]:
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape[:3]) - 1)
    with np.errstate(all="ignore"):
        apart = float(np.linalg.norm(apply_affine(sform, corners) - apply_affine(qform, corners), axis=1).max())
    if not SAME_PLACE_MM < apart < np.inf:
        return []
    codes = ["".join(code or "?" for code in aff2axcodes(matrix)) for matrix in (sform, qform)]
    turned = f", and in what the axes are ({codes[0]} and {codes[1]})" if codes[0] != codes[1] else ""
    return [
        f"the header gives two positions, sform and qform, which differ by up to {apart:.3g} mm{turned}; the sform was taken; check that "
        "left is left in the result"
    ]


def interpolation_warnings(volume: Volume) -> list[str]:
    """A sentence where a scan of nearly cubic voxels holds far less detail along one axis than along the others.

    Such a scan was interpolated from thicker slices, maybe in another orientation; the operator that is fitted takes its voxels for
    measured ones. Two signs: nothing at high spatial frequencies (cubic interpolation), or straight lines between every few slices
    (linear and nearest-neighbour interpolation).
    """
    if across_slices(volume.spacing) is not None or min(volume.shape) < FEWEST_SLICES:
        return []
    detail = np.array([_detail(volume.data, axis) for axis in range(3)])
    straight = np.array([_least_bend(volume.data, axis) for axis in range(3)])
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        if detail[axis] < LEAST_DETAIL * detail[others].min() or straight[axis] < LEAST_DETAIL * straight[others].min():
            return [
                f"{AXES[axis]} the voxels hold hardly any detail of their own: the scan seems to be interpolated from thicker slices; "
                "enhance the scan as it came from the scanner, before it was resampled"
            ]
    return []


def _detail(data: NDArray[np.float32], axis: int) -> float:
    """Power near the highest spatial frequencies along an axis over that at low ones."""
    count = data.shape[axis]
    window = np.hanning(count).reshape([-1 if a == axis else 1 for a in range(3)]).astype(np.float32)
    power = np.abs(np.fft.rfft(data * window, axis=axis)) ** 2
    spectrum = power.sum(tuple(a for a in range(3) if a != axis))
    frequency = np.linspace(0, 1, len(spectrum))
    low, high = (spectrum[(frequency > a) & (frequency < b)].mean() for a, b in ((0.1, 0.3), (0.6, 0.95)))
    return float(high / low) if low > 0 else 0.0


def _least_bend(data: NDArray[np.float32], axis: int) -> float:
    """Second differences along an axis where they are small, over their mean: 0 where slices lie on straight lines between others."""
    bend = np.square(np.diff(data, 2, axis)).sum(tuple(a for a in range(3) if a != axis), dtype=np.float64)
    middle = bend[len(bend) // 4 : -(len(bend) // 4)]
    return float(np.percentile(middle, 25) / middle.mean()) if middle.mean() > 0 else 0.0
