import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import LowField
from dynamicdps.solvers import composite_loss
from dynamicdps.solvers.composite_loss import EDGE_WEIGHT, PATCH, STRUCTURE_WEIGHT, sobel
from tests.properties import assert_batch_independent

NOISE = 0.01
HALF = LowField(in_plane_factor=2.0)
THICK = LowField(gamma=0.7, in_plane_factor=2.0, slice_thickness=3.0)
# A single small patch, several patches with a rest, and volumes slice by slice.
CASES = {
    "small": (HALF, (2, 1, 12, 10)),
    "patches": (HALF, (2, 1, 72, 130)),
    "thick": (THICK, (2, 1, 7, 12, 10)),
    "volume": (HALF, (1, 1, 3, 66, 64)),
}
cases = pytest.mark.parametrize(("operator", "shape"), CASES.values(), ids=CASES)


def images(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return 0.1 + 0.8 * torch.rand(tuple(shape), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("operator", "shape"), [(HALF, (2, 1, 8, 6)), (THICK, (2, 1, 4, 6, 6))], ids=["slice", "volume"])
def test_gradient_is_that_of_finite_differences(operator: LowField, shape: tuple[int, ...], generator: torch.Generator) -> None:
    x, y = images(shape, generator), operator(images(shape, generator))
    gradient, h = composite_loss(DataTerm(y, operator, NOISE), x)[1], 1e-6
    for pixel in range(math.prod(shape[1:])):
        nudge = torch.zeros(shape, dtype=torch.float64)
        nudge.view(shape[0], -1)[:, pixel] = h
        slope = (
            composite_loss(DataTerm(y, operator, NOISE), x + nudge)[0] - composite_loss(DataTerm(y, operator, NOISE), x - nudge)[0]
        ) / (2 * h)
        torch.testing.assert_close(gradient.view(shape[0], -1)[:, pixel], slope, rtol=1e-5, atol=1e-7)


@cases
def test_slope_along_a_random_direction(operator: LowField, shape: tuple[int, ...], generator: torch.Generator) -> None:
    x, y = images(shape, generator), operator(images(shape, generator))
    gradient, h = composite_loss(DataTerm(y, operator, NOISE), x)[1], 1e-6
    d = torch.randn(shape, generator=generator, dtype=torch.float64)
    slope = (composite_loss(DataTerm(y, operator, NOISE), x + h * d)[0] - composite_loss(DataTerm(y, operator, NOISE), x - h * d)[0]) / (
        2 * h
    )
    torch.testing.assert_close((gradient * d).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-6)


@cases
def test_no_loss_where_the_data_are_explained(operator: LowField, shape: tuple[int, ...], generator: torch.Generator) -> None:
    x = images(shape, generator)
    value, gradient = composite_loss(DataTerm(operator(x), operator, NOISE), x)
    assert value.shape == shape[:1]
    assert value.dtype == torch.float64
    assert (value < 1e-5).all()
    assert gradient.isfinite().all()
    assert (gradient.abs() < 1e-3).all()
    assert (composite_loss(DataTerm(operator(x), operator, NOISE), 0.9 * x)[0] > 100 * value).all()


@cases
def test_images_do_not_influence_each_other(operator: LowField, shape: tuple[int, ...], generator: torch.Generator) -> None:
    pair = torch.stack([images((3, *shape[1:]), generator), images((3, *shape[1:]), generator)], dim=1)

    def part(which: int, pairs: Tensor) -> Tensor:
        return composite_loss(DataTerm(operator(pairs[:, 0]), operator, NOISE), pairs[:, 1])[which]

    assert_batch_independent(lambda pairs: part(0, pairs), pair)
    assert_batch_independent(lambda pairs: part(1, pairs), pair)


def test_loss_is_the_sum_of_its_parts() -> None:
    """One patch of a constant residual: no edges, the norm by hand, the similarity by its definition."""
    x = torch.full((1, 1, 4, 4), 0.3, dtype=torch.float64)
    y = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    c1 = 4 * 0.01**2
    similarity = (2 * 0.6 * 1.0 + c1) / (0.6**2 + 1.0**2 + c1)
    expected = 4 * 0.4 + EDGE_WEIGHT * 0 + STRUCTURE_WEIGHT * (1 - similarity)
    torch.testing.assert_close(
        composite_loss(DataTerm(y, LowField(), NOISE), x)[0], torch.tensor([expected], dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_slices_of_a_volume_count_together(generator: torch.Generator) -> None:
    """Squares of each part add over slices, so a volume of equal slices has the loss of one times the root of their number."""
    x, y = images((2, 1, 16, 12), generator), images((2, 1, 8, 6), generator)
    single = composite_loss(DataTerm(y, HALF, NOISE), x)[0]
    volume = composite_loss(DataTerm(y[:, :, None].expand(-1, -1, 5, -1, -1), HALF, NOISE), x[:, :, None].expand(-1, -1, 5, -1, -1))[0]
    torch.testing.assert_close(volume, single * 5**0.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, PATCH + 3), (PATCH, PATCH), (2 * PATCH - 1, 3)], ids=str)
def test_measurements_of_any_size(size: tuple[int, int], generator: torch.Generator) -> None:
    x, y = images((2, 1, *size), generator), images((2, 1, *size), generator)
    value, gradient = composite_loss(DataTerm(y, LowField(), NOISE), x)
    assert (value > 0).all()
    assert gradient.shape == x.shape
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 1, 6, 9), (2, 1, 3, 6, 9)], ids=str)
def test_sobel_of_a_ramp_is_constant_inside(shape: tuple[int, ...]) -> None:
    rows, columns = torch.arange(6.0)[:, None], torch.arange(9.0)[None]
    edges = sobel((0.5 * rows - 2 * columns + 1).expand(shape))
    slices = shape[2] if len(shape) == 5 else 1
    assert edges.shape == (2, 2 * slices, 6, 9)
    inside = edges[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside[:, 0::2], torch.full_like(inside[:, 0::2], 8 * -2.0))
    torch.testing.assert_close(inside[:, 1::2], torch.full_like(inside[:, 1::2], 8 * 0.5))


def test_sobel_of_a_constant_is_nothing() -> None:
    torch.testing.assert_close(sobel(torch.full((1, 1, 4, 5), 0.7)), torch.zeros(1, 2, 4, 5), atol=1e-6, rtol=0)
