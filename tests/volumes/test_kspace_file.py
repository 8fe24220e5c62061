"""Raw k-space is read in the stated layout, and its transform is the image."""

from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from dynamicdps.operators import KSpace
from dynamicdps.volumes import RawScan, Volume, read_kspace
from tests.properties import input_error
from tests.volumes.head import rotation

SHAPE = (12, 15, 3)


def image() -> np.ndarray:
    """``(x, y, slices)``, without symmetry."""
    return np.random.default_rng(0).random(SHAPE) + 0.5


def transform(data: np.ndarray) -> np.ndarray:
    """Centred orthonormal transform over x and y by its definition."""
    out = data.astype(complex)
    for axis, n in enumerate(SHAPE[:2]):
        index = np.arange(n) - n // 2
        out = np.moveaxis(np.tensordot(np.exp(-2j * np.pi * np.outer(index, index) / n) / np.sqrt(n), out, (1, axis)), 0, axis)
    return out


def write(path: Path, **arrays: Any) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return path


@pytest.mark.parametrize("name", ["raw.npz", "raw.h5", "raw.hdf5"])
def test_image_comes_back(tmp_path: Path, name: str) -> None:
    raw = read_kspace(write(tmp_path / name, kspace=transform(image()), voxel_size_mm=[1.5, 1.25, 6.0]))
    assert raw.kspace.shape == (1, 3, 15, 12)
    assert raw.kspace.dtype == np.complex64
    np.testing.assert_allclose(raw.magnitude().data, image(), rtol=1e-5)
    real, imaginary = raw.parts()
    np.testing.assert_allclose(real.data, image(), rtol=1e-5)
    np.testing.assert_allclose(imaginary.data, 0, atol=1e-5)
    assert raw.magnitude().spacing == pytest.approx((1.5, 1.25, 6.0))
    np.testing.assert_allclose(raw.affine @ [6, 7, 1, 1], [0, 0, 0, 1])
    assert raw.acquisition.to_json() == {"slice_spacing_mm": 6.0, "slice_axis": 2}


def test_coils_are_joined_by_the_root_of_their_squares(tmp_path: Path) -> None:
    coils = np.array([3.0, 4.0j])[:, None, None, None] * transform(image())
    raw = read_kspace(write(tmp_path / "raw.npz", kspace=coils), voxel_size_mm=(1, 1, 5))
    assert raw.kspace.shape == (2, 3, 15, 12)
    np.testing.assert_allclose(raw.magnitude().data, 5 * image(), rtol=1e-5)
    np.testing.assert_allclose(raw.parts(1)[1].data, 4 * image(), rtol=1e-5)


def test_affine_turns_the_volume_and_leaves_kspace(tmp_path: Path) -> None:
    affine = rotation((5.0, 3.0, 4.0), (1.0, 2.0, 3.0)) @ np.diag([-1.5, 1.25, -6.0, 1.0])
    raw = read_kspace(write(tmp_path / "raw.npz", kspace=transform(image()), affine=affine))
    np.testing.assert_allclose(raw.magnitude().data, image()[::-1, :, ::-1], rtol=1e-5)
    np.testing.assert_allclose(raw.magnitude().affine @ [0, 0, 0, 1], affine @ [11, 0, 2, 1])
    np.testing.assert_allclose(raw.images[0], image().transpose(2, 1, 0), rtol=1e-4)
    moved = read_kspace(tmp_path / "raw.npz", affine=np.eye(4))
    np.testing.assert_array_equal(moved.affine, np.eye(4))


def test_it_is_the_measurement_of_the_operator(tmp_path: Path) -> None:
    raw = read_kspace(write(tmp_path / "raw.npz", kspace=transform(image())), voxel_size_mm=(1, 1, 5))
    x = torch.from_numpy(image().transpose(2, 1, 0).astype(np.float32))[None, None]
    y = KSpace(torch.ones(15, 12))(x)
    np.testing.assert_allclose(np.stack([raw.kspace.real[0], raw.kspace.imag[0]]), y[0].numpy(), atol=1e-4)


