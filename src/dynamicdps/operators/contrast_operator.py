"""A change of contrast alone, as an operator."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import MonotoneCurve, PowerLaw
from dynamicdps.operators.linear import SpectralModel
from dynamicdps.operators.operator import Linearisation, LinearProblem, Operator, SearchCurve

NOISES = ("gaussian", "rician")


@dataclass(frozen=True, eq=False)
class Contrast(Operator):
    """``A(x) = c(x)``, an increasing curve on intensities; the measurement's grid is the image's.

    Attributes:
        curve: `PowerLaw` or `MonotoneCurve`, one for all images or one an image.
        noise_std: standard deviation of the noise as a share of the intensity range, from 1e-6 to 1.
        noise: ``"gaussian"`` or ``"rician"``.

    Raises:
        InputError: a parameter is out of its range.
    """

    curve: PowerLaw | MonotoneCurve
    noise_std: float = 0.001
    noise: str = "gaussian"

    def __post_init__(self) -> None:
        if not 1e-6 <= self.noise_std <= 1:
            raise InputError(f"noise_std is {self.noise_std}; expected a number from 1e-06 to 1; change it")
        if self.noise not in NOISES:
            raise InputError(f"noise is {self.noise!r}; expected one of {', '.join(NOISES)}; change it")

    @property
    def is_linear(self) -> bool:
        return self.curve.is_identity

    def typical_value(self, x: float) -> float:
        """The curve at `x`; the mean of the curves where they differ per image."""
        images = len(self.curve.values) if isinstance(self.curve, MonotoneCurve) and self.curve.values.ndim == 2 else 1
        return float(self.curve(torch.full((images, 1), x)).mean())

    def linear_problem(self, y: Tensor, shape: Sequence[int]) -> LinearProblem:
        """The identity, with the contrast undone on the measurement.

        The noise is then that of each intensity divided by the slope there; the model has its root mean square over each image.
        """
        del shape
        noise, warnings = torch.full((1,), self.noise_std, dtype=y.dtype, device=y.device), []
        if not self.is_linear:
            y = self.curve.inverse(y)
            noise = self.noise_std * self.curve.slope(y).pow(-2).flatten(1).mean(1).sqrt()
            warnings = [
                "the contrast was undone on the measurement, because the solver needs a linear operator; its noise, which then "
                "differs between voxels, is taken as equal"
            ]
        return LinearProblem(_identity(noise, y), y, warnings)

    @property
    def acts_on_voxels(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return self.curve(x)

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        slope = self._slope(x, spread)
        return Linearisation(lambda: self.curve(x), lambda p: slope * p, lambda w: slope * w)

    def search_curve(self, x: Tensor, direction: Tensor, spread: Tensor | None = None) -> SearchCurve:
        """Where the curve is steep at the dark end: a straight line in contrast ``c(x)``, where the data term is exactly quadratic.

        In image intensities that slope would stop every step at the first background pixel, as in `LowField`.
        """
        bend = self.curve.steep_when_dark(x)
        if not bool(bend.any()):
            return super().search_curve(x, direction)
        speed, origin = self._slope(x, spread) * direction, self.curve(x)

        def at(step: Tensor) -> tuple[Tensor, Tensor]:
            curved = self.curve.inverse(origin + step * speed) if bool(step.any()) else x
            return torch.where(bend, curved, x + step * direction), torch.where(bend, speed / self.curve.slope(curved), direction)

        return at

    @property
    def straightens(self) -> bool:
        return self.is_linear or (isinstance(self.curve, PowerLaw) and bool((torch.as_tensor(self.curve.gamma) <= 1).all()))

    def select(self, index: Tensor) -> Self:
        curve = self.curve.select(index)
        return self if curve is self.curve else replace(self, curve=curve)

    def measurement_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return shape

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return shape

    def voxel_factors(self) -> tuple[float, float, float]:
        return 1.0, 1.0, 1.0

    def to_json(self) -> dict[str, Any]:
        """Type and parameters as plain values.

        Raises:
            ValueError: the curve differs per image.
        """
        rest = {"noise_std": self.noise_std, "noise": self.noise}
        if isinstance(self.curve, PowerLaw):
            gamma = torch.as_tensor(self.curve.gamma, dtype=torch.float64)
            if gamma.ndim:
                raise ValueError("gamma differs per image; expected one value to write")
            return {"type": "Contrast", "gamma": float(gamma), **rest}
        if self.curve.values.ndim > 1:
            raise ValueError("the curve differs per image; expected one to write")
        return {"type": "Contrast", "positions": self.curve.positions.tolist(), "values": self.curve.values.tolist(), **rest}

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
            PowerLaw(_number("gamma", values["gamma"])) if power else MonotoneCurve(_knots(values, "positions"), _knots(values, "values"))
        )
        return cls(curve, _number("noise_std", values.get("noise_std", cls.noise_std)), values.get("noise", cls.noise))

    def __str__(self) -> str:
        try:
            values = self.to_json()
        except ValueError:
            return f"Contrast({self.curve}, noise_std={self.noise_std:g}, noise={self.noise})"
        return f"Contrast({', '.join(f'{name}={_short(value)}' for name, value in values.items() if name != 'type')})"

    def _slope(self, x: Tensor, spread: Tensor | None) -> Tensor:
        """The tangent's slope, or the secant's over `x` plus and minus the spread, which stays good where the curve bends."""
        if spread is None:
            return self.curve.slope(x)
        return (self.curve(x + spread) - self.curve(x - spread)) / (2 * spread)


def _identity(noise_std: Tensor, like: Tensor) -> SpectralModel:
    def same(x: Tensor) -> Tensor:
        return x

    return SpectralModel(noise_std, same, same, same, same, torch.ones_like(like[:1]))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; expected a number; change it")
    return float(value)


def _knots(values: Mapping[str, Any], name: str) -> Tensor:
    knots = values[name]
    if not isinstance(knots, list | tuple):
        raise InputError(f"{name} is {knots!r}; expected a list of numbers; change it")
    return torch.tensor([_number(name, value) for value in knots], dtype=torch.float64)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(f'{number:g}' for number in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
