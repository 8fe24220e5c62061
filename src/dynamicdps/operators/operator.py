"""What every forward operator offers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.linear import IterativeModel, LinearModel


@dataclass(frozen=True)
class Linearisation:
    """An operator near one image: ``A(x + p) = value + jvp(p)`` to first order.

    Attributes:
        value: ``A(x)``, measurement shape.
        jvp: Jacobian times a vector of image shape.
        vjp: its transpose times a vector of measurement shape.
    """

    value: Tensor
    jvp: Callable[[Tensor], Tensor]
    vjp: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LinearProblem:
    """An inverse problem as linear solvers see it.

    Attributes:
        model: H with its noise.
        measurement: y, such that ``y = H x + n``.
        warnings: what was changed to make it linear, one sentence each.
    """

    model: LinearModel
    measurement: Tensor
    warnings: list[str]


class Operator(ABC):
    """Forward model ``y = A(x) + noise`` of a scanner, on a batch.

    Images have shape ``(batch, 1, height, width)`` (single slices) or ``(batch, 1, depth, height, width)`` (volumes), range [0, 1].
    What `forward` does to one image never depends on the others of the batch.

    Attributes:
        noise_std: standard deviation of the measurement's noise as a share of the intensity range, greater than 0.
    """

    noise_std: float

    @property
    def is_linear(self) -> bool:
        """Whether ``A(a x + b z) = a A(x) + b A(z)``."""
        return False

    def linear_problem(self, y: Tensor, shape: Sequence[int]) -> LinearProblem:
        """What solvers that need a linear operator work on.

        Args:
            y: measurements.
            shape: of the images.

        Raises:
            InputError: the operator is not linear and does not know how to become so.
        """
        if not self.is_linear:
            raise InputError(
                f"{type(self).__name__} is not linear; expected a linear operator for this solver; choose dynamicdps, dps or red-diff"
            )
        near = self.linearise(torch.zeros(tuple(shape), dtype=y.dtype, device=y.device))
        noise = torch.full((1,), self.noise_std, dtype=y.dtype, device=y.device)
        return LinearProblem(IterativeModel(noise, self.forward, near.vjp), y, [])

    @property
    def couples_slices(self) -> bool:
        """Whether a measured slice depends on several image slices, so that only whole volumes make sense."""
        return False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``A(x)`` without noise; differentiable."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        """``A(x)`` with Jacobian products near `x`, by automatic differentiation unless the operator knows better.

        Args:
            x: images.
            spread: how far from `x` the products should be good, broadcastable to `x`; where A bends within it, an operator may
                give secants instead of tangents. Without it they are the Jacobian's.
        """
        del spread
        value, pullback, *_ = torch.func.vjp(self.forward, x)
        return Linearisation(value, lambda p: torch.func.jvp(self.forward, (x,), (p,))[1], lambda w: pullback(w)[0])

    def move(self, x: Tensor, direction: Tensor, step: Tensor, spread: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A curve through `x` for line searches: the point at `step` and the velocity there.

        A straight line, unless the operator knows coordinates in which it is nearer to linear.

        Args:
            x: images.
            direction: solution of a problem linearised with the same `spread`, same shape.
            step: step lengths, broadcastable to `x`.
            spread: as for `linearise`.
        """
        del spread
        return x + step * direction, direction

    def select(self, index: Tensor) -> "Operator":
        """The operator of some images of the batch, by their indices; itself where no parameter differs per image."""
        del index
        return self

    @abstractmethod
    def measurement_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Scanner grid ``(x, y, z)`` for an image grid ``(x, y, z)``."""

    @abstractmethod
    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Image grid ``(x, y, z)`` for a scanner grid ``(x, y, z)``: the largest one that it covers."""

    @abstractmethod
    def voxel_factors(self) -> tuple[float, float, float]:
        """Length of a scanner voxel in image voxels along x, y, z; both grids share their centre."""
