"""Scanners whose slices are not axial."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import Curve
from dynamicdps.operators.linear import DataSpectrum, LinearModel, SpectralModel
from dynamicdps.operators.operator import LinearOperator, Operator, Scanner, Size
from dynamicdps.volumes.grids import Grid


class _Swapped(Operator):
    """Images, grids and measurements of an inner operator, with one axis and z swapped."""

    inner: Operator
    axis: int

    @property
    def parts(self) -> Sequence[Operator]:
        return (self.inner,)

    @property
    def couples_slices(self) -> bool:
        return True

    def measured_fraction(self, y: Tensor) -> Tensor:
        return self.inner.measured_fraction(self._swap(y))

    def forward(self, x: Tensor) -> Tensor:
        return self._swap(self.inner(self._swap(x)))

    def typical_value(self, x: float) -> float:
        return self.inner.typical_value(x)

    def select(self, index: Tensor) -> Self:
        return replace(self, inner=self.inner.select(index))  # type: ignore[type-var]

    def grid(self, image: Grid) -> Grid:
        return self._swapped(self.inner.grid(self._swapped(image)))

    def covered_shape(self, measured: Size) -> Size:
        return self._order(self.inner.covered_shape(self._order(measured)))

    def to_json(self) -> dict[str, Any]:
        return {"type": "SwapSliceAxis", "axis": self.axis, "inner": self.inner.to_json()}

    def __str__(self) -> str:
        return f"SwapSliceAxis({self.inner}, axis={self.axis})"

    def _swap(self, x: Tensor) -> Tensor:
        if x.ndim != 5:
            raise ValueError(f"the images have shape {tuple(x.shape)}; expected volumes (batch, 1, depth, height, width)")
        return x.transpose(-3, -1 - self.axis).contiguous()

    def _shape(self, shape: Sequence[int]) -> torch.Size:
        return self._swap(torch.empty(tuple(shape), device="meta")).shape

    def _swapped(self, grid: Grid) -> Grid:
        order = [2, 1, 0, 3] if self.axis == 0 else [0, 2, 1, 3]
        return Grid(self._order(grid.shape), grid.affine[:, order], grid.native)

    def _order(self, shape: Size) -> Size:
        x, y, z = shape
        return (z, y, x) if self.axis == 0 else (x, z, y)


@dataclass(frozen=True, eq=False)
class SwapSliceAxis(_Swapped, Scanner):
    """An operator whose z axis lies along x (sagittal slices) or y (coronal ones) of image and measurement.

    ``A(x) = T B(T x)``, where T swaps that axis with z. Image and measurement stay in the orientation they are in, so that a prior of
    axial slices serves scans of any slice direction, and nothing is resampled.

    Attributes:
        inner: B, of volumes.
        axis: 0 for x, 1 for y.

    Raises:
        InputError: the axis is another one.
    """

    inner: Operator
    axis: int

    def __post_init__(self) -> None:
        if self.axis not in (0, 1):
            raise InputError(f"the slices' axis is {self.axis!r}; expected 0 (x) or 1 (y); leave z as it is")

    @property
    def linear(self) -> LinearOperator | None:
        return None if self.inner.linear is None else _SwappedLinear(self.inner.linear, self.axis)

    @property
    def contrast(self) -> Curve | None:
        # It acts on single voxels, which stay what they are when axes are swapped.
        return self.inner.contrast


@dataclass(frozen=True, eq=False)
class _SwappedLinear(_Swapped, LinearOperator):
    """The linear part of `SwapSliceAxis`."""

    inner: LinearOperator
    axis: int

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        return self._swap(self.inner.adjoint(self._swap(w), self._shape(shape)))

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        inner = self.inner.model(self._shape(shape), self._swap(like), noise_std)
        if not isinstance(inner, SpectralModel):
            return super().model(shape, like, noise_std)

        def swapped(basis: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda v: self._swap(basis(self._swap(v)))

        return SpectralModel(
            noise_std,
            swapped(inner.to_basis),
            swapped(inner.from_basis),
            swapped(inner.data_to_basis),
            swapped(inner.data_from_basis),
            self._swap(inner.singular_values),
        )

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        if mixing is not None:
            # Along the image's z, which is in the plane of these slices.
            return None
        found = self.inner.data_spectrum(self._shape(shape), self._swap(like))
        if found is None:
            return None
        return DataSpectrum(
            lambda w: self._swap(found.to_basis(self._swap(w))),
            lambda c: self._swap(found.from_basis(self._swap(c))),
            self._swap(found.values),
            self._swap(found.row_sums),
        )
