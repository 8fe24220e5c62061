"""Scanners whose slices are not axial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.linear import DataSpectrum
from dynamicdps.operators.operator import Linearisation, Operator, SearchCurve

Size = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Turned(Operator):
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
    def noise_std(self) -> float:  # type: ignore[override]
        return self.inner.noise_std

    @property
    def is_linear(self) -> bool:
        return self.inner.is_linear

    @property
    def couples_slices(self) -> bool:
        return True

    def counted(self, y: Tensor) -> Tensor:
        return self.inner.counted(self._swap(y))

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        if mixing is not None:
            # Along the image's z, which is in the plane of these slices.
            return None
        batch, channels, depth, height, width = shape
        sizes = (batch, channels, *((width, height, depth) if self.axis == 0 else (height, depth, width)))
        found = self.inner.data_spectrum(sizes, self._swap(like))
        if found is None:
            return None
        return DataSpectrum(
            lambda w: self._swap(found.to_basis(self._swap(w))),
            lambda c: self._swap(found.from_basis(self._swap(c))),
            self._swap(found.values),
            self._swap(found.row_sums),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._swap(self.inner(self._swap(x)))

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        return self._swap(self.inner.adjoint(self._swap(w), self._swap(torch.empty(tuple(shape), device="meta")).shape))

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        near = self.inner.linearise(self._swap(x), None if spread is None else self._swap(spread))
        return Linearisation(
            lambda: self._swap(near.value), lambda p: self._swap(near.jvp(self._swap(p))), lambda w: self._swap(near.vjp(self._swap(w)))
        )

    def search_curve(self, x: Tensor, direction: Tensor, spread: Tensor | None = None) -> SearchCurve:
        inner = self.inner.search_curve(self._swap(x), self._swap(direction), None if spread is None else self._swap(spread))

        def at(step: Tensor) -> tuple[Tensor, Tensor]:
            moved, velocity = inner(self._swap(step))
            return self._swap(moved), self._swap(velocity)

        return at

    @property
    def straightens(self) -> bool:
        return self.inner.straightens

    def typical_value(self, x: float) -> float:
        return self.inner.typical_value(x)

    def select(self, index: Tensor) -> "Turned":
        return Turned(self.inner.select(index), self.axis)

    def measurement_shape(self, shape: Size) -> Size:
        return self._order(self.inner.measurement_shape(self._order(shape)))

    def image_shape(self, shape: Size) -> Size:
        return self._order(self.inner.image_shape(self._order(shape)))

    def voxel_factors(self) -> tuple[float, float, float]:
        x, y, z = self.inner.voxel_factors()
        return (z, y, x) if self.axis == 0 else (x, z, y)

    def voxel_map(self, image: Size, measured: Size) -> NDArray[np.float64]:
        order = [2, 1, 0, 3] if self.axis == 0 else [0, 2, 1, 3]
        return self.inner.voxel_map(self._order(image), self._order(measured))[np.ix_(order, order)]

    def to_json(self) -> dict[str, Any]:
        return {"type": "Turned", "axis": self.axis, "inner": self.inner.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        from dynamicdps.operators.registry import operator_from_json

        return cls(operator_from_json(values["inner"]), int(values["axis"]))

    def __str__(self) -> str:
        return f"Turned({self.inner}, axis={self.axis})"

    def _swap(self, x: Tensor) -> Tensor:
        if x.ndim != 5:
            raise ValueError(f"the images have shape {tuple(x.shape)}; expected volumes (batch, 1, depth, height, width)")
        return x.transpose(-3, -1 - self.axis).contiguous()

    def _order(self, shape: Size) -> Size:
        x, y, z = shape
        return (z, y, x) if self.axis == 0 else (x, z, y)
