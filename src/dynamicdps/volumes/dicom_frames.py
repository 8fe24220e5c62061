"""The images of DICOM files, one by one: where each lies and how it was acquired.

Only the tags named here are read from a file, and nothing that names a person, a place or a date is kept.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError

GEOMETRY = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"]
SEQUENCE = ["ScanningSequence", "SequenceName", "PulseSequenceName", "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle"]
PIXELS = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"]
MR_IMAGES = ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1")  # MR and enhanced MR image storage
HEADER = [
    *["SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "ImageType", "MagneticFieldStrength"],
    *["SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"],
    *[*GEOMETRY, *SEQUENCE, *PIXELS],
]
DECODING = [*PIXELS, "PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"]
TIMES = {"TE": "echo_time_ms", "TR": "repetition_time_ms", "TI": "inversion_time_ms"}
# By the axis of the patient that is nearest to the slices' normal.
PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Frame:
    """One image of a series.

    Attributes:
        path: file.
        index: its number in the file.
        shape: rows and columns.
        position: centre of the first pixel in mm, LPS; `None` where the file does not say, as the two that follow.
        orientation: directions along a row and along a column, ``(2, 3)``, LPS.
        spacing: distance of rows and of columns in mm.
        slope: intensities are ``slope * stored + intercept``.
        intercept: see `slope`.
        kind: magnitude, phase, ...: the third value of ImageType.
        colour: PhotometricInterpretation.
        facts: numbers by the names of `acquisition.RANGES`, as they stand in the header.
        sequence: the scanner's word for it.
    """

    path: Path
    index: int
    shape: tuple[int, int]
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing: tuple[float, float] | None
    slope: float
    intercept: float
    kind: str
    colour: str
    facts: dict[str, Any]
    sequence: str | None


@dataclass
class Series:
    """Images that were made together.

    Attributes:
        uid: tells series of one number apart; never shown.
        number: the scanner's, or `None`.
        modality: ``MR`` and others.
        frames: its images, in no order.
    """

    uid: str
    number: int | None
    modality: str
    frames: list[Frame] = field(default_factory=list)

    def describe(self) -> str:
        """Number, modality, sequence with its times, plane, matrix, pixel size and count, and nothing else."""
        words = [self.modality or "no modality"]
        if self.frames:
            first = self.frames[0]
            words += [first.sequence] if first.sequence else []
            words += [f"{name} {time:g} ms" for name, key in TIMES.items() if isinstance(time := first.facts.get(key), int | float)]
            if first.orientation is not None:
                words.append(PLANES[int(np.abs(np.cross(*first.orientation)).argmax())])
            words.append(f"{first.shape[1]} x {first.shape[0]}")
            words += [f"{first.spacing[1]:g} x {first.spacing[0]:g} mm"] if first.spacing else []
        return f"{'no number' if self.number is None else self.number} ({', '.join([*words, f'{len(self.frames)} images'])})"


def read_series(folder: Path) -> list[Series]:
    """All series of a folder and the folders below it, by number.

    Raises:
        InputError: it holds no DICOM file, or pydicom is missing.
    """
    found: dict[str, Series] = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with quiet_pydicom() as pydicom:
        for path in files:
            try:
                _refuse_deflated(pydicom, path, folder)
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER)
                uid = str(header.get("SeriesInstanceUID", ""))
                number = header.get("SeriesNumber")
                series = found.setdefault(uid, Series(uid, None if number is None else int(number), str(header.get("Modality", ""))))
                series.frames.extend(_frames(path, header))
            except pydicom.errors.InvalidDicomError:
                continue
            except InputError:
                raise
            except Exception as error:  # damaged bytes lead pydicom to errors of any type
                raise InputError(
                    f"a file in {folder} has a damaged DICOM header ({type(error).__name__}); expected whole files; copy the folder again"
                ) from None
    found = {uid: series for uid, series in found.items() if series.frames}
    if not found:
        raise InputError(
            f"{folder} holds no DICOM image, looked for among all {len(files)} files in it and in folders below; expected those of one "
            "series; check the folder, or name an image file such as scan.nii.gz"
        )
    return sorted(found.values(), key=lambda s: (s.number is None, s.number or 0, s.uid))


@contextmanager
def quiet_pydicom() -> Iterator[Any]:
    """pydicom, whose warnings quote values of the header.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise InputError("DICOM files need pydicom; expected it to be installed; run: pip install 'dynamicdps[dicom]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pydicom


def _refuse_deflated(pydicom: Any, path: Path, folder: Path) -> None:
    """Such a file is unpacked by pydicom as a whole, however large it becomes."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with path.open("rb") as file:
        file.seek(128)
        if file.read(4) != b"DICM":
            raise pydicom.errors.InvalidDicomError
    if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise InputError(f"a file in {folder} is deflated as a whole; expected plain DICOM files; export it uncompressed")


def _frames(path: Path, header: Any) -> Iterator[Frame]:
    """The images of a file: one, or several of an enhanced multi-frame object; none where it holds no pixels."""
    if "Rows" not in header or "Columns" not in header:
        if header.file_meta.get("MediaStorageSOPClassUID") in MR_IMAGES:
            raise EOFError  # the header breaks off; to pass it over would lose a slice unseen
        return
    shared = _first(header, "SharedFunctionalGroupsSequence")
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    count = int(header.get("NumberOfFrames") or 1)
    if count > 1 and len(groups) != count:
        # Older multi-frame objects do not say where each frame lies.
        yield _frame(path, 0, header, [])
        return
    for index in range(count):
        yield _frame(path, index, header, [g for g in (groups[index] if groups else None, shared) if g is not None])


def _frame(path: Path, index: int, header: Any, groups: list[Any]) -> Frame:
    def find(name: str, group: str, inner: str | None = None) -> Any:
        """A value of this frame, else of all frames of the file, else of the file."""
        for functional in groups:
            item = _first(functional, group)
            value = None if item is None else item.get(inner or name)
            if value is not None:
                return value
        return header.get(name)

    def vector(value: Any, size: int) -> NDArray[np.float64] | None:
        if not value:
            return None
        numbers = np.array([float(v) for v in value])
        return numbers if numbers.shape == (size,) and np.isfinite(numbers).all() else None

    position = vector(find("ImagePositionPatient", "PlanePositionSequence"), 3)
    orientation = vector(find("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    spacing = vector(find("PixelSpacing", "PixelMeasuresSequence"), 2)
    kinds = [str(v) for v in find("ImageType", "MRImageFrameTypeSequence", "FrameType") or []]
    slope = find("RescaleSlope", "PixelValueTransformationSequence")
    intercept = find("RescaleIntercept", "PixelValueTransformationSequence")
    times = "MRTimingAndRelatedParametersSequence"
    facts = {
        "field_strength_t": header.get("MagneticFieldStrength"),
        "echo_time_ms": find("EchoTime", "MREchoSequence", "EffectiveEchoTime"),
        "repetition_time_ms": find("RepetitionTime", times),
        "inversion_time_ms": find("InversionTime", "MRModifierSequence", "InversionTimes"),
        "flip_angle_deg": find("FlipAngle", times),
        "slice_thickness_mm": find("SliceThickness", "PixelMeasuresSequence"),
    }
    kind = kinds[2] if len(kinds) > 2 else ""
    return Frame(
        path,
        index,
        (int(header.Rows), int(header.Columns)),
        position,
        None if orientation is None else orientation.reshape(2, 3),
        None if spacing is None else (float(spacing[0]), float(spacing[1])),
        1.0 if slope in (None, "") else float(slope),
        0.0 if intercept in (None, "") else float(intercept),
        "MOSAIC" if "MOSAIC" in kinds else kind,
        str(header.get("PhotometricInterpretation", "")),
        {name: _number(value) for name, value in facts.items()},
        _sequence(header),
    )


def _number(value: Any) -> float | None:
    """The number, the first of several, or `None`."""
    try:
        return float(value if isinstance(value, int | float | str) else value[0])
    except (TypeError, ValueError, IndexError):
        return None


def _sequence(header: Any) -> str | None:
    """ScanningSequence, or the name of the pulse sequence; a fixed vocabulary and the vendor's names."""
    value = header.get("ScanningSequence") or header.get("SequenceName") or header.get("PulseSequenceName")
    if not value:
        return None
    return str(value) if isinstance(value, str) else "\\".join(str(v) for v in value)


def _first(item: Any, name: str) -> Any:
    sequence = item.get(name)
    return sequence[0] if sequence else None
