"""Contrast between two field strengths as a curve on intensities."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.parameters import per_image

KNEE = 0.005
SMALLEST_STEP = 1e-4


def power_law(x: Tensor, gamma: Tensor) -> Tensor:
    """``x ** gamma``, smooth, odd and increasing through 0: ``x * (x**2 + knee**2) ** ((gamma - 1) / 2)``.

    A plain power has an unbounded slope at 0 for ``gamma < 1`` and none below; this one has slope ``knee ** (gamma - 1)`` there
    and differs from it by less than 0.3 % above a tenth of the range.

    Args:
        x: intensities, any shape, image range [0, 1].
        gamma: exponent, broadcastable to `x`.
    """
    return x * _power(x.square() + KNEE**2, (gamma - 1) / 2)


def power_law_slope(x: Tensor, gamma: Tensor) -> Tensor:
    """Derivative of `power_law` with respect to `x`; greater than 0 everywhere."""
    square = x.square()
    raised = square + KNEE**2
    return _power(raised, (gamma - 3) / 2) * (gamma * square + KNEE**2)


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    """``base ** exponent`` for ``base > 0``: three times as fast as torch's power, which has to think of other bases."""
    return (exponent * base.log()).exp()


def inverse_power_law(y: Tensor, gamma: Tensor, iterations: int | None = None) -> Tensor:
    """Solve ``power_law(x, gamma) = y`` for `x`.

    Newton's method on logarithms, where the curve's slope lies between 1 and gamma everywhere: it converges from any start.

    Args:
        y: intensities, any shape.
        gamma: exponent, broadcastable to `y`.
        iterations: Newton steps; by default as many as make the relative error less than 1e-6: 2 for exponents of 0.65 to 1.25, 3 for
            0.3 to 2.5, and 5 beyond.
    """
    if iterations is None:
        enough = ((2, 0.65, 1.25), (3, 0.3, 2.5))
        iterations = next((count for count, low, high in enough if bool(((gamma >= low) & (gamma <= high)).all())), 5)
    magnitude = y.abs().clamp_min(1e-30)
    target = magnitude.log()
    # Above the knee the curve is the plain power, below it the line through 0: start at the larger of the two.
    log_x = target / gamma if bool((gamma >= 1).all()) else torch.maximum(target / gamma, target + (1 - gamma) * math.log(KNEE))
    for _ in range(iterations):
        square = (2 * log_x).exp()
        value = log_x + (gamma - 1) / 2 * (square + KNEE**2).log()
        log_x = log_x - (value - target) / (1 + (gamma - 1) * square / (square + KNEE**2))
    return log_x.exp() * y.sign()


