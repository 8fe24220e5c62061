"""A volume from a folder of DICOM files (DICOM PS3.3, Image Plane module)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.acquisition import Acquisition, plausible
from dynamicdps.volumes.dicom_frames import DECODING, Frame, Series, quiet_pydicom, read_series
from dynamicdps.volumes.header_checks import check_voxels
from dynamicdps.volumes.scan import Scan
from dynamicdps.volumes.volume import check_intensities, to_ras

# DICOM's axes point to the patient's left and back, those of a `Volume` to the right and front.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_PLACE_MM = 0.01
UNEVEN = 0.02


@dataclass(frozen=True)
class OpenSeries:
    """A series whose images are one straight stack.

    Attributes:
        name: what messages call it.
        number: the scanner's, or `None`.
        frames: its images in the order of their position.
        affine: indices (column, row, image) to RAS mm.
    """

    name: str
    number: int | None
    frames: list[Frame]
    affine: NDArray[np.float64]


def load_dicom(folder: str | Path, series: int | None = None) -> Scan:
    """Read one MR series: slices in one file each, or an enhanced multi-frame object.

    Slices are sorted by their position; the distance between them is measured, not read. Nothing that identifies a patient is read.

    Args:
        folder: holds the files, also in folders below it.
        series: series number where there are several.

    Raises:
        InputError: there is no such folder or no MR series, several and none is chosen, slices are missing, repeated, unevenly
            spaced or turned to each other, the file does not say where they lie, or the pixels are compressed in a way that needs
            a plug-in.
    """
    with np.errstate(all="ignore"):
        return _scan(open_series(folder, series))


def open_series(folder: str | Path, series: int | None = None) -> OpenSeries:
    """Find one MR series and where its images lie; no pixels are read yet. Arguments and errors as `load_dicom`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected a folder of DICOM files; check the path")
    chosen = _choose(read_series(folder), series, folder)
    name = f"series {chosen.number} of {folder}" if chosen.number is not None else str(folder)
    with np.errstate(all="ignore"):
        return OpenSeries(name, chosen.number, *_stack(chosen.frames, name))


def _scan(opened: OpenSeries) -> Scan:
    name, frames, affine = opened.name, opened.frames, opened.affine
    data = _read_pixels(frames, name)
    check_intensities(data, name)
    volume = to_ras(data, affine, name)
    across = int(io_orientation(affine)[2, 0])
    # The distance of a single slice to its neighbours is unknown.
    distance = float(np.linalg.norm(affine[:3, 2])) if len(frames) > 1 else None
    numbers, warnings = plausible(frames[0].facts | {"slice_spacing_mm": distance})
    return Scan(volume, Acquisition(sequence=frames[0].sequence, slice_axis=across, warnings=warnings, **numbers))


def _choose(found: list[Series], number: int | None, folder: Path) -> Series:
    candidates = [s for s in found if s.modality == "MR"]
    listed = "; ".join(s.describe() for s in candidates or found).replace(";", ",")
    if not candidates:
        raise InputError(f"{folder} holds no MR series but {listed}; expected MR images; check the folder")
    if number is None and len(candidates) > 1:
        raise InputError(f"{folder} holds {len(candidates)} series; expected one; choose with --series NUMBER among {listed}")
    same = candidates if number is None else [s for s in candidates if s.number == number]
    if not same:
        raise InputError(f"{folder} holds no MR series {number}; expected one of {listed}; change --series")
    if len(same) > 1:
        raise InputError(f"{folder} holds {len(same)} series of number {number}; expected one; keep each in a folder of its own")
    return same[0]


def _stack(frames: list[Frame], name: str) -> tuple[list[Frame], NDArray[np.float64]]:
    """Images in the order of their position, and the affine of voxels (column, row, slice) to RAS mm."""
    _check_frames(frames, name)
    first = frames[0]
    along_row, along_column = _orientation(first)
    normal = np.cross(along_row, along_column)
    places = np.array([f.position for f in frames], dtype=np.float64)
    order = np.argsort(places @ normal, kind="stable")
    frames, places = [frames[i] for i in order], places[order]
    step = normal * (first.facts["slice_thickness_mm"] or 1.0)
    if len(frames) > 1:
        _check_distances(places @ normal, frames, name)
        step = (places[-1] - places[0]) / (len(frames) - 1)
        aside = np.linalg.norm(places - places[0] - np.arange(len(frames))[:, None] * step, axis=1).max()
        tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
        if tilt > 1.0 or aside > 0.5:
            raise InputError(
                f"{name} has slices shifted sideways ({tilt:.1f} degrees off their normal); expected a straight stack; resample it first"
            )
    assert first.spacing is not None
    between_rows, between_columns = first.spacing
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * between_columns, along_column * between_rows, step, places[0]])
    return frames, LPS_TO_RAS @ affine


