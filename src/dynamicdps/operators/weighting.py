"""A soft weight on what is measured: how much each voxel counts in the data term."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dynamicdps.operators.linear import LinearModel, diagonal_model
from dynamicdps.operators.operator import LinearOperator, SameGrid
from dynamicdps.operators.parameters import check_finite, check_range, fit_map, mean_square


@dataclass(frozen=True, eq=False)
class Weighting(LinearOperator, SameGrid):
    """``A(x) = w x``: put outermost, on a measurement multiplied by w, it weighs the residual of every voxel by w.

    A brain mask that falls off smoothly from 1 to 0 lets the prior, which knows brains only, alone outside of it. Where w is 0 the
    residual is 0: `measured_fraction` says which share is left.

    Attributes:
        weights: 0 to 1, ``(height, width)``, ``(depth, height, width)`` or ``(batch, 1, ...)``, not 0 everywhere.

    Raises:
        InputError: the weights are out of their range.
    """

    weights: Tensor = field(metadata={"dims": 3})

    def __post_init__(self) -> None:
        check_finite("weights", self.weights, (2, 3, 4, 5))
        check_range("weights", self.weights, 0.0, 1.0)
        check_range("the largest weight", self.weights.max(), 1e-6, 1.0)

    @property
    def couples_slices(self) -> bool:
        return self.weights.ndim in (3, 5) and self.weights.shape[-3] > 1

    @property
    def is_pointwise(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return x * fit_map("weights", self.weights, x).to(x.dtype)

    def measured_fraction(self, y: Tensor) -> Tensor:
        return mean_square("weights", self.weights, y)

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        return self.forward(w)

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        del shape
        return diagonal_model(fit_map("weights", self.weights, like).to(like.dtype), noise_std)
