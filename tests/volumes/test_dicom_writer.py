"""A volume written as a DICOM series lies where it lay, belongs to the same study, and says what it is."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dynamicdps.volumes import Volume, dicom_writer, load, load_dicom, write_dicom
from dynamicdps.volumes.dicom_writer import WORDS, pack
from tests.properties import input_error
from tests.volumes.dicom_files import IDENTITY, SPACE, STUDY, make_stack, rewrite, write_enhanced, write_slices

# Type 1 of MR Image, PS3.3 table A.4-1, without conditions; those of type 2 may be empty but must be there.
NEEDED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "FrameOfReferenceUID", "ImageType"),
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ScanningSequence", "SequenceVariant"),
)
THERE = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "SeriesNumber", "Manufacturer", "PositionReferenceIndicator", "SliceThickness", "InstanceNumber"),
    *("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength", "PatientPosition"),
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_slices(tmp_path / "source", make_stack((0, 1, 2), 8.0))
    return tmp_path / "source"


def finer(scan: Volume, seed: int = 0) -> Volume:
    """An image on a grid of its own in the scan's field of view: smaller voxels, more of them, some negative."""
    affine = scan.affine.copy()
    affine[:3, :3] *= [0.7, 0.8, 0.5]
    affine[:3, 3] += scan.affine[:3, :3] @ [0.4, -0.2, 0.3]
    x, y, z = scan.shape
    noise = np.random.default_rng(seed).normal(100.0, 60.0, (x + 3, y + 2, 2 * z))
    return Volume(noise.astype(np.float32), affine)