class Curve(ABC):
    """A curve on intensities, one for all images or one an image."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The curve at intensities `x`, any shape; batch first where it differs per image."""

    @abstractmethod
    def tangent(self, x: Tensor) -> Tensor:
        """Derivative with respect to `x`; greater than 0 everywhere where the curve increases."""

    def slope(self, x: Tensor, spread: Tensor | None = None) -> Tensor:
        """The tangent's slope at `x`, or the secant's over `x` plus and minus the spread, which stays good where the curve bends.

        At 0 the tangent of a power law is good for a hundredth of the range only: a Newton step with it sends background pixels far away.
        """
        if spread is None:
            return self.tangent(x)
        return (self(x + spread) - self(x - spread)) / (2 * spread)

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Solve ``curve(x) = y`` for `x`.

        Raises:
            InputError: the curve does not increase everywhere.
        """

    @abstractmethod
    def select(self, index: Tensor) -> Self:
        """The curves of some images, by their indices; itself where it is shared."""

    @property
    @abstractmethod
    def is_identity(self) -> bool:
        """Whether it leaves intensities as they are."""

    @abstractmethod
    def steep_when_dark(self, like: Tensor) -> Tensor:
        """Whether the curve is steeper at its dark end than on average, boolean, broadcastable to images."""

    @property
    def may_be_flat(self) -> bool:
        """Whether it may rise and fall, and be flat between."""
        return False

    @property
    @abstractmethod
    def is_straight_along_search(self) -> bool:
        """Whether a step in image intensities is taken only where the curve is straight."""

    @abstractmethod
    def is_same(self, other: "Curve | None") -> bool:
        """Whether another curve is this one."""

    @abstractmethod
    def typical_value(self, x: float) -> float:
        """The curve at one intensity; the mean of the curves where they differ per image."""


@dataclass(frozen=True, eq=False)
class PowerLaw(Curve):
    """`power_law` with its exponent, as a curve.

    Attributes:
        gamma: exponent from 0.05 to 5, a number or ``(batch,)``.

    Raises:
        InputError: gamma is out of its range.
    """

    gamma: float | Tensor

    def __post_init__(self) -> None:
        gamma = torch.as_tensor(self.gamma).detach()
        if gamma.ndim > 1 or not bool(((gamma >= 0.05) & (gamma <= 5)).all()):
            raise InputError(f"gamma is {gamma.tolist()}; expected a number from 0.05 to 5, or one an image")

    def __call__(self, x: Tensor) -> Tensor:
        return power_law(x, self._like(x))

    def tangent(self, x: Tensor) -> Tensor:
        return power_law_slope(x, self._like(x))

    def inverse(self, y: Tensor) -> Tensor:
        return inverse_power_law(y, self._like(y))

    def select(self, index: Tensor) -> "PowerLaw":
        return PowerLaw(self.gamma[index.to(self.gamma.device)]) if isinstance(self.gamma, Tensor) and self.gamma.ndim else self

    @property
    def is_identity(self) -> bool:
        return bool((torch.as_tensor(self.gamma) == 1).all())

    def steep_when_dark(self, like: Tensor) -> Tensor:
        return self._like(like) < 1

    @property
    def is_straight_along_search(self) -> bool:
        return bool((torch.as_tensor(self.gamma) <= 1).all())

    def is_same(self, other: Curve | None) -> bool:
        return isinstance(other, PowerLaw) and torch.equal(torch.as_tensor(self.gamma), torch.as_tensor(other.gamma))

    def typical_value(self, x: float) -> float:
        return float(self(torch.tensor(x)).mean())

    def _like(self, x: Tensor) -> Tensor:
        return per_image(self.gamma, x)


@dataclass(frozen=True, eq=False)
class HermiteCurve(Curve):
    """A once differentiable curve through knots that may rise and fall: cubic Hermite pieces with slopes after Fritsch and Butland (1984).

    The slope at an inner knot is the weighted harmonic mean of the secants beside it, and 0 where one rises and the other falls, so that no
    piece leaves the range of its two knots (Fritsch and Carlson 1980); at the ends it is the secant's, and the curve goes on straight from
    there. It is differentiable with respect to the argument and to `values`.

    Attributes:
        positions: intensities of the knots, ``(knots,)``, increasing, at least two.
        values: the curve there, ``(knots,)``, or ``(batch, knots)`` for a curve an image.

    Raises:
        InputError: positions do not increase, or positions and values are not finite or do not fit each other.
    """

    positions: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        knots = self.positions.shape[-1] if self.positions.ndim == 1 else 0
        if knots < 2 or self.values.ndim not in (1, 2) or self.values.shape[-1] != knots:
            raise InputError(
                f"the curve has positions of shape {tuple(self.positions.shape)} and values of shape {tuple(self.values.shape)}; "
                "expected (knots,) and (knots,) or (batch, knots) with at least 2 knots; give one value a knot"
            )
        _check_increasing("positions", self.positions)
        if not bool(torch.isfinite(self.values.detach()).all()):
            raise InputError(f"the curve's values are {self.values.detach().tolist()}; expected finite numbers; change them")

    def __call__(self, x: Tensor) -> Tensor:
        return self._piece(x, _interval(x, self.positions)).value(x)

    def tangent(self, x: Tensor) -> Tensor:
        return self._piece(x, _interval(x, self.positions)).slope(x)

    def inverse(self, y: Tensor) -> Tensor:
        del y
        raise InputError(
            "the contrast is a curve that falls somewhere and cannot be undone on a measurement; expected one that increases for this "
            "solver; choose dynamicdps, dps or red-diff"
        )

    @property
    def may_be_flat(self) -> bool:
        return True

    def select(self, index: Tensor) -> Self:
        return self if self.values.ndim == 1 else replace(self, values=self.values[index.to(self.values.device)])

    @property
    def is_identity(self) -> bool:
        return bool((self.values == self.positions).all())

    def steep_when_dark(self, like: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.bool, device=like.device)

    @property
    def is_straight_along_search(self) -> bool:
        return self.is_identity

    def is_same(self, other: Curve | None) -> bool:
        return isinstance(other, HermiteCurve) and torch.equal(self.positions, other.positions) and torch.equal(self.values, other.values)

    def typical_value(self, x: float) -> float:
        images = len(self.values) if self.values.ndim == 2 else 1
        return float(self(torch.full((images, 1), x)).mean())

    def _knots(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Values and slopes at the knots, ``(knots,)`` or ``(batch, knots)``."""
        values = self.values.to(like)
        width = self.positions.to(like).diff()
        secant = values.diff() / width
        left, right = width[:-1], width[1:]
        before, after = secant[..., :-1], secant[..., 1:]
        alike = before * after > 0
        before, after = torch.where(alike, before, 1.0), torch.where(alike, after, 1.0)
        inner = 3 * (left + right) / ((2 * right + left) / before + (right + 2 * left) / after)
        return values, torch.cat([secant[..., :1], torch.where(alike, inner, 0.0), secant[..., -1:]], -1)

    def _piece(self, x: Tensor, index: Tensor) -> "_Piece":
        """The pieces of the given index."""
        values, slopes = self._knots(x)
        positions = self.positions.to(x)
        return _Piece(*(_at(knots, i) for knots in (positions, values, slopes) for i in (index, index + 1)))


