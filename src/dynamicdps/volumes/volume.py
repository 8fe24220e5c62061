"""An image that never travels without its geometry."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.affines import apply_affine
from nibabel.imageclasses import all_image_classes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt2axcodes, ornt_transform
from numpy.typing import NDArray

from dynamicdps.atomic_file import atomic_write
from dynamicdps.errors import InputError, reason_of
from dynamicdps.paths import check_exists
from dynamicdps.volumes.header_checks import check_header, check_image

MAX_ANISOTROPY = 20.0
VOXEL_MM = (0.01, 100.0)
FARTHEST_MM = 1e6
SUFFIXES = (".nii", ".nii.gz")
NO_VOLUMES = (".gii",)


@dataclass(frozen=True)
class Native:
    """How a file stored the volume: what is undone on writing.

    Attributes:
        orientation: nibabel orientation array of the file's axes, ``(3, 2)``.
        dtype: data type on disk.
        slope_inter: the header's intensity slope and intercept, (nan, nan) where the data are stored as they are.
    """

    orientation: NDArray[np.float64]
    dtype: np.dtype[Any]
    slope_inter: tuple[float, float] = (float("nan"), float("nan"))


RAS = Native(np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), np.dtype(np.float32))


@dataclass(frozen=True, repr=False)
class Volume:
    """Intensities on a grid in RAS order.

    Attributes:
        data: float32, shape ``(x, y, z)``, x growing to the subject's right, y forward, z up.
        affine: voxel indices to millimetres, ``(4, 4)``.
        native: orientation and type of the file it came from; kept through every step and restored by `save`.
        path: the file that holds exactly this volume; `None` for one that was computed.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    native: Native = RAS
    path: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.data.ndim != 3:
            raise InputError(f"the image has {self.data.ndim} dimensions; expected one 3-D volume; pick one volume or echo first")
        if not is_affine(self.affine):
            raise InputError("the affine is singular or not finite; expected an invertible 4 x 4 matrix; mend the header")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along x, y, z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = self.data.shape
        return x, y, z

    @property
    def orientation(self) -> str:
        """Where the axes of its file grow to, such as ``"LPS"``; in memory they are always RAS."""
        return "".join(ornt2axcodes(self.native.orientation))

    def __repr__(self) -> str:
        sizes = " x ".join(f"{s:.4g}" for s in self.spacing)
        return f"Volume({self.path or 'array'}: {' x '.join(map(str, self.shape))} voxels of {sizes} mm, {self.orientation})"

    def with_data(self, data: NDArray[Any]) -> "Volume":
        """The same grid and origin with other intensities of the same shape."""
        if data.shape != self.data.shape:
            raise ValueError(f"the data have shape {data.shape}; expected {self.data.shape}")
        return replace(self, data=np.ascontiguousarray(data, dtype=np.float32), path=None)

    def save(self, path: str | Path, *, dtype: Any = np.float32) -> Path:
        """Write a NIfTI file in the orientation of the file this volume came from.

        Args:
            path: ends in ``.nii`` or ``.nii.gz``.
            dtype: type on disk; `None` keeps that of the source, rounding and clipping to its range.

        Raises:
            InputError: the name has another ending.
        """
        path = Path(path)
        if not path.name.endswith(SUFFIXES):
            raise InputError(f"cannot write {path.name!r}; expected a name that ends in .nii or .nii.gz; change the name")
        image = self.to_nibabel(dtype=dtype)
        with atomic_write(path) as partial:
            nib.save(image, partial)
        return path

    def to_nibabel(self, *, dtype: Any = np.float32) -> nib.Nifti1Image:
        """The image as `save` writes it: in the orientation of the file this volume came from.

        Args:
            dtype: type of the voxels; `None` keeps that of the source, rounding and clipping to its range.
        """
        native = self.native
        to_native = ornt_transform(axcodes2ornt("RAS"), native.orientation)
        data = apply_orientation(self.data, to_native)
        affine = self.affine @ inv_ornt_aff(to_native, self.shape)
        target = np.dtype(native.dtype if dtype is None else dtype)
        slope, inter = native.slope_inter
        scaled = dtype is None and np.isfinite(slope)
        if scaled:
            data = (data - inter) / slope
        if target.kind in "iu":
            # Just below the largest value, then rounded: 64-bit limits have no float of their own and would wrap.
            limits = np.iinfo(target)
            data = np.rint(np.clip(data.astype(np.float64), limits.min, np.nextafter(float(limits.max), 0)))
        image = nib.Nifti1Image(data.astype(target), affine, dtype=target)
        image.header.set_xyzt_units("mm", "sec")
        if scaled:
            image.header.set_slope_inter(slope, inter)
        return image


