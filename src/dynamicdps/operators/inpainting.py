"""Missing voxels and missing slices."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dynamicdps.operators.linear import LinearModel, diagonal_model
from dynamicdps.operators.operator import LinearOperator, SameGrid
from dynamicdps.operators.parameters import as_mask, fit_map, mean_square


@dataclass(frozen=True, eq=False)
class Inpainting(LinearOperator, SameGrid):
    """``A(x) = M x``: the measured voxels, 0 elsewhere.

    Where nothing is measured the measurement and the residual are 0: `measured_fraction` says which share is left.

    Attributes:
        mask: 1 where a voxel is measured, ``(height, width)``, ``(depth, height, width)`` or ``(batch, 1, ...)``; an axis
            of size 1 stands for all its indices: ``(depth, 1, 1)`` names missing slices.

    Raises:
        InputError: the mask has other values than 0 and 1, or only 0.
    """

    mask: Tensor = field(metadata={"dims": 3})

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", as_mask("mask", self.mask, (2, 3, 4, 5)))

    @property
    def couples_slices(self) -> bool:
        return self.mask.ndim in (3, 5) and self.mask.shape[-3] > 1

    def measured_fraction(self, y: Tensor) -> Tensor:
        """Share that is measured; what is not has to be 0 in the measurement too."""
        return mean_square("mask", self.mask, y[:, :1])

    def forward(self, x: Tensor) -> Tensor:
        return x * fit_map("mask", self.mask, x).to(x.dtype)

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        return self.forward(w)

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        del shape
        return diagonal_model(fit_map("mask", self.mask, like).to(like.dtype), noise_std)
