"""Linear interpolation from the scanner's grid to the image grid."""

import math

import pytest
import torch

from dynamicdps.operators import AffineResample, to_image_grid
from dynamicdps.operators.sampling import interpolate, measured_size


@pytest.mark.parametrize("factors", [(1.0, 1.5, 3.0), (2.0, 2.7, 5.0), (4.0, 4.0, 1.0)], ids=str)
@pytest.mark.parametrize("shape", [(24, 31, 21), (33, 20, 16)], ids=str)
def test_ramp_is_reproduced_inside(factors: tuple[float, float, float], shape: tuple[int, int, int]) -> None:
    """Both grids share their centre; beyond the outermost scanner voxels the edge values hold."""
    measured = tuple(measured_size(size, factor) for size, factor in zip(shape, factors, strict=True))

    def ramp(counts: tuple[int, ...], spacing: tuple[float, ...]) -> torch.Tensor:
        axes = [(torch.arange(n) - (n - 1) / 2) * length for n, length in zip(counts, spacing, strict=True)]
        reach = [(m - 1) / 2 * f for m, f in zip(measured, factors, strict=True)]
        x, y, z = torch.meshgrid(*[a.clamp(-r, r) for a, r in zip(axes, reach, strict=True)], indexing="ij")
        return (0.01 * x + 0.02 * y + 0.03 * z).permute(2, 1, 0)[None, None]

    expected = ramp(shape, (1.0, 1.0, 1.0))
    torch.testing.assert_close(interpolate(ramp(measured, factors), factors, expected.shape), expected, atol=1e-5, rtol=0)


def test_slices_and_one_slice_volumes_agree(generator: torch.Generator) -> None:
    y = torch.rand(2, 1, 8, 9, generator=generator)
    flat = interpolate(y, (3.0, 3.0, 1.0), (2, 1, 22, 25))
    deep = interpolate(y[:, :, None], (3.0, 3.0, 1.0), (2, 1, 1, 22, 25))
    torch.testing.assert_close(flat, deep[:, :, 0])


def test_same_grid_is_the_identity(generator: torch.Generator) -> None:
    y = torch.rand(2, 1, 8, 9, generator=generator)
    assert torch.equal(interpolate(y, (1.0, 1.0, 1.0), y.shape), y)


def test_values_stay_within_the_measurement(generator: torch.Generator) -> None:
    y = torch.rand(1, 1, 5, 5, generator=generator)
    out = interpolate(y, (4.0, 4.0, 1.0), (1, 1, 20, 20))
    assert out.min() >= y.min() - 1e-6
    assert out.max() <= y.max() + 1e-6


def test_one_voxel_fills_the_image() -> None:
    assert torch.equal(interpolate(torch.full((1, 1, 1, 1), 0.7), (8.0, 8.0, 1.0), (1, 1, 6, 5)), torch.full((1, 1, 6, 5), 0.7))


@pytest.mark.parametrize("flat", [False, True])
def test_a_turned_and_shifted_measurement_lies_where_it_was_measured(flat: bool) -> None:
    """A smooth image seen by a turned, shifted grid comes back to its place; without the pose it would lie elsewhere."""
    depth = 1 if flat else 18
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (depth, 40, 36)), indexing="ij")
    image = torch.exp(-(((x - 15) / 5) ** 2 + ((y - 23) / 4) ** 2 + ((z - depth / 2) / 6) ** 2))[None, None]
    cos, sin = math.cos(0.3), math.sin(0.3)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = 1.2 * torch.tensor([[cos, -sin], [sin, cos]])
    matrix[:3, 3] = torch.tensor([3.0, -6.0, 0.0 if flat else 1.5])
    scanner = AffineResample(matrix, (30, 34, depth))
    image = image[:, :, 0] if flat else image
    back = to_image_grid(scanner(image), scanner, image.shape)
    seen = to_image_grid(torch.ones_like(scanner(image)), scanner, image.shape)
    assert set(seen.round(decimals=9).unique().tolist()) == {0.0, 1.0}
    assert float(seen.mean()) > 0.4
    bright = (image > 0.3) & (seen > 0)
    assert (back - image)[bright].abs().max() < 0.06
    misplaced = interpolate(scanner(image), (1.2, 1.2, 1.0), image.shape)
    assert (misplaced - image)[bright].abs().max() > 0.3


def test_a_shifted_grid_of_larger_voxels_is_in_its_place() -> None:
    """A scan that sees a part of the image: its voxels and no others, edges held to their borders."""
    image = torch.rand(1, 1, 8, 20, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor([5.0, 2.0, 3.0])
    scanner = AffineResample(matrix, (10, 12, 4))
    back = to_image_grid(scanner(image), scanner, image.shape)
    expected = torch.zeros_like(image)
    expected[..., 3:7, 2:14, 5:15] = image[..., 3:7, 2:14, 5:15]
    torch.testing.assert_close(back, expected)
