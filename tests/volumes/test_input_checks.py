"""Scans as they come: what is chosen, what is mended and said, and what is refused by its name."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from dynamicdps.volumes import Volume, load, read_scan
from dynamicdps.volumes.input_checks import interpolation_warnings
from tests.conftest import make_phantom
from tests.properties import input_error

AFFINE = np.diag([1.6, 1.6, 5.0, 1.0])


def head(shape: tuple[int, ...] = (20, 24, 18), seed: int = 0) -> np.ndarray:
    """A bright ball in noise, as float32."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:3]), indexing="ij")
    ball = (x**2 + y**2 + z**2 < 0.8).astype(np.float32)
    return np.asarray(ball + 0.1 * np.random.default_rng(seed).random(ball.shape), np.float32)


def write(path: Path, data: np.ndarray, affine: Any = AFFINE, **codes: Any) -> Path:
    image = nib.Nifti1Image(data, affine)
    for name, (matrix, code) in codes.items():
        getattr(image.header, f"set_{name}")(matrix, code)
        getattr(image, f"set_{name}")(matrix, code)
    nib.save(image, path)
    return path


def test_an_ordinary_scan_is_read_as_it_is_without_a_word(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.nii.gz", head(), sform=(AFFINE, 1), qform=(AFFINE, 1))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.volume.data, load(path).data)
    assert scan.volume.path == path
    assert scan.acquisition.warnings == ()


def test_one_of_several_volumes(tmp_path: Path) -> None:
    several = np.stack([head(seed=seed) for seed in range(6)], axis=-1)
    for data in (several, several.reshape((*several.shape[:3], 1, 6)), several.reshape((*several.shape[:3], 2, 3), order="F")):
        path = write(tmp_path / "series.nii", data)
        for number in (1, 4, 6):
            volume = read_scan(path, volume=number).volume
            np.testing.assert_array_equal(volume.data, several[..., number - 1])
            np.testing.assert_allclose(volume.affine, AFFINE)
            # The file holds more than this volume.
            assert volume.path is None
        with input_error(r"holds 6 volumes \(20 x 24 x 18 x .*choose with --volume N, from 1 to 6"):
            read_scan(path)
        for number in (0, 7):
            with input_error(f"no volume {number} in .*expected 1 to 6"):
                read_scan(path, volume=number)


def test_a_single_volume_of_four_axes_needs_no_number(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.nii", head()[..., None])
    np.testing.assert_array_equal(read_scan(path, volume=1).volume.data, read_scan(path).volume.data)
    with input_error("no volume 2"):
        read_scan(path, volume=2)
    with input_error("is a folder; expected a file of several"):
        read_scan(tmp_path, volume=1)


def test_colours_are_named(tmp_path: Path) -> None:
    colours = np.zeros((6, 6, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    path = write(tmp_path / "picture.nii", colours)
    with input_error(r"is a colour picture \(R, G, B\), not a scan"):
        read_scan(path)


def test_no_numbers_around_the_head_are_zero_and_said(tmp_path: Path) -> None:
    data = head()
    around = data < 0.5
    masked = write(tmp_path / "nan.nii.gz", np.where(around, np.float32(np.nan), data))
    scan = read_scan(masked)
    np.testing.assert_array_equal(scan.volume.data, np.where(around, 0, data))
    (warning,) = scan.acquisition.warnings
    assert f"{around.mean():.0%} of the voxels" in warning
    assert "taken as 0" in warning


def test_no_numbers_inside_the_head_are_refused(tmp_path: Path) -> None:
    data = head()
    data[10, 12, 9] = np.nan
    with input_error("1 values that are not finite"):
        read_scan(write(tmp_path / "hole.nii", data))
    data = head()
    data[0, 0, 0] = np.inf
    with input_error("1 values that are not finite"):
        read_scan(write(tmp_path / "infinite.nii", data))


def test_ct_is_named(tmp_path: Path) -> None:
    ct = np.where(head() > 0.5, 40, -1000).astype(np.int16)
    with input_error("looks like CT: .* of it lie near -1000"):
        read_scan(write(tmp_path / "ct.nii.gz", ct))
    # Interpolation and filters leave some voxels of MR below 0.
    read_scan(write(tmp_path / "mr.nii.gz", (head() * 900 - 60).astype(np.int16)))


def test_two_positions_that_disagree_are_named_with_the_one_that_is_taken(tmp_path: Path) -> None:
    moved, mirrored = AFFINE.copy(), AFFINE @ np.diag([-1, 1, 1, 1])
    moved[0, 3] = 12.0
    scan = read_scan(write(tmp_path / "moved.nii", head(), sform=(AFFINE, 1), qform=(moved, 1)))
    np.testing.assert_allclose(scan.volume.affine, AFFINE)
    (warning,) = scan.acquisition.warnings
    assert "differ by up to 12 mm; the sform was taken" in warning
    (warning,) = read_scan(write(tmp_path / "mirrored.nii", head(), sform=(AFFINE, 1), qform=(mirrored, 1))).acquisition.warnings
    assert "(RAS and LAS)" in warning


@pytest.mark.parametrize("name", ["scan.nii", "scan.img"])
def test_where_nobody_says_which_side_is_left_it_is_said(name: str, tmp_path: Path) -> None:
    if name.endswith(".img"):
        nib.save(nib.AnalyzeImage((100 * head()).astype(np.int16), None), tmp_path / name)
    else:
        write(tmp_path / name, head(), None, sform=(None, 0), qform=(None, 0))
    (warning,) = read_scan(tmp_path / name).acquisition.warnings
    assert "which side is left" in warning


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("axis", "words"), [(0, "from left to right"), (1, "from back to front"), (2, "from feet to head")])
def test_a_scan_interpolated_from_thick_slices_is_noticed(axis: int, words: str, order: int) -> None:
    fine = make_phantom((60, 60, 60))
    noisy = fine.data + 0.03 * np.random.default_rng(1).standard_normal(fine.shape).astype(np.float32)
    assert interpolation_warnings(fine.with_data(noisy)) == []
    factors = [1.0, 1.0, 1.0]
    factors[axis] = 5.0
    thick = noisy.take(range(2, 60, 5), axis)
    (warning,) = interpolation_warnings(fine.with_data(ndimage.zoom(thick, factors, order=order, mode="nearest", grid_mode=True)))
    assert warning.startswith(words)


def test_thick_slices_as_measured_and_few_slices_are_no_interpolation() -> None:
    scan = make_phantom((48, 56, 20), (1.0, 1.0, 5.0))
    smooth = ndimage.gaussian_filter1d(scan.data, 3, axis=2)
    assert interpolation_warnings(scan.with_data(smooth)) == []
    few = Volume(smooth[..., :10], np.eye(4))
    assert interpolation_warnings(few) == []
