"""DICOM files of a known volume, with a patient who must stay unknown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from dynamicdps.volumes import Volume
from tests.volumes.head import rotation

IDENTITY = {
    "PatientName": "Doe^Jane",
    "PatientID": "ID-4711",
    "PatientBirthDate": "19700131",
    "StudyDate": "20200229",
    "InstitutionName": "General Hospital",
    "SeriesDescription": "T1 for Jane Doe",
    "ReferringPhysicianName": "House^Gregory",
}
STUDY, SPACE = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
SECRETS = ("Doe", "Jane", "4711", "19700131", "20200229", "General Hospital", "House")


@dataclass
class Stack:
    """Stored values ``(slices, rows, columns)`` and where they lie, in LPS mm.

    Attributes:
        stored: pixel values.
        directions: columns are the unit vectors along a row, along a column and across the slices.
        spacing: between columns, between rows, between slices.
        first: centre of the first pixel.
    """

    stored: np.ndarray
    directions: np.ndarray
    spacing: tuple[float, float, float]
    first: np.ndarray

    def position(self, z: int) -> np.ndarray:
        return self.first + z * self.spacing[2] * self.directions[:, 2]

    def place(self, z: int, row: int, column: int) -> np.ndarray:
        """Centre of a pixel in LPS mm, by the formula of DICOM PS3.3 C.7.6.2.1.1."""
        across = self.directions[:, 0] * self.spacing[0] * column + self.directions[:, 1] * self.spacing[1] * row
        return np.asarray(self.position(z) + across)


def make_stack(axes: tuple[int, int, int] = (0, 1, 2), degrees: float = 0.0, slices: int = 6, left_handed: bool = False) -> Stack:
    directions = rotation((degrees, -0.6 * degrees, 0.4 * degrees))[:3, :3][:, list(axes)]
    directions[:, 2] = np.cross(directions[:, 0], directions[:, 1]) * (-1 if left_handed else 1)
    stored = np.random.default_rng(0).integers(0, 1000, (slices, 8, 11)).astype(np.uint16)
    return Stack(stored, directions, (1.5, 1.25, 6.0), np.array([-30.0, 12.0, -7.5]))


def stack_of(volume: Volume, scale: float = 1.0) -> Stack:
    """A volume as a stack of axial slices whose patient lies on the back."""
    stored = np.maximum(scale * volume.data.transpose(2, 1, 0)[:, ::-1, ::-1], 0).astype(np.uint16)
    return Stack(stored, np.eye(3), volume.spacing, np.zeros(3))


def base(sop_class: str, series: int, uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in IDENTITY.items():
        setattr(data, name, value)
    data.StudyInstanceUID, data.FrameOfReferenceUID = STUDY, SPACE
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.SeriesNumber, data.Modality = uid, series, "MR"
    data.MagneticFieldStrength = 0.064
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    return data


def slice_dataset(stack: Stack, z: int, series: int, uid: str) -> FileDataset:
    data = base(MRImageStorage, series, uid)
    data.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    data.Rows, data.Columns = stack.stored.shape[1:]
    data.ImagePositionPatient = [f"{v:.6f}" for v in stack.position(z)]
    data.ImageOrientationPatient = [f"{v:.9f}" for v in stack.directions[:, :2].T.ravel()]
    data.PixelSpacing = [stack.spacing[1], stack.spacing[0]]
    data.SliceThickness, data.SpacingBetweenSlices = 5.0, 99.0  # the second is wrong, as it often is
    data.ScanningSequence = ["GR", "IR"]
    data.EchoTime, data.RepetitionTime, data.InversionTime, data.FlipAngle = 6.5, 1500.0, 400.0, 90.0
    data.RescaleSlope, data.RescaleIntercept = 0.5, float(z)
    data.PixelData = stack.stored[z].tobytes()
    return data


def write_slices(folder: Path, stack: Stack, series: int = 3, uid: str | None = None) -> list[FileDataset]:
    """One file a slice, in an order of names that is not that of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    order = np.random.default_rng(1).permutation(len(stack.stored))
    files = []
    for name, z in enumerate(order):
        data = slice_dataset(stack, int(z), series, uid)
        data.save_as(folder / f"{series}-{name:03d}", enforce_file_format=True)
        data.filename = str(folder / f"{series}-{name:03d}")
        files.append(data)
    return files


def rewrite(files: list[FileDataset], number: int, **changes: Any) -> None:
    """Change tags of one file; `None` removes the tag."""
    for name, value in changes.items():
        if value is None:
            delattr(files[number], name)
        else:
            setattr(files[number], name, value)
    files[number].save_as(str(files[number].filename), enforce_file_format=True)


def write_enhanced(path: Path, stack: Stack, series: int = 3) -> None:
    """One multi-frame file; the order of its frames is not that of the slices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = base(EnhancedMRImageStorage, series, generate_uid())
    order = np.random.default_rng(1).permutation(len(stack.stored))
    data.NumberOfFrames, data.Rows, data.Columns = stack.stored.shape
    data.PulseSequenceName = "gre3d"
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared = Dataset()
    shared.PixelMeasuresSequence = [item(PixelSpacing=[stack.spacing[1], stack.spacing[0]], SliceThickness=5.0)]
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=[float(v) for v in stack.directions[:, :2].T.ravel()])]
    shared.MRTimingAndRelatedParametersSequence = [item(RepetitionTime=1500.0, FlipAngle=90.0)]
    shared.MREchoSequence = [item(EffectiveEchoTime=6.5)]
    shared.MRModifierSequence = [item(InversionTimes=[400.0])]
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for z in order:
        frame = Dataset()
        frame.PlanePositionSequence = [item(ImagePositionPatient=[float(v) for v in stack.position(int(z))])]
        frame.PixelValueTransformationSequence = [item(RescaleSlope=0.5, RescaleIntercept=float(z), RescaleType="US")]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.PixelData = stack.stored[order].tobytes()
    data.save_as(path, enforce_file_format=True)


def item(**tags: Any) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data
