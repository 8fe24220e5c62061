"""DICOM series become volumes in the right place, and patients stay unknown."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.orientations import aff2axcodes
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, generate_uid

from dynamicdps.volumes import Scan, load, load_dicom, read_scan
from tests.properties import input_error
from tests.volumes.dicom_files import SECRETS, Stack, make_stack, rewrite, write_enhanced, write_slices

FLIP = np.array([-1.0, -1.0, 1.0])


def assert_in_place(scan: Scan, stack: Stack) -> None:
    """Every stored pixel lies in the volume where DICOM's formula puts it, in right, front, up."""
    assert aff2axcodes(scan.volume.affine) == ("R", "A", "S")
    assert sorted(scan.volume.shape) == sorted(stack.stored.shape)
    inverse = np.linalg.inv(scan.volume.affine)
    for (z, row, column), stored in np.ndenumerate(stack.stored):
        index = apply_affine(inverse, FLIP * stack.place(z, row, column))
        assert np.abs(index - np.rint(index)).max() < 1e-3
        assert scan.volume.data[tuple(np.rint(index).astype(int))] == 0.5 * stored + z


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 2, 0)], ids=["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("degrees", [0.0, 14.0])
@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("enhanced", [False, True])
def test_every_pixel_is_in_its_place(tmp_path: Path, axes: tuple[int, int, int], degrees: float, left_handed: bool, enhanced: bool) -> None:
    stack = make_stack(axes, degrees, left_handed=left_handed)
    if enhanced:
        write_enhanced(tmp_path / "series" / "image.dcm", stack)
    else:
        write_slices(tmp_path / "series" / "below", stack)
    scan = load_dicom(tmp_path / "series")
    assert_in_place(scan, stack)
    again = load(scan.volume.save(tmp_path / "scan.nii.gz"))
    np.testing.assert_allclose(again.affine, scan.volume.affine, atol=1e-4)
    np.testing.assert_array_equal(again.data, scan.volume.data)


@pytest.mark.parametrize("enhanced", [False, True])
def test_acquisition(tmp_path: Path, enhanced: bool) -> None:
    stack = make_stack((0, 2, 1), 10.0)
    if enhanced:
        write_enhanced(tmp_path / "image.dcm", stack)
    else:
        write_slices(tmp_path, stack)
    scan = read_scan(tmp_path)
    assert scan.acquisition.to_json() == pytest.approx(
        {
            "field_strength_t": 0.064,
            "sequence": "gre3d" if enhanced else "GR\\IR",
            "echo_time_ms": 6.5,
            "repetition_time_ms": 1500.0,
            "inversion_time_ms": 400.0,
            "flip_angle_deg": 90.0,
            "slice_thickness_mm": 5.0,
            "slice_spacing_mm": 6.0,
            "slice_axis": 1,
        }
    )
    assert scan.acquisition.slice_gap_mm == pytest.approx(1.0)
    assert scan.volume.spacing[1] == pytest.approx(6.0)
    for secret in SECRETS:
        assert secret not in repr(scan)


def test_single_slice_is_as_long_as_thick(tmp_path: Path) -> None:
    write_slices(tmp_path, make_stack(slices=1))
    scan = load_dicom(tmp_path)
    assert scan.volume.spacing == pytest.approx((1.5, 1.25, 5.0))
    assert scan.acquisition.slice_spacing_mm is None


def test_values_that_cannot_be_are_left_out_with_a_warning(tmp_path: Path) -> None:
    files = write_slices(tmp_path, make_stack())
    for number in range(len(files)):
        rewrite(files, number, MagneticFieldStrength=15000.0, FlipAngle=0.0, InversionTime=None)
    found = load_dicom(tmp_path).acquisition
    assert (found.field_strength_t, found.flip_angle_deg, found.inversion_time_ms) == (None, None, None)
    assert len(found.warnings) == 1


def test_several_series_are_listed_without_names(tmp_path: Path) -> None:
    write_slices(tmp_path / "a", make_stack(), series=3)
    write_slices(tmp_path / "b", make_stack(slices=4), series=7)
    times = "TE 6.5 ms, TR 1500 ms, TI 400 ms"
    with input_error(rf"2 series; .*--series.* 3 \(MR, GR\\IR, {times}, axial, 11 x 8, 1.5 x 1.25 mm, 6 images\), 7 \(MR, .*, 4 images\)$"):
        load_dicom(tmp_path)
    with pytest.raises(ValueError, match="series") as caught:
        load_dicom(tmp_path)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert load_dicom(tmp_path, 7).volume.shape == (11, 8, 4)
    assert read_scan(tmp_path, 3).volume.shape == (11, 8, 6)
    with input_error("no MR series 5"):
        load_dicom(tmp_path, 5)


def test_other_files_and_other_modalities_do_not_matter(tmp_path: Path) -> None:
    stack = make_stack()
    write_slices(tmp_path, stack)
    other = write_slices(tmp_path / "other", make_stack(slices=1), series=9)
    rewrite(other, 0, Modality="OT")
    (tmp_path / "notes.txt").write_text("not DICOM", encoding="utf-8")
    assert_in_place(load_dicom(tmp_path), stack)


def without_one(files: list[FileDataset]) -> None:
    middle = sorted(files, key=lambda f: f.ImagePositionPatient[2])[2]
    Path(str(middle.filename)).unlink()


def unevenly(files: list[FileDataset]) -> None:
    x, y, z = files[0].ImagePositionPatient
    rewrite(files, 0, ImagePositionPatient=[x, y, z + 2.0])


def turned(files: list[FileDataset]) -> None:
    rewrite(files, 0, ImageOrientationPatient=[0, 1, 0, 0, 0, 1])


def sideways(files: list[FileDataset]) -> None:
    for number, file in enumerate(files):
        x, y, z = file.ImagePositionPatient
        rewrite(files, number, ImagePositionPatient=[x, y + 0.2 * float(z), z])


def second_echo(files: list[FileDataset]) -> None:
    rewrite(files, 0, EchoTime=20.0, ImagePositionPatient=list(files[1].ImagePositionPatient))


def second_kind(files: list[FileDataset]) -> None:
    rewrite(files, 0, ImageType=["ORIGINAL", "PRIMARY", "P"], ImagePositionPatient=list(files[1].ImagePositionPatient))


def placeless(files: list[FileDataset]) -> None:
    rewrite(files, 2, ImagePositionPatient=None)


def mosaic(files: list[FileDataset]) -> None:
    rewrite(files, 2, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])