def test_name_of_the_array(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.npz", data=transform(image()), voxel_size_mm=[1, 1, 5])
    assert isinstance(read_kspace(path, array="data"), RawScan)
    with input_error("no array 'kspace'.*data, voxel_size_mm"):
        read_kspace(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"kspace": np.ones((4, 4), complex)}, "shape"),
        ({"kspace": np.ones((1, 1, 4, 4, 4), complex)}, "shape"),
        ({"kspace": np.ones((0, 4, 4), complex)}, "shape"),
        ({"kspace": np.ones((4, 4, 4))}, "complex"),
        ({"kspace": np.full((4, 4, 4), np.nan, complex)}, "not finite"),
        ({"kspace": np.zeros((4, 4, 4), complex)}, "constant"),
        ({"kspace": np.arange(64).reshape(4, 4, 4) * 1e20j}, "up to 6.3e"),
        ({"kspace": transform(image())}, "how large"),
        ({"kspace": transform(image()), "voxel_size_mm": [1, 1]}, "three numbers"),
        ({"kspace": transform(image()), "voxel_size_mm": [1, 1, -5]}, "voxel size"),
        ({"kspace": transform(image()), "affine": np.zeros((4, 4))}, "singular affine"),
        ({"kspace": transform(image()), "affine": np.eye(3)}, "affine"),
        ({"kspace": np.array([None, "code"], object)}, "cannot be read"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "raw.npz", **arrays)
    with input_error(message):
        read_kspace(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with input_error("does not exist"):
        read_kspace(tmp_path / "raw.npz")
    (tmp_path / "raw.mat").touch()
    with input_error("ending"):
        read_kspace(tmp_path / "raw.mat")
    for name in ("raw.h5", "raw.npz"):
        (tmp_path / name).write_text("no archive", encoding="utf-8")
        with input_error("cannot be read"):
            read_kspace(tmp_path / name)


def test_magnitude_is_a_volume_that_can_be_saved(tmp_path: Path) -> None:
    raw = read_kspace(write(tmp_path / "raw.npz", kspace=transform(image())), voxel_size_mm=(1, 1, 5))
    assert isinstance(raw.magnitude(), Volume)
    assert raw.magnitude().save(tmp_path / "scan.nii.gz").exists()


@pytest.mark.parametrize("orientation", ["RAS", "ALS", "PSR", "LPI"])
def test_axes_grow_as_the_orientation_says(tmp_path: Path, orientation: str) -> None:
    raw = read_kspace(write(tmp_path / "raw.npz", kspace=transform(image())), voxel_size_mm=(1.5, 1.25, 6), orientation=orientation)
    assert "".join(nib.aff2axcodes(raw.affine)) == orientation
    np.testing.assert_allclose(raw.affine @ [6, 7, 1, 1], [0, 0, 0, 1])
    np.testing.assert_allclose(np.linalg.norm(raw.affine[:3, :3], axis=0), [1.5, 1.25, 6])


@pytest.mark.parametrize("orientation", ["RAL", "RA", "XYZ", "ras", "RASI"])
def test_other_orientations_are_refused(tmp_path: Path, orientation: str) -> None:
    path = write(tmp_path / "raw.npz", kspace=transform(image()))
    with input_error("orientation"):
        read_kspace(path, voxel_size_mm=(1, 1, 5), orientation=orientation)


def test_square_voxels_show_the_same_image(tmp_path: Path) -> None:
    """Zeros around the samples interpolate: what lies in the old voxels' middles is what was there."""
    raw = read_kspace(write(tmp_path / "raw.npz", kspace=transform(image()), voxel_size_mm=[4.0, 2.0, 5.0]))
    square = raw.with_square_voxels()
    assert square.kspace.shape == (1, 3, 15, 24)
    assert square.sampled.sum() == raw.sampled.sum() == 3 * 15 * 12
    np.testing.assert_allclose(np.linalg.norm(square.affine[:3, :3], axis=0), [2, 2, 5])
    np.testing.assert_allclose(square.images[..., ::2] * np.sqrt(2), raw.images, atol=1e-5)
    for x in (0, 5, 11):
        np.testing.assert_allclose(square.affine @ [2 * x, 3, 1, 1], raw.affine @ [x, 3, 1, 1])
    assert square.with_square_voxels() is square