def _check_frames(frames: list[Frame], name: str) -> None:
    if any(f.kind == "MOSAIC" for f in frames):
        raise InputError(f"{name} holds mosaics; expected one slice an image; convert it to NIfTI first, with dcm2niix for example")
    if any(f.position is None or f.orientation is None or f.spacing is None for f in frames):
        raise InputError(f"{name} has images without position, orientation or pixel size; expected all three; export it again")
    if any(f.colour not in ("MONOCHROME1", "MONOCHROME2") for f in frames):
        raise InputError(f"{name} holds colours; expected grey values; name the series of the scan itself")
    shapes = {f.shape for f in frames} | {f.spacing for f in frames}
    if len(shapes) != 2:
        raise InputError(f"{name} mixes images of different matrices or pixel sizes; expected one of each; keep one kind")
    directions = np.array([_orientation(f) for f in frames])
    if np.abs(directions - directions[0]).max() > 1e-3:
        raise InputError(
            f"{name} mixes slices of different orientations, as a localizer does; expected parallel slices; name another series"
        )
    gram = directions[0] @ directions[0].T
    if np.abs(gram - np.eye(2)).max() > 1e-2:
        raise InputError(f"{name} has rows and columns that are not perpendicular; expected unit vectors at right angles; export it again")


def _check_distances(along: NDArray[np.float64], frames: list[Frame], name: str) -> None:
    """Neighbouring slices must all be one distance apart."""
    steps = np.diff(along)
    if steps.min() < SAME_PLACE_MM:
        echoes = sorted({f.facts["echo_time_ms"] for f in frames if f.facts["echo_time_ms"] is not None})
        kinds = sorted({f.kind for f in frames if f.kind})
        why = "several images at one position"
        why += f", of echo times {', '.join(f'{e:g}' for e in echoes)} ms" if len(echoes) > 1 else ""
        why += f", of kinds {', '.join(kinds)}" if len(kinds) > 1 else ""
        raise InputError(f"{name} has {why}; expected one image a slice; keep one echo and one kind in the folder")
    distance = float(np.median(steps))
    off = np.abs(steps - distance)
    if off.max() <= UNEVEN * distance:
        return
    lost = np.rint(steps / distance) - 1
    if (np.abs(steps - (lost + 1) * distance) <= UNEVEN * distance).all() and lost.sum() <= len(frames):
        missing = int(lost.sum())
        raise InputError(
            f"{name} lacks {missing} of {len(frames) + missing} slices ({distance:g} mm apart); expected all; copy the files again"
        )
    raise InputError(f"{name} has slices {steps.min():.2f} to {steps.max():.2f} mm apart; expected one distance; name another series")


def _orientation(frame: Frame) -> NDArray[np.float64]:
    assert frame.orientation is not None
    return frame.orientation


def _read_pixels(frames: list[Frame], name: str) -> NDArray[np.float32]:
    """Intensities ``(column, row, slice)``."""
    columns, rows = frames[0].shape[::-1]
    check_voxels((columns, rows, len(frames)), name)
    data = np.empty((columns, rows, len(frames)), np.float32)
    files: dict[Path, NDArray[Any]] = {}
    with quiet_pydicom() as pydicom:
        for z, frame in enumerate(frames):
            if frame.path not in files:
                files[frame.path] = _decode(pydicom, frame.path, name)
            pixels = files[frame.path]
            image = pixels[frame.index] if pixels.ndim == 3 else pixels
            if image.shape != frame.shape:
                raise InputError(f"{name} has images of {image.shape[::-1]} pixels; expected {frame.shape[::-1]}; export it again")
            data[..., z] = image.T * np.float32(frame.slope) + np.float32(frame.intercept)
    return data


def _decode(pydicom: Any, path: Path, name: str) -> NDArray[Any]:
    dataset = None
    try:
        dataset = pydicom.dcmread(path, specific_tags=DECODING)
        check_voxels((dataset.Columns, dataset.Rows, int(dataset.get("NumberOfFrames") or 1)), name)
        return np.asarray(dataset.pixel_array)
    except InputError:
        raise
    except Exception as error:  # plug-ins and damaged streams raise errors of any type
        syntax = None if dataset is None else dataset.file_meta.get("TransferSyntaxUID")
        if syntax is not None and _is_compressed(syntax):
            raise InputError(
                f"{name} is compressed as {syntax.name}, which needs a plug-in of pydicom; expected pixels that can be unpacked; "
                "export it uncompressed, or convert it with dcm2niix"
            ) from error
        raise InputError(f"{name} has pixels that cannot be read; expected whole files; copy the folder again") from error


def _is_compressed(syntax: Any) -> bool:
    """Whether a transfer syntax compresses pixels; a damaged one is none that is known."""
    try:
        return bool(syntax.is_compressed)
    except (AttributeError, ValueError, TypeError):
        return False
