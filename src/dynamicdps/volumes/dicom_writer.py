"""A volume as a new DICOM series of the study that it came from (DICOM PS3.3 A.4, MR Image).

The only place where what names a patient is read and written: the series goes back into the archive that the scan came from.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from dynamicdps.atomic_file import atomic_folder
from dynamicdps.errors import InputError
from dynamicdps.volumes.dicom import LPS_TO_RAS, OpenSeries, open_series
from dynamicdps.volumes.dicom_frames import quiet_pydicom
from dynamicdps.volumes.volume import Volume

WORDS = "DynamicDPS, not for diagnosis"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
# As they stand in the source, PS3.3 C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2, C.7.2.3, C.7.4.1, and of C.7.3.1, C.8.3.1, C.7.6.1.
PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID", "PatientBirthDate"),
    *(
        "PatientBirthTime",
        "PatientSex",
        "OtherPatientIDs",
        "OtherPatientIDsSequence",
        "OtherPatientNames",
        "EthnicGroup",
        "PatientComments",
    ),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence", "QualityControlSubject"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName"),
    *("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription"),
)
STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "IssuerOfAccessionNumberSequence"),
    *("ReferringPhysicianName", "ConsultingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingService"),
    *("ReferencedStudySequence", "ProcedureCodeSequence", "ReasonForPerformedProcedureCodeSequence", "AdmittingDiagnosesDescription"),
    *("PatientAge", "PatientSize", "PatientWeight", "MedicalAlerts", "Allergies", "Occupation", "PregnancyStatus"),
    *("AdditionalPatientHistory", "AdmissionID", "ServiceEpisodeID"),
)
SPACE = ("FrameOfReferenceUID", "PositionReferenceIndicator")
ACQUISITION = (
    *("BodyPartExamined", "Laterality", "PatientPosition", "ProtocolName", "AcquisitionDate", "AcquisitionTime", "AcquisitionNumber"),
    *("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName", "AngioFlag", "EchoTrainLength"),
    *("MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "NumberOfAverages", "ContrastBolusAgent"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation"),
)
INSTITUTION = ("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName")
SCANNER = ("Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber", "SoftwareVersions")
# What must stand there, empty where the source does not know it (type 2).
EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "PositionReferenceIndicator", "PatientPosition"),
    *("ScanOptions", "MRAcquisitionType", "EchoTrainLength", "EchoTime", "RepetitionTime"),
)
READ = (*PATIENT, *STUDY, *SPACE, *ACQUISITION, *INSTITUTION, *SCANNER, "SpecificCharacterSet", "SeriesDescription", "SeriesInstanceUID")
TIMES = {
    "EchoTime": "echo_time_ms",
    "RepetitionTime": "repetition_time_ms",
    "InversionTime": "inversion_time_ms",
    "FlipAngle": "flip_angle_deg",
}
SQUARE = 1e-2
# Of DICOM: characters of a long string and a short text, the largest integer string.
MOST_WORDS = 64
MOST_TEXT = 1024
MOST_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class StoredPixels:
    """Intensities as 16 bits.

    Attributes:
        stored: unsigned, or signed where some are negative; any shape.
        slope: intensities are ``slope * stored``.
    """

    stored: NDArray[np.integer]
    slope: float


def write_dicom(
    volume: Volume,
    source: str | Path,
    folder: str | Path,
    *,
    series: int | None = None,
    version: str = "",
    description: str = "",
    stamp: bool = False,
) -> list[Path]:
    """Write a volume as a series of its own, one file a slice, that belongs to the patient and the study of the series it was made from.

    UIDs come from the source's and from the contents: the same call writes the same bytes.

    Args:
        volume: what is written, on any grid with perpendicular axes.
        source: folder of the DICOM files that it was made from.
        folder: of the new files; new or empty, and not in `source`.
        series: number of the source's series where `source` holds several.
        version: of the program that made the volume.
        description: what it did.
        stamp: whether the words "DynamicDPS, not for diagnosis" are drawn into the pixels of each slice as well.

    Returns:
        The files, by slice.

    Raises:
        InputError: as `check_dicom_out`; the volume does not lie where the source lies, or its rows and columns are not perpendicular.
    """
    source, folder = Path(source), Path(folder).resolve()
    opened = check_dicom_out(source, folder, series)
    data, affine = turned(volume, opened)
    packed = pack(data)
    if stamp:
        packed = _stamped(packed)
    try:
        # What the source says goes back as it stands there.
        with quiet_pydicom() as pydicom, pydicom.config.disable_value_validation(), atomic_folder(folder) as partial:
            header = _header(pydicom, opened, version, description)
            _add_geometry(pydicom, header, affine)
            _add_pixels(pydicom, header, packed, data)
            contents = packed.stored.tobytes() + repr((affine.tolist(), packed.slope, version, description)).encode()
            seed = hashlib.sha256(contents).hexdigest()
            old = str(header.SeriesInstanceUID)
            header.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[old, seed])
            names = []
            for index in range(data.shape[2]):
                uid = pydicom.uid.generate_uid(entropy_srcs=[old, seed, str(index)])
                names.append(f"{index + 1:04d}.dcm")
                _write_slice(pydicom, header, uid, index, affine, packed.stored[..., index], partial / names[-1])
    except OSError as error:
        raise _no_room(folder, error.strerror) from error
    return [folder / name for name in names]


def check_dicom_out(source: Path, folder: Path, series: int | None = None) -> OpenSeries:
    """Refuse what `write_dicom` cannot do, before there is anything to write.

    Raises:
        InputError: the source is no folder of one MR series with a study of its own; the folder holds files, lies in the source or
            cannot be made.
    """
    if not source.is_dir():
        raise InputError(
            f"{source} is no folder of DICOM files, whose patient and study a DICOM series needs; expected one; leave --dicom out"
        )
    if folder.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{folder} lies in {source} and would be read as a part of it; expected a folder elsewhere; change --dicom")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty; expected a new folder, so that no series are mixed; change --dicom")
    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise _no_room(folder, "Permission denied" if place.is_dir() else "Not a directory")
    opened = open_series(source, series)
    with quiet_pydicom() as pydicom:
        if not _read(pydicom, opened.frames[0].path, ["StudyInstanceUID"]).get("StudyInstanceUID"):
            raise InputError(f"{opened.name} names no study (StudyInstanceUID); expected one to add a series to; export it again")
    return opened


def _no_room(folder: Path, why: str | None) -> InputError:
    return InputError(f"cannot write into {folder} ({why}); expected a folder of yours with room; choose another")


def pack(data: NDArray[np.float32]) -> StoredPixels:
    """Intensities in 16 bits, with the smallest slope that holds all of them; 0 stays 0."""
    low, high = float(data.min()), float(data.max())
    limits = np.iinfo(np.int16 if low < 0 else np.uint16)
    slope = _decimal(max(high / limits.max, low / limits.min if low < 0 else 0.0)) or 1.0
    stored = np.rint(data.astype(np.float64) / slope).clip(limits.min, limits.max)
    return StoredPixels(stored.astype(limits.dtype), slope)


def _decimal(value: float) -> float:
    """A number that the 16 characters of a DICOM decimal hold exactly."""
    return float(f"{value:.9e}")


def turned(volume: Volume, opened: OpenSeries) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Intensities ``(column, row, slice)`` with the axes of a source, and their indices to LPS mm.

    Raises:
        InputError: the volume does not lie where the source lies, or its rows and columns are not perpendicular.
    """
    count = (*opened.frames[0].shape[::-1], len(opened.frames))
    middle = apply_affine(volume.affine, (np.array(volume.shape) - 1) / 2)
    inside = apply_affine(np.linalg.inv(opened.affine), middle)
    if (inside < -1).any() or (inside > np.array(count)).any():
        raise InputError(f"the image does not lie where {opened.name} lies; expected the series that it was made from; name that one")
    turn = ornt_transform(axcodes2ornt("RAS"), io_orientation(opened.affine))
    data = np.ascontiguousarray(apply_orientation(volume.data, turn), dtype=np.float32)
    affine = LPS_TO_RAS @ volume.affine @ inv_ornt_aff(turn, volume.shape)
    columns = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    if abs(columns[:, 0] @ columns[:, 1]) > SQUARE:
        raise InputError("the image's rows and columns are not perpendicular; expected a grid that DICOM can hold; take --grid prior")
    return data, affine


