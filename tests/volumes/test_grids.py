"""What lies at a place in the world stays there, whatever the orientation of the file and the grid."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from dynamicdps.volumes import Grid, Volume, like, load, native_grid, prior_grid, sample, target_grid
from dynamicdps.volumes.grids import grid_over
from tests.properties import input_error
from tests.volumes.head import rotation

ORIENTATIONS = ["".join(codes) for axes in permutations(("LR", "AP", "SI")) for codes in product(*axes)]
PLACE = np.array([6.3, -11.2, 17.9])


def spot_file(path: Path, codes: str, degrees: float, shape: tuple[int, int, int] = (21, 26, 15)) -> Path:
    """A round spot of 4 mm at `PLACE` on an oblique grid whose axes have those codes."""
    affine = rotation((degrees, -0.7 * degrees, 0.5 * degrees)) @ np.diag([2.0, 1.7, 3.1, 1.0])
    middle = PLACE + np.array([1.1, -0.4, 0.8])
    affine[:3, 3] = middle - affine[:3, :3] @ (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    distance = np.linalg.norm(apply_affine(affine, index) - PLACE, axis=-1)
    data = np.exp(-0.5 * (distance / 4) ** 2).astype(np.float32)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    nib.save(nib.Nifti1Image(apply_orientation(data, turn), affine @ inv_ornt_aff(turn, shape)), path)
    return path


def centre(volume: Volume) -> np.ndarray:
    """Centre of mass in the world."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij"), -1)
    mass = volume.data.astype(np.float64)
    return apply_affine(volume.affine, (index * mass[..., None]).sum((0, 1, 2)) / mass.sum())


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("degrees", [0.0, 17.0])
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_round_trip_keeps_the_place(tmp_path: Path, codes: str, degrees: float) -> None:
    scan = load(spot_file(tmp_path / "scan.nii", codes, degrees))
    np.testing.assert_allclose(centre(scan), PLACE, atol=0.02)
    on_prior = sample(scan, target_grid("prior", scan))
    assert aff2axcodes(on_prior.affine) == ("R", "A", "S")
    np.testing.assert_allclose(centre(on_prior), PLACE, atol=0.1)

    saved = load(on_prior.save(tmp_path / "prior.nii"))
    back = sample(saved, target_grid("native", scan))
    again = load(back.save(tmp_path / "native.nii"))
    np.testing.assert_allclose(centre(again), PLACE, atol=0.1 * min(scan.spacing))
    source, written = nib.load(tmp_path / "scan.nii"), nib.load(tmp_path / "native.nii")
    assert aff2axcodes(written.affine) == tuple(codes)
    assert written.shape == source.shape
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-4)

    reference = spot_file(tmp_path / "reference.nii", codes[1:] + codes[:1], -degrees, (24, 19, 17))
    as_reference = load(sample(scan, target_grid(reference, scan)).save(tmp_path / "like.nii"))
    np.testing.assert_allclose(centre(as_reference), PLACE, atol=0.1 * min(scan.spacing))
    assert aff2axcodes(nib.load(tmp_path / "like.nii").affine) == aff2axcodes(nib.load(reference).affine)


@pytest.mark.parametrize("spacing", [1.0, 0.7])
def test_prior_grid_covers_the_scan_and_no_more(spacing: float) -> None:
    volume = Volume(np.zeros((5, 6, 7), np.float32), rotation((20.0, 10.0, -15.0), (3.0, 4.0, 5.0)) @ np.diag([2.0, 3.0, 6.0, 1.0]))
    grid = prior_grid(volume, spacing)
    faces = apply_affine(volume.affine, np.array(list(product((-0.5, 4.5), (-0.5, 5.5), (-0.5, 6.5)))))
    low = grid.affine[:3, 3] - spacing / 2
    high = low + spacing * np.array(grid.shape)
    assert (low <= faces.min(0) + 1e-3 * spacing).all()
    assert (high >= faces.max(0) - 1e-3 * spacing).all()
    assert (high - low < np.ptp(faces, axis=0) + spacing).all()
    np.testing.assert_array_equal(grid.affine[:3, :3], spacing * np.eye(3))