def load(path: str | Path, mend: Callable[[Any], Any] | None = None) -> Volume:
    """Read a three-dimensional NIfTI-1 or NIfTI-2, MGH or MGZ, or Analyze file (or another of nibabel's) and turn it to RAS order.

    An Analyze file does not say which side is left; it is read by its convention, columns from the subject's right to left.

    Args:
        path: the file.
        mend: given the image as nibabel opens it, returns what is read in its place.

    Raises:
        InputError: the file is missing, is not an image, is not one 3-D volume, is empty or constant, promises more voxels than it
            can hold, holds values that are not finite, has a singular affine, or voxels more than 20 times longer than wide.
    """
    path = Path(path)
    image = open_image(path)
    try:
        check_image(image, path)
        mended = image if mend is None else mend(image)
        return replace(from_nibabel(mended, str(path)), path=path if mended is image else None)
    except InputError:
        raise
    except Exception as error:  # damaged bytes lead nibabel and the decompressors to errors of any type
        raise _unreadable(path, error) from error


def from_nibabel(image: Any, name: str = "the image") -> Volume:
    """A three-dimensional image of nibabel in RAS order.

    Args:
        image: any of nibabel's spatial images, such as a ``Nifti1Image``.
        name: what messages call it.

    Raises:
        InputError: as `load`, but for what only files can have.
    """
    shape = tuple(n for i, n in enumerate(image.shape) if i < 3 or n != 1)
    if len(shape) != 3:
        raise InputError(f"{name} has shape {image.shape}; expected one 3-D volume; pick one volume or echo first")
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in "iuf":
        raise InputError(f"{name} holds values of type {dtype}; expected real numbers; save the magnitude first")
    if 0 in shape:
        raise InputError(f"{name} has shape {image.shape}; expected at least one voxel along each axis; check the export")
    # What overflows becomes infinite, which is refused below.
    with np.errstate(all="ignore"), _quiet():
        data = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    affine = np.asarray(image.affine, dtype=np.float64)
    slope, inter = getattr(image.dataobj, "slope", 1.0), getattr(image.dataobj, "inter", 0.0)
    check_intensities(data, name)
    plain = (slope, inter) == (1.0, 0.0)
    volume = to_ras(data, affine, name, dtype, (float("nan"), float("nan")) if plain else (float(slope), float(inter)))
    # The voxels of a proxy are those of its file.
    file = image.get_filename() if nib.is_proxy(image.dataobj) else None
    return volume if file is None else replace(volume, path=Path(file))


def open_image(path: Path) -> Any:
    """A file as nibabel opens it; the voxels are not read yet.

    Raises:
        InputError: the file is missing, a folder, or not an image.
    """
    check_exists(path, "an image file")
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected an image file such as scan.nii.gz; name the file inside it")
    if path.suffix.lower() in NO_VOLUMES:
        raise InputError(f"{path} holds a surface; expected an image file such as scan.nii.gz; name another file")
    try:
        with _quiet():
            check_header(path)
            return nib.load(path)
    except InputError:
        raise
    except Exception as error:
        if _ending(path) not in {ending for kind in all_image_classes for ending in kind.valid_exts}:
            raise InputError(
                f"{path} is a file of no known type; expected NIfTI (.nii, .nii.gz), MGH (.mgh, .mgz), Analyze (.hdr with .img), a folder "
                "of DICOM files, or raw k-space (.npz, .h5); name another file or convert it first"
            ) from error
        raise _unreadable(path, error) from error


def _ending(path: Path) -> str:
    """What a file's name ends in, without that of a compression."""
    return Path(path.name.lower().removesuffix(".gz").removesuffix(".bz2")).suffix


