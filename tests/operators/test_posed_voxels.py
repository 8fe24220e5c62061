"""Scans that lie askew in the image."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dynamicdps.operators import AffineResample, BiasField, Composition, LinearOperator, LowField, Operator, Scanner, SwapSliceAxis
from dynamicdps.operators.posed_voxels import MOST_DEGREES, posed
from dynamicdps.operators.sampling import along, along_band
from dynamicdps.volumes.grids import Grid

IMAGE, OWN = (26, 30, 28), (22, 24, 20)
NOISE = 0.02
SCANNER = LowField(gamma=0.7, in_plane_factor=1.5, blur=0.6, slice_thickness=4.0)


def own_affine(degrees: float, shift: float = 0.3, voxel: float = 1.0) -> np.ndarray:
    """Place of a scan's own image grid in the middle of an image of 1 mm."""
    turn, centre, place = np.eye(4), np.eye(4), np.eye(4)
    turn[:3, :3] = voxel * Rotation.from_euler("xyz", [degrees, -degrees / 2, degrees / 3], degrees=True).as_matrix()
    centre[:3, 3] = -(np.array(OWN) - 1) / 2
    place[:3, 3] = (np.array(IMAGE) - 1) / 2 + shift
    return place @ turn @ centre


def lying(operator: Operator, affine: np.ndarray, motion: np.ndarray | None = None) -> tuple[Operator, LinearOperator]:
    """The operator for an image of 1 mm, and its linear part."""
    found = posed(operator, OWN, affine, np.eye(4), motion)
    assert found is not None
    assert found.linear is not None
    return found, found.linear


def smooth_images() -> Tensor:
    x = torch.rand(2, 1, *IMAGE[::-1], generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool3d(x, 5, 1, 2) + 0.2


@pytest.mark.parametrize("across", [0, 1, 2])
@pytest.mark.parametrize("degrees", [0.0, 6.0])
def test_they_measure_what_a_resampled_image_would_show(across: int, degrees: float) -> None:
    operator: Operator = SCANNER if across == 2 else SwapSliceAxis(SCANNER, across)
    affine, x = own_affine(degrees), smooth_images()
    near, _ = lying(operator, affine)
    linear = Composition((operator.linear or operator, AffineResample(torch.from_numpy(affine), OWN))).linear
    assert linear is not None
    exact = Scanner(linear, operator.contrast)(x)
    found = near(x)
    assert found.shape == exact.shape
    inner = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    assert float((found - exact)[inner].abs().max()) < 0.15 * float(exact[inner].max() - exact[inner].min())
    assert near.grid(Grid(IMAGE, np.eye(4))).shape == operator.grid(Grid(OWN, np.eye(4))).shape


def slices_moved(operator: Operator, across: int) -> np.ndarray:
    """A movement of each slice, ``(slices, 4, 4)``."""
    count = operator.grid(Grid(OWN, np.eye(4))).shape[across]
    motion = np.tile(np.eye(4), (count, 1, 1))
    motion[:, :3, :3] = Rotation.from_rotvec(np.random.default_rng(0).normal(0, 2, (count, 3)), degrees=True).as_matrix()
    motion[:, :3, 3] = np.random.default_rng(1).normal(0, 1, (count, 3))
    return motion


@pytest.mark.parametrize("across", [0, 1, 2])
def test_each_slice_is_measured_where_it_lies(across: int) -> None:
    """A slice shows what the whole scan would show there if all of it had moved so."""
    operator: Operator = SCANNER if across == 2 else SwapSliceAxis(SCANNER, across)
    motion, x = slices_moved(operator, across), smooth_images()
    moved, _ = lying(operator, own_affine(3.0), motion)
    found = moved(x)
    for number, own in enumerate(motion):
        alone, _ = lying(operator, own @ own_affine(3.0))
        torch.testing.assert_close(found.select(-1 - across, number), alone(x).select(-1 - across, number), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("across", [0, 2])
def test_the_adjoint_is_the_transpose(across: int, moves: bool) -> None:
    operator: Operator = SCANNER if across == 2 else SwapSliceAxis(SCANNER, across)
    _, linear = lying(operator, own_affine(5.0), slices_moved(operator, across) if moves else None)
    x = torch.randn(2, 1, *IMAGE[::-1], dtype=torch.float64)
    y = linear(x)
    w = torch.randn_like(y)
    torch.testing.assert_close((y * w).sum(), (x * linear.adjoint(w, x.shape)).sum())


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_a_band_matrix_is_applied_block_by_block(axis: int) -> None:
    u = torch.randn(2, 1, 70, 60, 50, dtype=torch.float64)
    size = u.shape[axis]
    matrix = torch.randn(size, size, dtype=torch.float64).triu(-4).tril(7)
    matrix[30:60] = 0
    torch.testing.assert_close(along_band(u, matrix, axis), along(u, matrix, axis))


def test_a_constant_stays_where_the_image_is() -> None:
    _, linear = lying(SCANNER, own_affine(4.0))
    ones = linear(torch.ones(1, 1, *IMAGE[::-1]))
    torch.testing.assert_close(ones[..., 1:-1, 1:-1, 1:-1], torch.ones_like(ones)[..., 1:-1, 1:-1, 1:-1])


def test_lengths_are_those_of_the_scan_in_an_image_of_other_voxels() -> None:
    """The same scan in an image of half the voxels' edge is blurred over twice as many of them."""
    coarse = own_affine(1.0, 0.25)
    fine = np.diag([2.0, 2.0, 2.0, 1.0]) @ coarse
    (_, one), (_, two) = lying(SCANNER, coarse), lying(SCANNER, fine)
    x = torch.zeros(1, 1, *IMAGE[::-1])
    x[..., 14, 15, 13] = 1.0
    large = torch.zeros(1, 1, *(2 * n for n in IMAGE[::-1]))
    large[..., 28, 30, 26] = 1.0
    first, second = (o.adjoint(o(v), v.shape)[0, 0] for o, v in ((one, x), (two, large)))

    def width(v: Tensor) -> Tensor:
        """Of the response along the slices' normal."""
        line, at = v.clamp_min(0).sum((1, 2)), torch.arange(len(v), dtype=v.dtype)
        middle = (line * at).sum() / line.sum()
        return ((line * (at - middle).square()).sum() / line.sum()).sqrt()

    torch.testing.assert_close(width(second), 2 * width(first), rtol=0.15, atol=0.0)


def test_shading_stays_on_the_scan() -> None:
    factor = BiasField(torch.zeros(2, 2, 2).index_put((torch.tensor(0), torch.tensor(0), torch.tensor(1)), torch.tensor(0.3)))
    (shaded, linear), (plain, _) = lying(Composition((factor, SCANNER)), own_affine(3.0)), lying(SCANNER, own_affine(3.0))
    x = smooth_images()
    torch.testing.assert_close(shaded(x), factor(plain(x)))
    assert linear.data_spectrum(x.shape, plain(x)) is not None


def test_what_it_does_not_describe_is_left_to_the_exact_way() -> None:
    assert posed(SCANNER, OWN, own_affine(MOST_DEGREES + 5), np.eye(4)) is None
    assert posed(AffineResample(torch.eye(4), OWN), OWN, own_affine(3.0), np.eye(4)) is None
    assert posed(SCANNER, OWN, np.eye(4), np.eye(4)) is None
