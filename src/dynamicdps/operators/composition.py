"""Operators one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.linear import DataSpectrum
from dynamicdps.operators.operator import Linearisation, Operator, SearchCurve


@dataclass(frozen=True, eq=False)
class Composition(Operator):
    """``A(x) = A1(A2(... x))``; compositions in it are taken apart. ``A1 @ A2`` makes one.

    The noise is the outermost operator's: it comes last, in the scanner's receiver.

    Attributes:
        operators: the outermost first.

    Raises:
        InputError: there is none, or something in it is not an operator.
    """

    operators: tuple[Operator, ...]

    def __post_init__(self) -> None:
        if not self.operators or not all(isinstance(part, Operator) for part in self.operators):
            raise InputError(f"a composition has {len(self.operators)} parts; expected one operator or more, nothing else; change it")
        flat = [p for part in self.operators for p in (part.operators if isinstance(part, Composition) else (part,))]
        object.__setattr__(self, "operators", tuple(flat))

    @property
    def noise_std(self) -> float:  # type: ignore[override]
        return self.operators[0].noise_std

    @property
    def is_linear(self) -> bool:
        return all(part.is_linear for part in self.operators)

    @property
    def couples_slices(self) -> bool:
        return any(part.couples_slices for part in self.operators)

    def counted(self, y: Tensor) -> Tensor:
        return self.operators[0].counted(y)

    @property
    def acts_on_voxels(self) -> bool:
        return all(part.acts_on_voxels for part in self.operators)

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        """That of the one part that mixes voxels, if there is one only."""
        mixers = [part for part in self.operators if not part.acts_on_voxels]
        return mixers[0].data_spectrum(shape, like, mixing) if len(mixers) == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        return reduce(lambda value, part: part(value), reversed(self.operators), x)

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        if not self.is_linear:
            return super().adjoint(w, shape)
        value = torch.zeros(tuple(shape), dtype=w.dtype, device=w.device)
        steps = []
        for part in reversed(self.operators):
            steps.append((part, value.shape))
            if len(steps) < len(self.operators):
                value = part(value)
        return reduce(lambda v, step: step[0].adjoint(v, step[1]), reversed(steps), w)

    def typical_value(self, x: float) -> float:
        return reduce(lambda value, part: part.typical_value(value), reversed(self.operators), x)

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        """The chain rule; the spread is of images, so that it is for the innermost operator only."""
        steps = [self.operators[-1].linearise(x, spread)]
        for part in reversed(self.operators[:-1]):
            steps.append(part.linearise(steps[-1].value))

        def jvp(p: Tensor) -> Tensor:
            return reduce(lambda v, near: near.jvp(v), steps, p)

        def vjp(w: Tensor) -> Tensor:
            return reduce(lambda v, near: near.vjp(v), reversed(steps), w)

        return Linearisation(lambda: steps[-1].value, jvp, vjp)

    def search_curve(self, x: Tensor, direction: Tensor, spread: Tensor | None = None) -> SearchCurve:
        """The innermost operator's curve: what it bends, it knows how to straighten."""
        return self.operators[-1].search_curve(x, direction, spread)

    @property
    def straightens(self) -> bool:
        return self.operators[-1].straightens and all(part.is_linear for part in self.operators[:-1])

    def select(self, index: Tensor) -> "Composition":
        return Composition(tuple(part.select(index) for part in self.operators))

    def measurement_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return reduce(lambda s, part: part.measurement_shape(s), reversed(self.operators), shape)

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return reduce(lambda s, part: part.image_shape(s), self.operators, shape)

    def voxel_factors(self) -> tuple[float, float, float]:
        x, y, z = np.prod([part.voxel_factors() for part in self.operators], axis=0).tolist()
        return x, y, z

    def voxel_map(self, image: tuple[int, int, int], measured: tuple[int, int, int]) -> NDArray[np.float64]:
        out, inner = np.eye(4), image
        for i, part in reversed(list(enumerate(self.operators))):
            outer = part.measurement_shape(inner) if i else measured
            out, inner = out @ part.voxel_map(inner, outer), outer
        return out

    def to_json(self) -> dict[str, Any]:
        return {"type": "Composition", "operators": [part.to_json() for part in self.operators]}

    def __str__(self) -> str:
        return " @ ".join(map(str, self.operators))
