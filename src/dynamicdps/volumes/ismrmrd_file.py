"""Raw k-space from an ISMRMRD file (Inati et al. 2017): Cartesian lines of separate slices, with their place in space."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.acquisition import Acquisition, plausible
from dynamicdps.volumes.hdf5_file import import_h5py, read_stored
from dynamicdps.volumes.header_checks import check_bytes, check_voxels
from dynamicdps.volumes.raw_scan import RawScan, check_samples
from dynamicdps.volumes.volume import to_ras

# Headers say a few pages about a scan.
_MOST_HEADER_BYTES = 2**24
_MOST_LINES = 2**20
# A line's head takes 340 bytes.
_MOST_HEAD_BYTES = 1024
# Lines are read so many at a time.
_BLOCK_BYTES = 2**24
# Counters of which a scan has one value: of several, each is a scan of its own.
_SINGLE = ("contrast", "phase", "repetition", "set", "kspace_encode_step_2")
# Lines that are not of the image.
_BESIDE = (
    "NOISE_MEASUREMENT",
    "PARALLEL_CALIBRATION",
    "NAVIGATION_DATA",
    "PHASECORR_DATA",
    "HPFEEDBACK_DATA",
    "DUMMYSCAN_DATA",
    "RTFEEDBACK_DATA",
    "SURFACECOILCORRECTIONSCAN_DATA",
    "PHASE_STABILIZATION_REFERENCE",
    "PHASE_STABILIZATION",
)
_PARALLEL, _UNEVEN = 1e-3, 0.02


def read_ismrmrd(path: Path, group: Any) -> RawScan:
    """Read a dataset of an open HDF5 file; needs ismrmrd.

    Averages are averaged, the readout's oversampling is taken off, slices are sorted by their place. Lines that were not sampled are 0.
    Of the header only numbers are kept: field strength, times, angle, thickness. Noise scans and other lines beside the image are not used.

    Args:
        path: of the file, for messages.
        group: the HDF5 group with ``xml`` and ``data``.

    Raises:
        InputError: ismrmrd is missing, the file is damaged, or holds something else than 2-D Cartesian lines of one image a slice.
    """
    header, constants = _header(path, group)
    stored = _stored_lines(path, group["data"])
    beside = sum(1 << (getattr(constants, f"ACQ_IS_{name}") - 1) for name in _BESIDE)
    (numbers,) = np.nonzero((stored["head"]["flags"] & np.uint64(beside)) == 0)
    if not len(numbers):
        raise InputError(f"{path} holds no lines of an image; expected Cartesian lines; check the export")
    head = stored["head"][numbers]
    _check(path, header, head, constants)
    _check_lengths(path, stored["data"]["length"][numbers], head)
    encoded = header.encoding[0].encodedSpace
    nx, ny = int(encoded.matrixSize.x), int(encoded.matrixSize.y)
    slices, order = _slices(path, head)
    # As many lines as fit in a block, by the longest, with all that is beside.
    longest = 4 * int((stored["data"]["length"].astype(np.int64) + stored["traj"]["length"]).max())
    lines = _lines(group["data"], numbers, max(1, _BLOCK_BYTES // max(1, longest)))
    # What overflows becomes infinite, which is refused below.
    with np.errstate(all="ignore"):
        kspace, sampled = _place(path, lines, head, header, (nx, ny), slices, order)
    field = np.array([encoded.fieldOfView_mm.x, encoded.fieldOfView_mm.y], dtype=float)
    wanted = float(header.encoding[0].reconSpace.fieldOfView_mm.x)
    if not (np.isfinite(field).all() and (field > 0).all() and 0 < wanted <= 1.001 * field[0]):
        raise InputError(f"{path} has fields of view of {field.tolist()} and {wanted} mm; expected positive ones; mend its header")
    kept = max(1, round(nx * wanted / field[0]))
    with np.errstate(all="ignore"):
        kspace = _without_oversampling(kspace, sampled, kept)
    check_samples(kspace, str(path))
    size = field / (nx, ny)
    affine = _affine(path, head, slices, order, size, (kept, ny), float(encoded.fieldOfView_mm.z))
    turned = to_ras(np.zeros((kept, ny, len(order)), np.float32), affine, str(path))
    return RawScan(np.ascontiguousarray(kspace), affine, _acquisition(header, affine, len(order), int(turned.native.orientation[2, 0])))


def _header(path: Path, group: Any) -> tuple[Any, Any]:
    try:
        import ismrmrd
    except ImportError as error:
        raise InputError("ISMRMRD files need ismrmrd; expected it to be installed; run: pip install 'dynamicdps[ismrmrd]'") from error
    try:
        rows = group["xml"]
        about = import_h5py().check_string_dtype(rows.dtype)
        size = about.length or int(read_stored(rows, path)["length"][0])
        text = bytes(rows[0]) if size <= _MOST_HEADER_BYTES else b""
        # Entities could expand without bounds; of two bytes a letter they would not be seen.
        if not text or b"\0" in text or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise InputError(f"{path} has no plain header; expected an ISMRMRD header of a few pages; export it again")
        return ismrmrd.xsd.CreateFromDocument(text), ismrmrd
    except InputError:
        raise
    except Exception as error:  # the parser raises errors of any type
        raise InputError(f"{path} has a header that cannot be read; expected ISMRMRD's XML; export it again") from error


def _stored_lines(path: Path, rows: Any) -> NDArray[Any]:
    """Heads of the lines and the lengths of the rest, which together are no longer than the file: each value lies in it once, unpacked."""
    h5py, kind = import_h5py(), rows.dtype
    known = kind.names is not None and sorted(kind.names) == ["data", "head", "traj"] and not kind["head"].hasobject
    # Types that numpy does not have, such as numbers of a hundred bytes, would be taken for others.
    if (
        not known
        or any(h5py.check_vlen_dtype(kind[name]) != np.dtype(np.float32) for name in ("traj", "data"))
        or rows.id.get_type() != h5py.h5t.py_create(kind, logical=True)
    ):
        raise InputError(f"{path} has lines of another type; expected 'head', 'traj' and 'data' of float32 numbers; export it again")
    if rows.size > _MOST_LINES or kind.itemsize > _MOST_HEAD_BYTES:
        raise InputError(
            f"{path} promises {rows.size} lines with heads of {kind.itemsize} bytes; expected at most {_MOST_LINES} and "
            f"{_MOST_HEAD_BYTES}; check the file"
        )
    stored = read_stored(rows, path)
    promised = sum(int(stored[name]["length"].sum(dtype=np.uint64)) for name in ("traj", "data"))
    check_bytes(4 * promised, path, str(path), packed=False)
    return stored


def _check_lengths(path: Path, lengths: NDArray[np.uint32], head: NDArray[Any]) -> None:
    expected = 2 * int(head["active_channels"][0]) * int(head["number_of_samples"][0])
    if (lengths != expected).any():
        raise InputError(f"{path} has a line of {lengths[lengths != expected][0]} numbers; expected {expected}; copy the file again")


def _lines(rows: Any, numbers: NDArray[np.intp], block: int) -> Iterator[NDArray[np.float32]]:
    """The numbers of some lines, in their order; all fields of a block of lines are read at once."""
    for first in range(0, len(rows), block):
        here = numbers[slice(*np.searchsorted(numbers, (first, first + block)))]
        if len(here):
            values = rows[first : first + block]["data"]
            yield from (np.asarray(values[number - first], dtype=np.float32) for number in here)


def _check(path: Path, header: Any, head: NDArray[Any], constants: Any) -> None:
    if len(header.encoding) != 1 or (head["encoding_space_ref"] != 0).any():
        raise InputError(f"{path} holds {len(header.encoding)} encodings; expected one; export the image's alone")
    trajectory = getattr(header.encoding[0].trajectory, "value", "nothing")
    if trajectory != "cartesian" or (head["trajectory_dimensions"] > 0).any():
        raise InputError(f"{path} has the trajectory {trajectory!r}; expected Cartesian lines; reconstruct it with other software first")
    for name in _SINGLE:
        values = np.unique(head["idx"][name])
        if len(values) > 1:
            what = "a 3-D encoding" if name == "kspace_encode_step_2" else f"{len(values)} values of {name}"
            raise InputError(f"{path} holds {what}; expected 2-D slices with one image each; export one alone, or as images")
    if int(header.encoding[0].encodedSpace.matrixSize.z) > 1:
        raise InputError(f"{path} holds a 3-D encoding; expected 2-D slices; transform the slice axis first")
    if (head["flags"] & np.uint64(1 << (constants.ACQ_IS_REVERSE - 1))).any():
        raise InputError(f"{path} has lines that were read backwards; expected one direction; reconstruct it with other software first")
    for name in ("active_channels", "number_of_samples", "center_sample"):
        if len(np.unique(head[name])) > 1:
            raise InputError(f"{path} has lines that differ in {name}; expected one kind of line; export it again")


def _slices(path: Path, head: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each line's slice counter, and the counters in the order of their places."""
    slices = head["idx"]["slice"].astype(int)
    counters = np.unique(slices)
    for name in ("read_dir", "phase_dir", "slice_dir"):
        if np.abs(head[name] - head[name][0]).max() > _PARALLEL:
            raise InputError(f"{path} has slices of different orientations; expected parallel ones; export them one by one")
    along = np.array([float(head["position"][slices == each][0] @ head["slice_dir"][0]) for each in counters])
    return slices, counters[np.argsort(along)]