@dataclass(frozen=True, eq=False)
class _Piece:
    """A cubic between two knots, for each voxel its own, and the lines beyond them."""

    start: Tensor
    end: Tensor
    v0: Tensor
    v1: Tensor
    s0: Tensor
    s1: Tensor

    # Outside, the polynomial of the nearest end is not looked at; `where`, not `clamp`: at a knot a clamp's gradient is ambiguous.
    def value(self, x: Tensor) -> Tensor:
        start, end, v0, v1, s0, s1 = self.start, self.end, self.v0, self.v1, self.s0, self.s1
        width, rise = end - start, v1 - v0
        t = (x - start) / width
        inside = v0 + t * (width * s0 + t * (3 * rise - width * (2 * s0 + s1) + t * (width * (s0 + s1) - 2 * rise)))
        return torch.where(x < start, v0 + (x - start) * s0, torch.where(x > end, v1 + (x - end) * s1, inside))

    def slope(self, x: Tensor) -> Tensor:
        start, end, s0, s1 = self.start, self.end, self.s0, self.s1
        width, rise = end - start, self.v1 - self.v0
        t = (x - start) / width
        inside = s0 + t * (6 * rise / width - 4 * s0 - 2 * s1 + t * (3 * (s0 + s1) - 6 * rise / width))
        return torch.where(x < start, s0, torch.where(x > end, s1, inside))


