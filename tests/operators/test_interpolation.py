"""Linear interpolation from the scanner's grid to the image grid."""

import pytest
import torch

from dynamicdps.operators import interpolate
from dynamicdps.operators.sampling import measured_size


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
