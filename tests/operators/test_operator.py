"""What an operator gets for nothing when it defines its forward model and its grids."""

import torch
from torch import Tensor

from dynamicdps.operators import Operator
from dynamicdps.volumes.grids import Grid
from tests.properties import assert_jacobian_products


class Squares(Operator):
    """Sums of squared neighbours along x: bent, and of another shape than the image."""

    noise_std = 0.01

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 1:].square() + x[..., :-1] ** 3

    def grid(self, image: Grid) -> Grid:
        return image


def test_automatic_linearisation(generator: torch.Generator) -> None:
    assert_jacobian_products(Squares(), torch.rand(2, 1, 5, 6, generator=generator, dtype=torch.float64), generator)


def test_moves_on_a_straight_line(generator: torch.Generator) -> None:
    x, direction = torch.rand(2, 1, 3, 4, generator=generator), torch.rand(2, 1, 3, 4, generator=generator)
    point, velocity = Squares().search_curve(x, direction)(torch.tensor([0.5, 2.0]).view(2, 1, 1, 1))
    torch.testing.assert_close(point, torch.stack([x[0] + 0.5 * direction[0], x[1] + 2 * direction[1]]))
    assert torch.equal(velocity, direction)


def test_slices_and_images_stand_alone() -> None:
    operator = Squares()
    assert not operator.couples_slices
    assert operator.select(torch.tensor([1])) is operator