def test_prior_grid_of_a_cubic_scan_is_its_own() -> None:
    affine = np.eye(4)
    affine[:3, 3] = [-7.5, 3.0, 0.25]
    grid = prior_grid(Volume(np.zeros((9, 4, 6), np.float32), affine))
    assert grid.shape == (9, 4, 6)
    np.testing.assert_allclose(grid.affine, affine)


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_a_grid_over_points_starts_at_whole_mm(spacing: float) -> None:
    points = 40 * np.random.default_rng(0).standard_normal((7, 3))
    grid = grid_over(list(points), spacing)
    first = grid.affine[:3, 3]
    last = first + spacing * (np.array(grid.shape) - 1)
    np.testing.assert_array_equal(first, np.floor(points.min(0)))
    assert (last >= points.max(0)).all()
    assert (last - spacing < points.max(0)).all()
    # What lies on a voxel needs no other.
    assert grid_over([first, last], spacing).same_as(Volume(np.zeros(grid.shape, np.float32), grid.affine))
    with input_error("voxels"):
        grid_over([np.zeros(3), np.full(3, 600.0)])


def test_linear_values_and_the_faces_of_thick_slices() -> None:
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    volume = Volume(np.broadcast_to(np.array([1.0, 3.0], np.float32), (2, 2, 2)).copy(), affine)
    fine = np.eye(4)
    fine[2, 3] = -3.0
    values = sample(volume, Grid((2, 2, 11), fine)).data[0, 0]
    # Slices at 0 and 4 mm, faces at -2 and 6 mm.
    np.testing.assert_allclose(values, [0, 1, 1, 1, 1.5, 2, 2.5, 3, 3, 3, 0])


def test_same_grid_gives_the_same_numbers() -> None:
    volume = Volume(np.random.default_rng(0).random((4, 5, 6), dtype=np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    shifted = volume.affine.copy()
    shifted[:3, 3] += 2e-4
    for order in (0, 1, 3):
        np.testing.assert_array_equal(sample(volume, native_grid(volume), order).data, volume.data)
        np.testing.assert_allclose(sample(volume, Grid(volume.shape, shifted), order).data, volume.data, atol=1e-3)


def test_bad_grids(tmp_path: Path) -> None:
    volume = Volume(np.zeros((4, 5, 6), np.float32), np.eye(4))
    with input_error("voxel size"):
        prior_grid(volume, 0.0)
    with input_error("at most 512 cubed"):
        prior_grid(Volume(volume.data, np.diag([300.0, 300.0, 300.0, 1.0])), 1.0)
    with input_error("no grid"):
        target_grid("2mm", volume)
    with input_error("is a folder"):
        target_grid(tmp_path, volume)
    assert like(volume).shape == volume.shape


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shift", [(2, 0, -3), (0, 0, 0), (1, 1, 1), (40, 0, 0)])
def test_a_grid_of_the_same_voxels_copies_them_as_interpolation_would(order: int, shift: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = 1.2 * rotation((10, -5, 20))[:3, :3], (5, -7, 11)
    volume = Volume(rng.normal(size=(12, 10, 9)).astype(np.float32), affine)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ shift
    near = moved.copy()
    # So little beside the voxels that interpolation finds their values, and enough that it is asked.
    near[:3, 3] += affine[:3, :3] @ np.full(3, 3e-4)
    copied, interpolated = (sample(volume, Grid((12, 10, 9), a), order) for a in (moved, near))
    np.testing.assert_allclose(copied.data, interpolated.data, atol=0.01)
    index = tuple(slice(max(0, s), min(n, n + s)) for n, s in zip(volume.shape, shift, strict=True))
    there = sample(sample(volume, Grid((12, 10, 9), moved), order), native_grid(volume), order).data
    np.testing.assert_array_equal(there[index], volume.data[index])