@dataclass(frozen=True, eq=False)
class MonotoneCurve(HermiteCurve):
    """A `HermiteCurve` whose values increase, so that it does everywhere and has an inverse.

    Raises:
        InputError: positions or values do not increase, are not finite, or do not fit each other.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_increasing("values", self.values)

    @property
    def may_be_flat(self) -> bool:
        return False

    def inverse(self, y: Tensor) -> Tensor:
        """Solve ``curve(x) = y`` for `x`, to the precision of `y`; differentiable.

        Newton's method, with a bisection wherever it would leave the piece.
        """
        index = _interval(y.detach(), self.values.detach())
        with torch.no_grad():
            x = self._solve(y.detach(), index)
        # One more step that gradients flow through: of the implicit function, whatever the path to it was.
        piece = self._piece(x, index)
        return x + (y - piece.value(x)) / piece.slope(x)

    def steep_when_dark(self, like: Tensor) -> Tensor:
        values, slopes = self._knots(like)
        average = (values[..., -1] - values[..., 0]) / (self.positions[-1] - self.positions[0]).to(like)
        return _wide(slopes[..., 0] > average, like)

    def _solve(self, y: Tensor, index: Tensor, iterations: int = 30) -> Tensor:
        """`inverse` inside known pieces."""
        piece = self._piece(y, index)
        low, high, v0, v1 = piece.start, piece.end, piece.v0, piece.v1
        x = low + (high - low) * (y - v0) / (v1 - v0)
        outside = torch.where(y < v0, low + (y - v0) / piece.s0, high + (y - v1) / piece.s1)
        x = x.clamp(low, high)
        for _ in range(iterations):
            value = piece.value(x)
            low, high = torch.where(value < y, x, low), torch.where(value < y, high, x)
            step = x + (y - value) / piece.slope(x)
            x = torch.where((step > low) & (step < high), step, (low + high) / 2)
        return torch.where((y < v0) | (y > v1), outside, x)


def _check_increasing(name: str, numbers: Tensor) -> None:
    numbers = numbers.detach()
    if not bool(torch.isfinite(numbers).all()) or not _increases(numbers):
        raise InputError(
            f"the curve's {name} are {numbers.tolist()}; expected numbers that increase by at least {SMALLEST_STEP:g}; change them"
        )


def _increases(numbers: Tensor) -> bool:
    return bool((numbers.diff() >= SMALLEST_STEP).all())


def curve_through(positions: Tensor, values: Tensor) -> HermiteCurve:
    """The curve through knots, as a `MonotoneCurve` where the values increase.

    Raises:
        InputError: as `HermiteCurve`.
    """
    return (MonotoneCurve if _increases(values) else HermiteCurve)(positions, values)


def tissue_curve(positions: Sequence[float], values: Sequence[float] | Tensor) -> MonotoneCurve:
    """The curve through 0 and the typical intensities of CSF, grey matter and white matter.

    Args:
        positions: intensities of CSF, grey and white matter in the image, increasing, greater than 0.
        values: in the measurement, three numbers or a tensor ``(3,)`` or ``(batch, 3)``, increasing, greater than 0.

    Raises:
        InputError: they do not increase, or are not three.
    """
    knots = torch.as_tensor(positions, dtype=torch.float32)
    images = values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float32)
    if knots.shape != (3,) or images.ndim not in (1, 2) or images.shape[-1] != 3:
        raise InputError(
            f"the curve has {knots.numel()} tissues and values of shape {tuple(images.shape)}; expected CSF, grey and white matter; "
            "give three numbers each"
        )
    return MonotoneCurve(torch.cat([knots.new_zeros(1), knots]), torch.cat([images.new_zeros(*images.shape[:-1], 1), images], -1))


def _interval(x: Tensor, knots: Tensor) -> Tensor:
    """Index of the piece between knots ``(knots,)`` or ``(batch, knots)`` that each `x` lies in; the outer ones go on for ever."""
    knots = knots.to(x)
    if knots.ndim == 1:
        return torch.bucketize(x.detach(), knots[1:-1].detach(), right=True)
    index = torch.zeros(x.shape, dtype=torch.long, device=x.device)
    for i in range(1, knots.shape[-1] - 1):
        index = index + (x >= _wide(knots[..., i], x)).long()
    return index


def _at(knots: Tensor, index: Tensor) -> Tensor:
    """Entries of ``(knots,)`` or ``(batch, knots)`` at an index of image shape."""
    if knots.ndim == 1:
        return knots.index_select(0, index.flatten()).view(index.shape)
    return knots.expand(index.shape[0], -1).gather(1, index.flatten(1)).view(index.shape)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values if values.ndim == 0 else values.view(-1, *[1] * (like.ndim - 1))