def _place(
    path: Path,
    lines: Iterable[NDArray[np.float32]],
    head: NDArray[Any],
    header: Any,
    size: tuple[int, int],
    slices: NDArray[np.int64],
    order: NDArray[np.int64],
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """K-space ``(coils, depth, ky, kx)`` with the averages' mean, and which columns were sampled."""
    nx, ny = size
    coils, samples = int(head["active_channels"][0]), int(head["number_of_samples"][0])
    check_voxels((max(coils, 1), len(order), ny, nx), str(path))
    check_bytes(coils * len(order) * ny * nx * np.dtype(np.complex64).itemsize, path, str(path), packed=True)
    limits = header.encoding[0].encodingLimits.kspace_encoding_step_1 if header.encoding[0].encodingLimits is not None else None
    middle = ny // 2 if limits is None else int(limits.center)
    rows = head["idx"]["kspace_encode_step_1"].astype(int) - middle + ny // 2
    before, after = (int(head[name][0]) for name in ("discard_pre", "discard_post"))
    columns = np.arange(samples) - int(head["center_sample"][0]) + nx // 2
    used = (np.arange(samples) >= before) & (np.arange(samples) < samples - after)
    inside = columns[used]
    if coils < 1 or not len(inside) or rows.min() < 0 or rows.max() >= ny or inside.min() < 0 or inside.max() >= nx:
        raise InputError(f"{path} has samples beyond its matrix of {nx} x {ny}; expected lines within it; mend its header")
    place_of = {counter: place for place, counter in enumerate(order.tolist())}
    sums = np.zeros((coils, len(order), ny, nx), np.complex64)
    counts = np.zeros((len(order), ny), np.float32)
    for values, row, counter in zip(lines, rows, slices.tolist(), strict=True):
        place = place_of[counter]
        sums[:, place, row, inside] += values.view(np.complex64).reshape(coils, samples)[:, used]
        counts[place, row] += 1
    sampled = np.zeros(nx, bool)
    sampled[inside] = True
    sums /= np.maximum(counts, 1)[..., None]
    return sums, sampled


def _without_oversampling(kspace: NDArray[np.complex64], sampled: NDArray[np.bool_], kept: int) -> NDArray[np.complex64]:
    """Only the middle of the readout's field of view: the image is cut, so that k-space has wider steps.

    A column counts as sampled where the old k-space was at its frequency: what cutting spreads beyond is left out.
    """
    nx = kspace.shape[-1]
    if kept == nx:
        return kspace
    lines = (kspace != 0).any((0, 3))
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=-1), axis=-1, norm="ortho"), axes=-1)
    first = nx // 2 - kept // 2
    cut = np.fft.ifftshift(image[..., first : first + kept], axes=-1)
    columns = np.rint((np.arange(kept) - kept // 2) * nx / kept).astype(int) + nx // 2
    there = sampled[np.clip(columns, 0, nx - 1)]
    out = np.fft.fftshift(np.fft.fft(cut, axis=-1, norm="ortho"), axes=-1)
    return np.asarray(np.where(lines[..., None] & there, out, 0), dtype=np.complex64)


def _affine(
    path: Path,
    head: NDArray[Any],
    slices: NDArray[np.int64],
    order: NDArray[np.int64],
    size: NDArray[np.float64],
    matrix: tuple[int, int],
    thickness: float,
) -> NDArray[np.float64]:
    """Image indices to RAS mm: ISMRMRD's directions and positions, of the slices' centres, are those of DICOM, left and back."""
    directions = np.stack([head[name][0].astype(float) for name in ("read_dir", "phase_dir", "slice_dir")], axis=1)
    positions = np.stack([head["position"][slices == counter][0].astype(float) for counter in order])
    if not np.isfinite(directions).all() or not np.isfinite(positions).all() or abs(abs(np.linalg.det(directions)) - 1) > _UNEVEN:
        raise InputError(
            f"{path} has directions that are no right angles; expected unit vectors along read, phase and slice; mend its header"
        )
    if len(order) > 1:
        steps = np.diff(positions, axis=0)
        step = steps.mean(0)
        distance = float(np.linalg.norm(step))
        if distance < 1e-3 or np.abs(steps - step).max() > _UNEVEN * distance:
            raise InputError(f"{path} has slices at uneven distances, or several at one place; expected one distance; export it again")
        # Only slices that lie straight above each other are an image's.
        if np.linalg.norm(step - directions[:, 2] * (step @ directions[:, 2])) > _UNEVEN * distance:
            raise InputError(f"{path} has slices that are shifted in their plane; expected them above each other; export it again")
    else:
        step = directions[:, 2] * (thickness if thickness > 0 else 1.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = directions[:, 0] * size[0], directions[:, 1] * size[1], step
    affine[:3, 3] = positions[0] - affine[:3, :2] @ (matrix[0] // 2, matrix[1] // 2)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _acquisition(header: Any, affine: NDArray[np.float64], slices: int, axis: int) -> Acquisition:
    """Numbers of the header; where it lists several, as of inversions, none is taken."""
    system, sequence = header.acquisitionSystemInformation, header.sequenceParameters
    only = {
        name: values[0] if len(values) == 1 else None
        for name, values in (
            ("echo_time_ms", sequence.TE if sequence else []),
            ("repetition_time_ms", sequence.TR if sequence else []),
            ("inversion_time_ms", sequence.TI if sequence else []),
            ("flip_angle_deg", sequence.flipAngle_deg if sequence else []),
        )
    }
    thickness = float(header.encoding[0].encodedSpace.fieldOfView_mm.z)
    facts = only | {
        "field_strength_t": system.systemFieldStrength_T if system else None,
        "slice_thickness_mm": thickness if math.isfinite(thickness) else None,
        "slice_spacing_mm": float(np.linalg.norm(affine[:3, 2])) if slices > 1 else None,
    }
    numbers, warnings = plausible(facts)
    kept: dict[str, Any] = dict(numbers)
    return Acquisition(**kept, slice_axis=axis, warnings=warnings)