def check_intensities(data: NDArray[Any], name: str) -> None:
    """Refuse what is no image.

    Raises:
        InputError: a value is not finite, or all are the same.
    """
    if not np.isfinite(data).all():
        count = int((~np.isfinite(data)).sum())
        raise InputError(f"{name} holds {count} values that are not finite; expected numbers everywhere; replace NaN and infinity first")
    if data.min() == data.max():
        raise InputError(f"{name} is constant ({data.flat[0]:g} everywhere); expected an image with contrast; check the export")


def to_ras(
    data: NDArray[Any],
    affine: NDArray[np.float64],
    name: str,
    dtype: np.dtype[Any] = RAS.dtype,
    slope_inter: tuple[float, float] = RAS.slope_inter,
) -> Volume:
    """A volume in RAS order that remembers the order and type it had.

    Args:
        data: intensities, ``(i, j, k)`` in the order of the file.
        affine: its voxel indices to mm.
        name: what messages call it.
        dtype: type on disk.
        slope_inter: intensity slope and intercept on disk, (nan, nan) without.

    Raises:
        InputError: the affine is singular, or voxels are more than 20 times longer than wide.
    """
    if not is_affine(affine):
        raise InputError(f"{name} has a singular affine; expected an invertible 4 x 4 matrix; mend the header")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not VOXEL_MM[0] <= spacing.min() <= spacing.max() <= VOXEL_MM[1] or np.abs(affine[:3, 3]).max() > FARTHEST_MM:
        sizes = " x ".join(f"{s:g}" for s in spacing)
        where = ", ".join(f"{v:g}" for v in affine[:3, 3])
        raise InputError(
            f"{name} has voxels of {sizes} mm, the first at {where} mm; expected voxels of {VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm; "
            "check the header and its units"
        )
    if spacing.max() / spacing.min() > MAX_ANISOTROPY:
        sizes = " x ".join(f"{s:g}" for s in spacing)
        raise InputError(f"{name} has voxels of {sizes} mm; expected at most {MAX_ANISOTROPY:g} times longer than wide; check the header")
    orientation = io_orientation(affine)
    turn = ornt_transform(orientation, axcodes2ornt("RAS"))
    affine = affine @ inv_ornt_aff(turn, data.shape)
    return Volume(np.ascontiguousarray(apply_orientation(data, turn), dtype=np.float32), affine, Native(orientation, dtype, slope_inter))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without nibabel's remarks about headers that it reads all the same."""
    silent = imageglobals.logger.disabled
    imageglobals.logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        imageglobals.logger.disabled = silent


def is_affine(matrix: NDArray[Any]) -> bool:
    """Whether it is 4 x 4, invertible, and of numbers that can be squared."""
    return matrix.shape == (4, 4) and bool((np.abs(matrix) < 1e12).all() and abs(np.linalg.det(matrix[:3, :3])) >= 1e-9)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as an image ({reason_of(error)}); expected a NIfTI file; check that it is complete")


def resample_to(volume: Volume, shape: tuple[int, int, int], affine: NDArray[np.float64], *, order: str = "continuous") -> Volume:
    """Interpolate a volume on another grid; voxels outside it are 0.

    Args:
        volume: the source.
        shape: grid size ``(x, y, z)``.
        affine: grid's affine in mm.
        order: ``"continuous"`` (cubic spline), ``"linear"`` or ``"nearest"``.

    Raises:
        InputError: the volume lies wholly outside the grid.
    """
    if shape == volume.shape and np.allclose(affine, volume.affine, atol=1e-4):
        return volume
    corners = apply_affine(np.linalg.inv(affine) @ volume.affine, np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.shape) - 1))
    if (corners.max(0) < 0).any() or (corners.min(0) > np.array(shape) - 1).any():
        raise InputError("the two images do not overlap in space; expected images of one head in one space; check their affines")
    from nilearn.image import resample_img

    image = nib.Nifti1Image(volume.data, volume.affine)
    out = resample_img(image, target_affine=affine, target_shape=shape, interpolation=order, copy_header=True, force_resample=True)
    return Volume(np.asarray(out.dataobj, dtype=np.float32), np.asarray(affine, dtype=np.float64), volume.native)
