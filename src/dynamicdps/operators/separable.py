"""Linear operators that apply one matrix along each axis."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from dynamicdps.operators.linear import LinearModel, separable_model
from dynamicdps.operators.operator import LinearOperator
from dynamicdps.operators.sampling import along


class SeparableOperator(LinearOperator):
    """One matrix along each axis that changes: the transpose is exact, and the singular values are known."""

    @abstractmethod
    def _matrices(self, shape: Sequence[int], like: Tensor) -> list[tuple[int, Tensor]]:
        """Pairs of a negative axis and its matrix ``(measured, image)`` or ``(batch, measured, image)``, for images of a shape."""

    def forward(self, x: Tensor) -> Tensor:
        for axis, matrix in self._matrices(x.shape, x):
            x = along(x, matrix, axis)
        return x

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        for axis, matrix in self._matrices(shape, w):
            w = along(w, matrix.transpose(-1, -2), axis)
        return w

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        return separable_model(self._matrices(shape, like), shape, noise_std, like)
