"""The filter that makes noise white."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dynamicdps.operators import LinearOperator, SameGrid
from dynamicdps.operators.noise import stationary_filter


@dataclass(frozen=True, eq=False)
class Whitening(LinearOperator, SameGrid):
    """The filter that makes stationary noise white and keeps its standard deviation: ``1 / sqrt(S)`` in Fourier space.

    Attributes:
        spectrum: S, as in `Noise`.
    """

    spectrum: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return stationary_filter(x, self.spectrum.rsqrt())

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        return self.forward(w)

    def select(self, index: Tensor) -> "Whitening":
        del index
        return self