def _read(pydicom: Any, path: Path, tags: Iterable[str]) -> Any:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
        # Decoded now: damaged bytes lead pydicom to errors of any type.
        header.decode()
        return header
    except Exception as error:
        raise InputError(
            f"a file of the series has a damaged DICOM header ({type(error).__name__}); expected whole files; copy the folder again"
        ) from None


def _header(pydicom: Any, opened: OpenSeries, version: str, description: str) -> Any:
    """All that the slices have in common but for geometry and pixels; its SeriesInstanceUID is still the source's."""
    first = opened.frames[0]
    known = _read(pydicom, first.path, READ)
    about = str(known.get("SeriesDescription") or "")
    done = ": ".join(filter(None, (f"Enhanced by DynamicDPS {version}".rstrip(), description)))
    header = _copied(pydicom, known, ("SpecificCharacterSet", "SeriesInstanceUID", *PATIENT, *STUDY, *SPACE, *ACQUISITION, *INSTITUTION))
    times = {name: _decimals(pydicom, first.facts[fact])[0] for name, fact in TIMES.items() if first.facts[fact] is not None}
    _fill(header, **{name: None for name in EMPTY if name not in header} | times)
    # A source of several frames says these in another way: research mode, inversion recovery, no variant.
    header.setdefault("ScanningSequence", ["RM", "IR"] if "InversionTime" in times else "RM")
    header.setdefault("SequenceVariant", "NONE")
    header.setdefault("BodyPartExamined", "BRAIN")
    header.setdefault("FrameOfReferenceUID", pydicom.uid.generate_uid(entropy_srcs=[str(known.get("SeriesInstanceUID")), "space"]))
    scanner = _copied(pydicom, known, (*INSTITUTION, *SCANNER))
    scanner.setdefault("Manufacturer", "unknown")
    _fill(
        header,
        SOPClassUID=MR_IMAGE,
        Modality="MR",
        ImageType=["DERIVED", "SECONDARY", "OTHER"],
        SeriesNumber=min(100 * abs(opened.number or 0) + 99, MOST_NUMBER),
        SeriesDescription=f"{WORDS}: {about}"[:MOST_WORDS] if about else WORDS,
        DerivationDescription=f"Research use only, not for diagnosis. {done}"[:MOST_TEXT],
        ImageComments=WORDS,
        ContentQualification="RESEARCH",
        SourceImageSequence=[_reference(pydicom, path) for path in dict.fromkeys(frame.path for frame in opened.frames)],
        ContributingEquipmentSequence=[
            _fill(scanner, PurposeOfReferenceCodeSequence=[_code(pydicom, "109101", "Acquisition Equipment")]),
        ],
        Manufacturer="DynamicDPS",
        ManufacturerModelName="DynamicDPS",
        SoftwareVersions=version or None,
    )
    return header