def read(files: list[Path]) -> list[Any]:
    return [pydicom.dcmread(path) for path in files]


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 2, 0)], ids=["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("degrees", [0.0, 14.0])
@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("enhanced", [False, True])
def test_round_trip(tmp_path: Path, axes: tuple[int, int, int], degrees: float, left_handed: bool, enhanced: bool) -> None:
    stack = make_stack(axes, degrees, left_handed=left_handed)
    if enhanced:
        write_enhanced(tmp_path / "source" / "image.dcm", stack)
    else:
        write_slices(tmp_path / "source", stack)
    scan = load_dicom(tmp_path / "source")
    image = finer(scan.volume)
    files = write_dicom(image, tmp_path / "source", tmp_path / "new")
    again = load_dicom(tmp_path / "new")
    np.testing.assert_allclose(again.volume.affine, image.affine, atol=1e-6)
    half_a_step = np.abs(image.data).max() / 32767 / 2
    assert np.abs(again.volume.data - image.data).max() <= half_a_step * 1.001 + 1e-5
    # Its slices, rows and columns run as those of the source.
    assert again.volume.orientation == scan.volume.orientation
    assert again.acquisition.slice_axis == scan.acquisition.slice_axis
    for name in ("field_strength_t", "echo_time_ms", "repetition_time_ms", "inversion_time_ms", "flip_angle_deg"):
        assert getattr(again.acquisition, name) == getattr(scan.acquisition, name)
    for header in read(files):
        assert all(header.get(name) not in (None, "") for name in NEEDED)
        assert all(name in header for name in THERE)


@given(arrays(np.float32, (3, 2, 2), elements=st.floats(-1e5, 1e6, width=32, allow_subnormal=False)))
def test_sixteen_bits_hold_the_intensities(data: NDArray[np.float32]) -> None:
    packed = pack(data)
    back = packed.slope * packed.stored.astype(np.float64)
    assert np.abs(back - data).max() <= packed.slope * 0.5 * (1 + 1e-6) + 1e-9 * float(np.abs(data).max())
    assert (packed.stored[data == 0] == 0).all()
    assert packed.stored.dtype == (np.int16 if data.min() < 0 else np.uint16)
    # The steps are as fine as 16 bits allow.
    largest = 32767 if data.min() < 0 else 65535
    assert not data.any() or packed.slope <= float(np.abs(data).max()) / largest * (1 + 1e-6)


def test_same_patient_and_study_new_series(source: Path, tmp_path: Path) -> None:
    files = write_dicom(finer(load_dicom(source).volume), source, tmp_path / "new", version="7.1", description="solver data-step")
    old, new = read(sorted(source.iterdir())), read(files)
    for header in new:
        for name, value in IDENTITY.items():
            if name != "SeriesDescription":
                assert header[name].value == value
        assert (header.StudyInstanceUID, header.FrameOfReferenceUID) == (STUDY, SPACE)
        assert header.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert header.SeriesDescription == f"{WORDS}: {IDENTITY['SeriesDescription']}"
        assert header.DerivationDescription.endswith("not for diagnosis. Enhanced by DynamicDPS 7.1: solver data-step")
        referenced = {item.ReferencedSOPInstanceUID for item in header.SourceImageSequence}
        assert referenced == {each.SOPInstanceUID for each in old}
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert header.Manufacturer == "DynamicDPS"
        assert header.ContributingEquipmentSequence[0].InstitutionName == IDENTITY["InstitutionName"]
    assert len({header.SeriesInstanceUID for header in new}) == 1
    assert new[0].SeriesInstanceUID != old[0].SeriesInstanceUID
    instances = [header.SOPInstanceUID for header in new]
    assert len(set(instances)) == len(instances)
    assert not set(instances) & {header.SOPInstanceUID for header in old}
    assert [header.InstanceNumber for header in new] == list(range(1, len(new) + 1))
    # Both series in one archive: each can be chosen.
    for path in files:
        shutil.copy(path, source / path.name)
    assert load_dicom(source, 3).volume.shape != load_dicom(source, int(new[0].SeriesNumber)).volume.shape


def test_the_same_call_writes_the_same_bytes_and_another_image_has_other_uids(source: Path, tmp_path: Path) -> None:
    scan = load_dicom(source).volume
    one, two, other, stamped = (
        write_dicom(finer(scan, seed), source, tmp_path / name, stamp=stamp)
        for name, seed, stamp in (("one", 0, False), ("two", 0, False), ("other", 1, False), ("stamped", 0, True))
    )
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    uids = {header.SOPInstanceUID for header in read([*one, *other, *stamped])}
    assert len(uids) == 3 * len(one)


def test_the_words_are_drawn_into_every_slice_and_nothing_else_changes(tmp_path: Path) -> None:
    stack = make_stack(slices=4)
    stack = replace(stack, stored=np.random.default_rng(0).integers(0, 900, (4, 96, 128)).astype(np.uint16))
    write_slices(tmp_path / "source", stack)
    image = load_dicom(tmp_path / "source").volume
    plain, stamped = (
        np.stack([header.pixel_array for header in read(write_dicom(image, tmp_path / "source", tmp_path / str(stamp), stamp=stamp))])
        for stamp in (False, True)
    )
    changed = (plain != stamped).any(axis=0)
    rows, columns = (int(np.flatnonzero(changed.any(axis=axis)).max()) + 1 for axis in (1, 0))
    assert rows < 16
    words = stamped[:, :rows, :columns]
    assert (words == words[0]).all()
    # White letters on black.
    assert 0.1 < (words[0] > 0.5 * plain.max()).mean() < 0.5
    assert (words[0] == 0).mean() > 0.3


def test_words_of_any_language(source: Path, tmp_path: Path) -> None:
    files = [pydicom.dcmread(path) for path in sorted(source.iterdir())]
    for number in range(len(files)):
        rewrite(files, number, SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jörg=山田^太郎", PatientComments="прежде")
    header = read(write_dicom(load_dicom(source).volume, source, tmp_path / "new"))[0]
    assert str(header.PatientName) == "Müller^Jörg=山田^太郎"
    assert header.PatientComments == "прежде"


def test_what_the_source_says_goes_back_as_it_stands_there(source: Path, tmp_path: Path) -> None:
    """Also where it is none of the standard's, and where little is said."""
    with pydicom.config.disable_value_validation():
        files = [pydicom.dcmread(path) for path in sorted(source.iterdir())]
        for number in range(len(files)):
            rewrite(files, number, PatientBirthDate="unknown", AccessionNumber="A" * 40, FrameOfReferenceUID=None, StudyDate=None)
            rewrite(files, number, ScanningSequence=None, EchoTime=None, SeriesDescription=None)
        (header, *_) = read(write_dicom(load_dicom(source).volume, source, tmp_path / "new"))
        assert (header.PatientBirthDate, header.AccessionNumber) == ("unknown", "A" * 40)
        assert header.SeriesDescription == WORDS
        assert header.StudyDate in (None, "")
        assert header.FrameOfReferenceUID


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    image = load_dicom(source).volume
    new = tmp_path / "new"
    with input_error("no folder of DICOM files"):
        write_dicom(image, source / "3-000", new)
    with input_error("would be read as a part of it"):
        write_dicom(image, source, source / "new")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for there in (tmp_path / "full", tmp_path / "full" / "a"):
        with input_error("not empty"):
            write_dicom(image, source, there)
    with input_error("cannot write into"):
        write_dicom(image, source, tmp_path / "full" / "a" / "b")
    away = image.affine.copy()
    away[0, 3] += 500
    with input_error("does not lie where"):
        write_dicom(replace(image, affine=away), source, new)
    sheared = image.affine.copy()
    sheared[:3, 1] += 0.3 * sheared[:3, 0]
    with input_error("not perpendicular"):
        write_dicom(replace(image, affine=sheared), source, new)
    files = [pydicom.dcmread(path) for path in sorted(source.iterdir())]
    for number in range(len(files)):
        rewrite(files, number, StudyInstanceUID=None)
    with input_error("names no study"):
        write_dicom(image, source, new)
    assert not new.exists()


def test_a_series_is_whole_or_not_there(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = dicom_writer._write_slice, []

    def once(*arguments: Any) -> None:
        if written:
            raise OSError(28, "No space left on device")
        write(*arguments)
        written.append(arguments)

    monkeypatch.setattr(dicom_writer, "_write_slice", once)
    (tmp_path / "empty").mkdir()
    with input_error("No space left"):
        write_dicom(load_dicom(source).volume, source, tmp_path / "empty")
    assert written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "source"]
    assert not any((tmp_path / "empty").iterdir())


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed; pip install dcm2niix")
@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 2, 0)], ids=["axial", "coronal", "sagittal"])
def test_dcm2niix_reads_the_same(tmp_path: Path, axes: tuple[int, int, int]) -> None:
    write_slices(tmp_path / "source", make_stack(axes, 9.0))
    image = finer(load_dicom(tmp_path / "source").volume)
    write_dicom(image, tmp_path / "source", tmp_path / "new")
    (tmp_path / "out").mkdir()
    subprocess.run(["dcm2niix", "-f", "scan", "-o", str(tmp_path / "out"), str(tmp_path / "new")], check=True, capture_output=True)
    (path,) = (tmp_path / "out").glob("*.nii")
    again = load(path)
    np.testing.assert_allclose(again.affine, image.affine, atol=1e-3)
    assert np.abs(again.data - image.data).max() <= np.abs(image.data).max() / 32767
