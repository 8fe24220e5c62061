"""A change of contrast alone, as an operator."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import Curve, HermiteCurve, PowerLaw, curve_through
from dynamicdps.operators.identity import Identity
from dynamicdps.operators.operator import LinearOperator, Scanner


@dataclass(frozen=True, eq=False)
class Contrast(Scanner):
    """``A(x) = c(x)``, a curve on intensities; the measurement's grid is the image's.

    Attributes:
        curve: `PowerLaw`, `MonotoneCurve` or, where it falls somewhere, `HermiteCurve`, one for all images or one an image.
    """

    curve: PowerLaw | HermiteCurve

    @property
    def linear(self) -> LinearOperator:
        return Identity()

    @property
    def contrast(self) -> Curve:
        return self.curve

    def select(self, index: Tensor) -> Self:
        curve = self.curve.select(index)
        return self if curve is self.curve else replace(self, curve=curve)

    def to_json(self) -> dict[str, Any]:
        """Type and parameters as plain values.

        Raises:
            ValueError: the curve differs per image.
        """
        if isinstance(self.curve, PowerLaw):
            gamma = torch.as_tensor(self.curve.gamma, dtype=torch.float64)
            if gamma.ndim:
                raise ValueError("gamma differs per image; expected one value to write")
            return {"type": "Contrast", "gamma": float(gamma)}
        if self.curve.values.ndim > 1:
            raise ValueError("the curve differs per image; expected one to write")
        return {"type": "Contrast", "positions": self.curve.positions.tolist(), "values": self.curve.values.tolist()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The operator that `to_json` wrote: ``gamma`` for a power law, or ``positions`` and ``values`` of the knots.

        Raises:
            InputError: they do not describe a contrast.
        """
        power, knots = "gamma" in values, "positions" in values and "values" in values
        if values.get("type") != "Contrast" or power == knots:
            raise InputError(
                f"the operator has {', '.join(values) or 'no values'}; expected type Contrast with either gamma or positions and values; "
                "see docs/operators.md"
            )
        curve = (
            PowerLaw(_number("gamma", values["gamma"])) if power else curve_through(*(_knots(values, n) for n in ("positions", "values")))
        )
        return cls(curve)

    def __str__(self) -> str:
        try:
            values = self.to_json()
        except ValueError:
            return f"Contrast({self.curve})"
        return f"Contrast({', '.join(f'{name}={_short(value)}' for name, value in values.items() if name != 'type')})"


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; expected a number")
    return float(value)


def _knots(values: Mapping[str, Any], name: str) -> Tensor:
    knots = values[name]
    if not isinstance(knots, list | tuple):
        raise InputError(f"{name} is {knots!r}; expected a list of numbers")
    return torch.tensor([_number(name, value) for value in knots], dtype=torch.float64)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(f'{number:g}' for number in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