def _reference(pydicom: Any, path: Path) -> Any:
    source = _read(pydicom, path, ["SOPClassUID", "SOPInstanceUID"])
    return _fill(
        pydicom.Dataset(),
        ReferencedSOPClassUID=source.get("SOPClassUID"),
        ReferencedSOPInstanceUID=source.get("SOPInstanceUID"),
        PurposeOfReferenceCodeSequence=[_code(pydicom, "121322", "Source image for image processing operation")],
    )


def _code(pydicom: Any, value: str, meaning: str) -> Any:
    return _fill(pydicom.Dataset(), CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)


def _copied(pydicom: Any, known: Any, names: Iterable[str]) -> Any:
    """A dataset of those that are known, as they stand there."""
    header = pydicom.Dataset()
    for name in names:
        if name in known:
            header[name] = known[name]
    return header


def _fill(header: Any, **values: Any) -> Any:
    """The dataset with these values."""
    for name, value in values.items():
        setattr(header, name, value)
    return header


def _decimals(pydicom: Any, *values: float) -> list[Any]:
    """Decimals of at most 16 characters."""
    return [pydicom.valuerep.DSfloat(float(value), auto_format=True) for value in values]


def _add_geometry(pydicom: Any, header: Any, affine: NDArray[np.float64]) -> None:
    """Image Plane module but for the position, PS3.3 C.7.6.2."""
    between_columns, between_rows, between_slices = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :2] / [between_columns, between_rows]
    _fill(
        header,
        ImageOrientationPatient=_decimals(pydicom, *directions.T.ravel()),
        PixelSpacing=_decimals(pydicom, between_rows, between_columns),
        SliceThickness=_decimals(pydicom, between_slices)[0],
        SpacingBetweenSlices=_decimals(pydicom, between_slices)[0],
    )