def colours(files: list[FileDataset]) -> None:
    rewrite(files, 2, PhotometricInterpretation="RGB", SamplesPerPixel=3)


def another_matrix(files: list[FileDataset]) -> None:
    rewrite(files, 2, Rows=4, PixelData=b"\0" * 88)


def skewed(files: list[FileDataset]) -> None:
    for number in range(len(files)):
        rewrite(files, number, ImageOrientationPatient=[1, 0, 0, 0.7, 0.7, 0])


def compressed(files: list[FileDataset]) -> None:
    for number, file in enumerate(files):
        file.file_meta.TransferSyntaxUID = JPEG2000Lossless
        rewrite(files, number, PixelData=encapsulate([b"\xff\x4f\xff\x51nothing"]))


def cut_off(files: list[FileDataset]) -> None:
    rewrite(files, 2, PixelData=files[2].PixelData[:50])


def two_of_one_number(files: list[FileDataset]) -> None:
    rewrite(files, 0, SeriesInstanceUID=generate_uid())


def no_mr(files: list[FileDataset]) -> None:
    for number in range(len(files)):
        rewrite(files, number, Modality="CT")


def constant(files: list[FileDataset]) -> None:
    for number in range(len(files)):
        rewrite(files, number, PixelData=b"\0" * 176, RescaleIntercept=0.0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_one, r"lacks 1 of 6 slices \(6 mm apart\)"),
        (unevenly, r"mm apart; expected one distance"),
        (turned, "different orientations"),
        (sideways, "shifted sideways"),
        (second_echo, "echo times 6.5, 20 ms"),
        (second_kind, "kinds M, P"),
        (placeless, "without position"),
        (mosaic, "mosaics"),
        (colours, "colours"),
        (another_matrix, "different matrices"),
        (skewed, "not perpendicular"),
        (compressed, "JPEG 2000.* plug-in"),
        (cut_off, "cannot be read"),
        (two_of_one_number, "2 series; .*--series"),
        (no_mr, r"no MR series but 3 \(CT"),
        (constant, "is constant"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_wrong_is_said_without_names(tmp_path: Path, spoil: Callable[[list[FileDataset]], None], message: str) -> None:
    files = write_slices(tmp_path, make_stack())
    spoil(files)
    with input_error(message):
        load_dicom(tmp_path)
    with pytest.raises(ValueError, match=r".") as caught:
        load_dicom(tmp_path)
    assert not any(secret in str(caught.value) for secret in SECRETS)


def test_series_of_one_number_cannot_be_told_apart(tmp_path: Path) -> None:
    two_of_one_number(write_slices(tmp_path, make_stack()))
    with input_error("2 series of number 3"):
        load_dicom(tmp_path, 3)


def test_folders_without_images(tmp_path: Path) -> None:
    with input_error("no DICOM image"):
        load_dicom(tmp_path)
    with input_error("is not a folder"):
        load_dicom(tmp_path / "missing")


def test_damaged_header(tmp_path: Path) -> None:
    files = write_slices(tmp_path, make_stack())
    path = Path(str(files[0].filename))
    path.write_bytes(path.read_bytes()[:400])
    with input_error("damaged DICOM header"):
        load_dicom(tmp_path)


def test_pydicom_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pydicom":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with input_error(r"pip install 'dynamicdps\[dicom\]'"):
        load_dicom(tmp_path)
