"""Reading and writing keep the geometry, the type and the intensities; bad files give one sentence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.spatial.transform import Rotation

from dynamicdps.volumes import Volume, crop, from_nibabel, load, resample_to
from dynamicdps.volumes.volume import Native
from tests.properties import input_error

SHAPE = (7, 9, 5)
ORIENTATIONS = ["RAS", "LPS", "PIR", "LAS", "SAR"]


def ras_affine(spacing: tuple[float, float, float] = (1.0, 1.2, 3.0), degrees: float = 0.0) -> np.ndarray:
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [degrees, -0.6 * degrees, 0.4 * degrees], degrees=True).as_matrix()
    affine[:3, :3] = rotation @ np.diag(spacing)
    affine[:3, 3] = [-20.0, 13.5, 4.25]
    return affine


def native(data: np.ndarray, codes: str, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RAS data and affine as a file with those axes holds them."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return apply_orientation(data, turn), affine @ inv_ornt_aff(turn, data.shape)


def write(path: Path, data: np.ndarray, affine: np.ndarray, slope: float = 1.0, inter: float = 0.0) -> Path:
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    if (slope, inter) != (1.0, 0.0):
        image.header.set_slope_inter(slope, inter)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("degrees", [0.0, 18.0])
@pytest.mark.parametrize(
    ("dtype", "slope", "inter"),
    [
        ("uint8", 1.0, 0.0),
        ("int16", 1.0, 0.0),
        ("int16", 0.25, -3.0),
        ("uint16", 2.5, 10.0),
        ("int32", 1.0, 0.0),
        ("int64", 1.0, 0.0),
        ("float32", 1.0, 0.0),
        ("float64", 1.0, 0.0),
    ],
)
def test_round_trip_keeps_everything(tmp_path: Path, codes: str, degrees: float, dtype: str, slope: float, inter: float) -> None:
    values = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    data, affine = native(values, codes, ras_affine(degrees=degrees))
    source = write(tmp_path / "in.nii.gz", data, affine, slope, inter)

    volume = load(source)
    assert volume.shape == SHAPE
    assert volume.data.dtype == np.float32
    assert aff2axcodes(volume.affine) == ("R", "A", "S")
    np.testing.assert_allclose(volume.spacing, (1.0, 1.2, 3.0), rtol=1e-5)
    np.testing.assert_allclose(volume.data, values * slope + inter, rtol=1e-6)

    again: Any = nib.load(volume.save(tmp_path / "out" / "again.nii.gz", dtype=None))
    before: Any = nib.load(source)
    assert again.shape == before.shape
    assert again.get_data_dtype() == np.dtype(dtype)
    assert aff2axcodes(again.affine) == tuple(codes)
    assert (again.dataobj.slope, again.dataobj.inter) == (slope, inter)
    np.testing.assert_allclose(again.affine, before.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(before.dataobj))

    floats: Any = nib.load(volume.save(tmp_path / "floats.nii"))
    assert floats.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.asarray(floats.dataobj), np.asarray(before.dataobj), rtol=1e-6)
    np.testing.assert_allclose(floats.affine, before.affine, atol=1e-5)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_bright_voxel_keeps_its_place_in_the_world(tmp_path: Path, codes: str) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[2, 6, 1] = 1
    data, affine = native(values, codes, ras_affine(degrees=12))
    expected = affine @ [*np.argwhere(data)[0], 1]
    volume = load(write(tmp_path / "spot.nii", data, affine))
    np.testing.assert_allclose(volume.affine @ [*np.argwhere(volume.data)[0], 1], expected, atol=1e-4)


def test_integers_are_rounded_and_clipped_to_the_range_of_the_file(tmp_path: Path) -> None:
    volume = load(write(tmp_path / "in.nii", np.arange(315, dtype=np.int64).reshape(SHAPE).astype(np.uint8), np.eye(4)))
    changed = np.full(SHAPE, 7.0)
    changed[0, 0, :3] = [-4.0, 300.0, 8.6]
    image: Any = nib.load(volume.with_data(changed).save(tmp_path / "out.nii", dtype=None))
    np.testing.assert_array_equal(np.asarray(image.dataobj)[0, 0, :4], [0, 255, 9, 7])


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32"])
def test_wide_integers_do_not_wrap(tmp_path: Path, dtype: str) -> None:
    volume = load(write(tmp_path / "in.nii", np.arange(315).reshape(SHAPE).astype(dtype), np.eye(4)))
    image: Any = nib.load(volume.with_data(np.full(SHAPE, 1e20)).save(tmp_path / "out.nii", dtype=None))
    assert (np.asarray(image.dataobj) > 0.99 * np.iinfo(dtype).max).all()


def test_one_echo_with_extra_axes_is_a_volume(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((*SHAPE, 1, 1), dtype=np.float32)
    assert load(write(tmp_path / "echo.nii", data, np.eye(4))).shape == SHAPE


def test_single_slice_is_a_volume(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((8, 9, 1), dtype=np.float32)
    assert load(write(tmp_path / "slice.nii", data, np.eye(4))).shape == (8, 9, 1)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL"])
def test_to_nibabel_and_back(tmp_path: Path, phantom: Volume, codes: str) -> None:
    """The image is that which `save` writes, and a volume of it is the same again."""
    turned = replace(phantom, native=Native(axcodes2ornt(codes), np.dtype(np.int16)))
    image = turned.to_nibabel()
    saved = nib.load(turned.save(tmp_path / "scan.nii.gz"))
    np.testing.assert_array_equal(image.get_fdata(), saved.get_fdata())
    np.testing.assert_array_equal(image.affine, saved.affine)
    assert "".join(aff2axcodes(image.affine)) == codes == turned.orientation
    for other in (image, saved):
        back = from_nibabel(other)
        np.testing.assert_array_equal(back.data, phantom.data)
        np.testing.assert_allclose(back.affine, phantom.affine)
        assert back.orientation == codes


def test_a_volume_is_one_line_and_knows_its_file_while_it_is_that(tmp_path: Path, phantom: Volume) -> None:
    path = phantom.save(tmp_path / "scan.nii.gz")
    scan = load(path)
    assert repr(scan) == str(scan) == f"Volume({path}: 48 x 56 x 12 voxels of 1 x 1 x 1 mm, RAS)"
    assert from_nibabel(nib.load(path)).path == path
    for computed in (phantom, scan.with_data(scan.data), crop(scan, (slice(4, 8),) * 3), from_nibabel(scan.to_nibabel())):
        assert computed.path is None
        assert repr(computed).startswith("Volume(array: ")


def test_mgz_is_read(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    nib.save(nib.MGHImage(data, ras_affine()), tmp_path / "brain.mgz")
    volume = load(tmp_path / "brain.mgz")
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, ras_affine(), atol=1e-5)


def as_missing(path: Path) -> Path:
    return path / "missing.nii.gz"


def as_folder(path: Path) -> Path:
    (path / "folder.nii.gz").mkdir()
    return path / "folder.nii.gz"


def as_text(path: Path) -> Path:
    (path / "notes.nii.gz").write_text("not an image", encoding="utf-8")
    return path / "notes.nii.gz"


def as_other_suffix(path: Path) -> Path:
    (path / "notes.txt").write_text("not an image", encoding="utf-8")
    return path / "notes.txt"


def as_empty_file(path: Path) -> Path:
    (path / "empty.nii").touch()
    return path / "empty.nii"


def noisy(path: Path, name: str = "scan.nii.gz") -> Path:
    return write(path / name, np.random.default_rng(0).random((20, 20, 20), dtype=np.float32), np.eye(4))


def as_truncated_gzip(path: Path) -> Path:
    file = noisy(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def as_truncated_nifti(path: Path) -> Path:
    file = noisy(path, "scan.nii")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def as_corrupt_gzip(path: Path) -> Path:
    file = noisy(path)
    content = bytearray(file.read_bytes())
    content[12:60] = b"\xff" * 48  # no valid block of the compressed stream
    file.write_bytes(content)
    return file


def as_corrupt_header(path: Path) -> Path:
    file = noisy(path, "scan.nii")
    content = bytearray(file.read_bytes())
    content[70:72] = b"\xff\x7f"  # the data type's code
    file.write_bytes(content)
    return file


def as_surface(path: Path) -> Path:
    nib.save(nib.GiftiImage(), path / "surface.gii")
    return path / "surface.gii"


def as_four_dimensions(path: Path) -> Path:
    return write(path / "series.nii", np.random.default_rng(0).random((4, 4, 4, 3), dtype=np.float32), np.eye(4))


def as_two_dimensions(path: Path) -> Path:
    return write(path / "plane.nii", np.random.default_rng(0).random((4, 4), dtype=np.float32), np.eye(4))


def as_empty_shape(path: Path) -> Path:
    return write(path / "empty.nii", np.zeros((0, 4, 4), np.float32), np.eye(4))


def as_constant(path: Path) -> Path:
    return write(path / "constant.nii", np.full((4, 4, 4), 3.0, np.float32), np.eye(4))


def with_nan(path: Path) -> Path:
    data = np.random.default_rng(0).random((4, 4, 4), dtype=np.float32)
    data[1, 2, 3] = np.nan
    return write(path / "nan.nii", data, np.eye(4))


def with_infinity(path: Path) -> Path:
    data = np.random.default_rng(0).random((4, 4, 4), dtype=np.float32)
    data[1, 2, 3] = np.inf
    return write(path / "infinity.nii", data, np.eye(4))


def with_singular_affine(path: Path) -> Path:
    image = nib.Nifti1Image(np.random.default_rng(0).random((4, 4, 4), dtype=np.float32), None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = [1, 0, 0, 0]
    image.header["srow_y"] = [1, 0, 0, 0]
    image.header["srow_z"] = [0, 0, 1, 0]
    nib.save(image, path / "singular.nii")
    return path / "singular.nii"


def with_nan_affine(path: Path) -> Path:
    image = nib.Nifti1Image(np.random.default_rng(0).random((4, 4, 4), dtype=np.float32), None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = [np.nan, 0, 0, 0]
    image.header["srow_y"] = [0, 1, 0, 0]
    image.header["srow_z"] = [0, 0, 1, 0]
    nib.save(image, path / "nan-affine.nii")
    return path / "nan-affine.nii"


def with_long_voxels(path: Path) -> Path:
    return write(path / "long.nii", np.random.default_rng(0).random((4, 4, 4), dtype=np.float32), np.diag([1.0, 1.0, 25.0, 1.0]))


def as_complex(path: Path) -> Path:
    return write(path / "complex.nii", np.ones((4, 4, 4), np.complex64), np.eye(4))


def as_colours(path: Path) -> Path:
    return write(path / "colours.nii", np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4))


@pytest.mark.filterwarnings("ignore:Truncating|.*imghdr")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (as_missing, "does not exist"),
        (as_folder, "is a folder"),
        (as_text, "cannot be read"),
        (as_other_suffix, "no known type"),
        (as_empty_file, "cannot be read"),
        (as_truncated_gzip, "cannot be read"),
        (as_truncated_nifti, "promises 32352 bytes but holds 16176"),
        (as_corrupt_gzip, "cannot be read"),
        (as_corrupt_header, "cannot be read"),
        (as_surface, "holds a surface"),
        (as_four_dimensions, "one 3-D volume"),
        (as_two_dimensions, "one 3-D volume"),
        (as_empty_shape, "at least one voxel"),
        (as_constant, "constant"),
        (with_nan, "1 values that are not finite"),
        (with_infinity, "not finite"),
        (with_singular_affine, "singular affine"),
        (with_nan_affine, "affine"),
        (with_long_voxels, "voxels of 1 x 1 x 25 mm"),
        (as_complex, "complex64"),
        (as_colours, "real numbers"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_file_gives_one_sentence_that_names_it(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path)
    with input_error(message):
        load(path)
    with input_error(str(path)):
        load(str(path))


def test_volume_checks_its_shape_and_affine() -> None:
    with input_error("4 dimensions"):
        Volume(np.zeros((2, 2, 2, 2), np.float32), np.eye(4))
    with input_error("affine"):
        Volume(np.zeros((2, 2, 2), np.float32), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="expected"):
        Volume(np.zeros((2, 2, 2), np.float32), np.eye(4)).with_data(np.zeros((2, 2, 3)))


@pytest.mark.parametrize("name", ["scan.img", "scan", "scan.nii.bz2"])
def test_other_endings_are_refused(tmp_path: Path, phantom: Volume, name: str) -> None:
    with input_error("nii"):
        phantom.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_interrupted_save_leaves_nothing_half_written(tmp_path: Path, phantom: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    path = phantom.save(tmp_path / "scan.nii.gz")
    before = path.read_bytes()

    def break_off(image: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", break_off)
    for name in ("scan.nii.gz", "other.nii.gz"):
        with pytest.raises(KeyboardInterrupt):
            phantom.with_data(phantom.data + 1).save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["scan.nii.gz"]
    assert path.read_bytes() == before


def wave(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A smooth function of the place in the world, on a grid."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    return (2 + np.sin(x / 6) + np.cos(y / 7) * np.sin(z / 8 + 1)).astype(np.float32)


@pytest.mark.parametrize(("order", "tolerance"), [("continuous", 0.003), ("linear", 0.03), ("nearest", 0.3)])
def test_resample_gives_the_function_on_the_other_grid(order: str, tolerance: float) -> None:
    shape, affine = (30, 28, 20), ras_affine((1.0, 1.1, 1.5))
    volume = Volume(wave(affine, shape), affine)
    inner = affine @ np.array([[0.9, 0.1, 0, 6], [-0.1, 1.2, 0, 7], [0, 0, 0.7, 5], [0, 0, 0, 1]])
    out = resample_to(volume, (14, 12, 11), inner, order=order)
    assert out.shape == (14, 12, 11)
    np.testing.assert_array_equal(out.affine, inner)
    np.testing.assert_allclose(out.data, wave(inner, (14, 12, 11)), atol=tolerance)


def test_resample_to_its_own_grid_is_the_identity(phantom: Volume) -> None:
    np.testing.assert_array_equal(resample_to(phantom, phantom.shape, phantom.affine).data, phantom.data)


def test_resample_gives_zero_outside(phantom: Volume) -> None:
    larger = phantom.affine.copy()
    larger[0, 3] -= 10
    out = resample_to(phantom.with_data(phantom.data + 1), (60, 56, 12), larger, order="linear")
    np.testing.assert_array_equal(out.data[:10], 0)
    np.testing.assert_allclose(out.data[10:58], phantom.data + 1, atol=1e-5)
    np.testing.assert_array_equal(out.data[58:], 0)


@pytest.mark.parametrize("offset", [-1000.0, 1000.0])
def test_resample_refuses_images_that_do_not_overlap(phantom: Volume, offset: float) -> None:
    far = phantom.affine.copy()
    far[1, 3] += offset
    with input_error("do not overlap"):
        resample_to(phantom, (4, 4, 4), far)