def _add_pixels(pydicom: Any, header: Any, packed: StoredPixels, data: NDArray[np.float32]) -> None:
    """Image Pixel, Modality LUT and VOI LUT modules but for the pixels; shown from 0 to what 99.5 % of the image lies below."""
    bright = float(np.percentile(data[data > 0], 99.5)) if (data > 0).any() else packed.slope
    columns, rows = packed.stored.shape[:2]
    slope, half, width = _decimals(pydicom, packed.slope, _decimal(bright / 2), _decimal(bright))
    _fill(
        header,
        Columns=columns,
        Rows=rows,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=int(packed.stored.dtype.kind == "i"),
        RescaleSlope=slope,
        RescaleIntercept=0,
        RescaleType="US",
        WindowCenter=half,
        WindowWidth=width,
    )


def _write_slice(pydicom: Any, header: Any, uid: str, index: int, affine: NDArray[np.float64], pixels: NDArray[Any], path: Path) -> None:
    """One file; `pixels` are ``(column, row)``."""
    image = pydicom.Dataset()
    image.update(header)
    _fill(
        image,
        SOPInstanceUID=uid,
        InstanceNumber=index + 1,
        ImagePositionPatient=_decimals(pydicom, *apply_affine(affine, (0, 0, index))),
    )
    image.add_new("PixelData", "OW", pixels.T.astype(f"<{pixels.dtype.kind}2").tobytes())
    image.file_meta = _fill(
        pydicom.dataset.FileMetaDataset(),
        MediaStorageSOPClassUID=MR_IMAGE,
        MediaStorageSOPInstanceUID=uid,
        TransferSyntaxUID=pydicom.uid.ExplicitVRLittleEndian,
    )
    image.save_as(path, enforce_file_format=True)


def _stamped(packed: StoredPixels) -> StoredPixels:
    """The words in white on black at the top of every slice."""
    columns, rows = packed.stored.shape[:2]
    letters = _letters(columns, rows)
    height, width = letters.shape
    stored = packed.stored.copy()
    stored[:width, :height] = np.rint(letters.T * float(stored.max())).astype(stored.dtype)[..., None]
    return StoredPixels(stored, packed.slope)


def _letters(columns: int, rows: int) -> NDArray[np.float64]:
    """The words as an image ``(row, column)`` of 0 to 1 that fits into a slice."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(32)
    box = [round(v) for v in font.getbbox(WORDS)]
    drawn = Image.new("L", (box[2] + 8, box[3] + 8))
    ImageDraw.Draw(drawn).text((4, 4), WORDS, fill=255, font=font)
    width = max(1, min(columns * 19 // 20, 240))
    height = max(1, min(rows, round(drawn.height * width / drawn.width)))
    return np.asarray(drawn.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float64) / 255
