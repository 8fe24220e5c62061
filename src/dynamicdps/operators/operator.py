"""Operators: what a scanner makes of an image, and their algebra."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from functools import cached_property, reduce
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import Curve
from dynamicdps.operators.linear import DataSpectrum, IterativeModel, LinearModel, may_wait
from dynamicdps.operators.parameters import differs_per_image, from_plain, to_plain, to_text
from dynamicdps.operators.precision import wide_type
from dynamicdps.operators.sampling import measured_size
from dynamicdps.volumes.grids import Grid

# From step lengths to points and velocities.
SearchCurve = Callable[[Tensor], tuple[Tensor, Tensor]]
Size = tuple[int, int, int]
# Image voxels that a scanner's voxel covers along an axis, at most.
_LARGEST = 1024


class Linearisation:
    """An operator near one image: ``A(x + p) = value + jvp(p)`` to first order.

    Args:
        value: ``A(x)``, measurement shape, or what computes it.
        jvp: Jacobian times a vector of image shape.
        vjp: its transpose times a vector of measurement shape.
    """

    def __init__(self, value: Tensor | Callable[[], Tensor], jvp: Callable[[Tensor], Tensor], vjp: Callable[[Tensor], Tensor]) -> None:
        self._value, self.jvp, self.vjp = value, jvp, vjp

    @property
    def value(self) -> Tensor:
        """``A(x)``, computed when it is first asked for: who linearises often knows it."""
        if not isinstance(self._value, Tensor):
            self._value = self._value()
        return self._value

    def row_sums(self, like: Tensor) -> Tensor:
        """``J J^T 1``, measurement shape."""
        return self.jvp(self.vjp(torch.ones_like(like)))

    def coloured(self, colour: Callable[[Tensor], Tensor]) -> "Linearisation":
        """Products with ``J^T`` followed by a symmetric matrix K of image shape: ``J K J^T`` is what row sums are of."""
        return Linearisation(lambda: self.value, self.jvp, lambda w: colour(self.vjp(w)))


@dataclass(frozen=True)
class LinearProblem:
    """An inverse problem as linear solvers see it.

    Attributes:
        model: H with its noise.
        measurement: y, such that ``y = H x + n``.
        warnings: what was changed to make it linear, one sentence each.
    """

    model: LinearModel
    measurement: Tensor
    warnings: list[str]


class Operator(ABC):
    """Forward model ``y = A(x)`` of a scanner without its noise, on a batch.

    Images have shape ``(batch, 1, height, width)`` (single slices) or ``(batch, 1, depth, height, width)`` (volumes), range [0, 1].
    What `forward` does to one image never depends on the others of the batch. ``A1 @ A2`` is A1 after A2, ``A1 + A2`` their sum and
    ``2.0 * A`` a multiple; a `Stack` holds several operators of one image.

    Most operators are a `LinearOperator` or a `Scanner`. One that is neither needs `forward` and its grids only: its Jacobian products come
    from automatic differentiation, and solvers that need a linear operator refuse it.

    An operator that is a dataclass prints, and goes to a file and back, by its fields. Parameters that are tensors ``(batch,)``
    differ per image; how a field holds another tensor says `dynamicdps.operators.parameters`.

    The noise is no part of it: it is the data term's, and a `ScanOperator`'s, which is what a file holds.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``A(x)``; differentiable."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def __matmul__(self, inner: "Operator") -> "Composition":
        """``(A1 @ A2)(x) = A1(A2(x))``."""
        return Composition((self, inner))

    def __add__(self, other: "Operator") -> "Sum":
        """``(A1 + A2)(x) = A1(x) + A2(x)``; both measure on one grid."""
        return Sum((self, other))

    def __rmul__(self, factor: float) -> "Composition":
        """``(a * A)(x) = a A(x)``."""
        return Composition((Multiple(float(factor)), self))

    @property
    def parts(self) -> "Sequence[Operator]":
        """The operators that it is made of, the outermost first."""
        return ()

    @property
    def linear(self) -> "LinearOperator | None":
        """L of ``A(x) = L c(x)``: what mixes and hides; `None` where the operator is not of this form."""
        return None

    @property
    def contrast(self) -> Curve | None:
        """The pointwise c of ``A(x) = L c(x)``; `None` where there is none or the operator is not of this form."""
        return None

    @property
    def is_linear(self) -> bool:
        """Whether ``A(a x + b z) = a A(x) + b A(z)``."""
        return False

    @property
    def couples_slices(self) -> bool:
        """Whether a measured slice depends on several image slices, so that only whole volumes make sense."""
        return False

    @property
    def is_pointwise(self) -> bool:
        """Whether each measured voxel is a function of the one at its place: nothing is mixed, nothing hidden."""
        return self.linear is not None and self.linear is not self and self.linear.is_pointwise

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        """``A^T w``.

        Args:
            w: measurements, batch first.
            shape: of the images.

        Raises:
            InputError: the operator is not linear.
        """
        if self.linear is None or not self.is_linear:
            raise InputError(
                f"{type(self).__name__} is not linear; expected a linear operator for an adjoint; use the products that linearise gives"
            )
        return self.linear.adjoint(w, shape)

    def linear_problem(self, y: Tensor, shape: Sequence[int], noise_std: float) -> LinearProblem:
        """What solvers that need a linear operator work on.

        Args:
            y: measurements.
            shape: of the images.
            noise_std: standard deviation of the measurements' noise.

        Raises:
            InputError: the operator is not linear and does not know how to become so.
        """
        raise InputError(
            f"{type(self).__name__} is not linear; expected a linear operator for this solver; choose dynamicdps, dps or red-diff"
        )

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        """``A(x)`` with Jacobian products near `x`, by automatic differentiation unless the operator knows better.

        Args:
            x: images.
            spread: how far from `x` the products should be good, broadcastable to `x`; where A bends within it, an operator may
                give secants instead of tangents. Without it they are the Jacobian's.
        """
        del spread
        value, pullback, *_ = torch.func.vjp(self.forward, x)
        return Linearisation(value, lambda p: torch.func.jvp(self.forward, (x,), (p,))[1], lambda w: pullback(w)[0])

    def search_curve(self, x: Tensor, direction: Tensor, spread: Tensor | None = None) -> SearchCurve:
        """A curve through `x` for line searches: straight, unless the operator knows coordinates in which it is nearer to linear.

        Args:
            x: images.
            direction: solution of a problem linearised with the same `spread`, same shape.
            spread: as for `linearise`.

        Returns:
            From step lengths, broadcastable to `x`, to the points there and the velocities.
        """
        del spread
        return lambda step: (x + step * direction, direction)

    @property
    def is_straight_along_search(self) -> bool:
        """Whether ``A(curve(s)) = A(x) + s J d`` exactly, with J from `linearise` for the same spread: a search needs no further A."""
        return self.is_linear

    def typical_value(self, x: float) -> float:
        """Where an intensity goes in tissue that is the same all around: what the contrast makes of it."""
        return x

    def measured_fraction(self, y: Tensor) -> Tensor:
        """Share of each measurement that is measured, ``(batch,)``, above 0: what noise alone leaves of a mean square of 1."""
        return torch.ones(len(y), dtype=wide_type(y.device), device=y.device)

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        """The spectrum of ``L L^T``, where it is known and cheap; it only speeds data steps up.

        Args:
            shape: of the images.
            like: a measurement.
            mixing: M, ``(depth, depth)``: then of ``L M M^T L^T``, with M along z of the image.
        """
        return None if self.linear is None or self.linear is self else self.linear.data_spectrum(shape, like, mixing)

    def select(self, index: Tensor) -> Self:
        """The operator of some images of the batch, by their indices; itself where no parameter differs per image."""
        chosen = {f.name: value[index.to(value.device)] for f, value in self._parameters() if differs_per_image(f, value)}
        return replace(self, **chosen) if chosen else self  # type: ignore[type-var]

    @abstractmethod
    def grid(self, image: Grid) -> Grid:
        """The scanner's grid for an image grid: its size, and where it lies."""

    def covered_shape(self, measured: Size) -> Size:
        """The largest image grid whose measurement has a size; for finding the image grid of a scan."""

        def largest(axis: int) -> int:
            low, high = 1, _LARGEST * measured[axis]
            while low < high:
                middle = (low + high + 1) // 2
                size: Size = tuple(middle if i == axis else 1 for i in range(3))  # type: ignore[assignment]
                fits = self.grid(Grid(size, np.eye(4))).shape[axis] <= measured[axis]
                low, high = (middle, high) if fits else (low, middle - 1)
            return low

        return largest(0), largest(1), largest(2)

    def to_json(self) -> dict[str, Any]:
        """Type and parameters as plain values.

        Raises:
            ValueError: a parameter differs per image.
        """
        return {"type": type(self).__name__} | {f.name: to_plain(f, value) for f, value in self._parameters()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; what is not a parameter is left alone, what is missing has its default.

        Raises:
            InputError: a parameter is out of its range.
            KeyError, TypeError, ValueError: a value is missing or of another kind.
        """
        known: tuple[Field[Any], ...] = fields(cls) if is_dataclass(cls) else ()
        return cls(**{f.name: from_plain(f, values[f.name]) for f in known if f.name in values})

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{f.name}={to_text(f, value)}' for f, value in self._parameters())})"

    def _parameters(self) -> list[tuple[Field[Any], Any]]:
        return [(f, getattr(self, f.name)) for f in fields(self)] if is_dataclass(self) else []


class LinearOperator(Operator):
    """An operator with ``A(a x + b z) = a A(x) + b A(z)``: it is its own Jacobian."""

    @property
    def linear(self) -> "LinearOperator":
        return self

    @property
    def is_linear(self) -> bool:
        return True

    @property
    def mixing_part(self) -> "LinearOperator | None":
        """The operator without what is pointwise around it; `None` where several parts mix voxels."""
        return self

    @property
    def H(self) -> "Adjoint":  # noqa: N802 - the field's name
        """The adjoint as an operator; its images lie on the largest grid that a measurement covers."""
        return Adjoint(self)

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        _, pullback, *_ = torch.func.vjp(self.forward, torch.zeros(tuple(shape), dtype=w.dtype, device=w.device))
        (out,) = pullback(w)
        return out  # type: ignore[no-any-return]

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        del spread
        return Linearisation(lambda: self.forward(x), self.forward, lambda w: self.adjoint(w, x.shape))

    def linear_problem(self, y: Tensor, shape: Sequence[int], noise_std: float) -> LinearProblem:
        return LinearProblem(self.model(shape, y, noise_like(y, noise_std)), y, [])

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        """The operator with what linear solvers need of it: by its singular values where they are known, else iterative.

        Args:
            shape: of the images.
            like: a measurement.
            noise_std: ``(batch,)`` or ``(1,)``.
        """
        del like
        return IterativeModel(noise_std, self.forward, lambda w: self.adjoint(w, shape))


class SameGrid(Operator):
    """An operator that measures on the image grid."""

    def grid(self, image: Grid) -> Grid:
        return image


class CentredGrid(Operator):
    """An operator that measures on a grid of larger voxels with the image grid's centre."""

    @property
    @abstractmethod
    def _factors(self) -> tuple[float, float, float]:
        """Length of a scanner voxel in image voxels along x, y, z."""

    def grid(self, image: Grid) -> Grid:
        x, y, z = (measured_size(n, f) for n, f in zip(image.shape, self._factors, strict=True))
        place = np.eye(4)
        for axis, (size, count, factor) in enumerate(zip(image.shape, (x, y, z), self._factors, strict=True)):
            place[axis, axis] = factor
            place[axis, 3] = (size - 1) / 2 - factor * (count - 1) / 2
        return Grid((x, y, z), image.affine @ place, image.native)


class Scanner(Operator):
    """``A(x) = L c(x)``: an increasing contrast c on each intensity, then a linear part L.

    What a contrast asks for is written here once: slopes and secants, the curve along which a line search goes, and how a linear solver
    sees it. `LowField` and `Contrast` are scanners, and compositions and other wrappers of scanners are.

    Args:
        linear: L.
        contrast: c; `None` for none.
    """

    def __init__(self, linear: LinearOperator, contrast: Curve | None = None) -> None:
        self._linear, self._contrast = linear, contrast

    @property
    def linear(self) -> LinearOperator | None:
        return self._linear

    @property
    def contrast(self) -> Curve | None:
        return self._contrast

    @property
    def parts(self) -> Sequence[Operator]:
        return () if self.linear is None else (self.linear,)

    @property
    def _outer(self) -> LinearOperator:
        """L, which gives the grids."""
        assert self.linear is not None
        return self.linear

    @property
    def is_linear(self) -> bool:
        return self.linear is not None and (self.contrast is None or self.contrast.is_identity)

    @property
    def couples_slices(self) -> bool:
        return self._outer.couples_slices

    def forward(self, x: Tensor) -> Tensor:
        return self._outer(x if self.contrast is None else self.contrast(x))

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        linear = self.linear
        if linear is None or self.contrast is None:
            return super().linearise(x, spread) if linear is None else linear.linearise(x)
        slope = self.contrast.slope(x, spread)
        return Linearisation(lambda: self.forward(x), lambda p: linear(slope * p), lambda w: slope * linear.adjoint(w, x.shape))

    def search_curve(self, x: Tensor, direction: Tensor, spread: Tensor | None = None) -> SearchCurve:
        """Where the contrast is steep at its dark end a straight line in contrast ``c(x)``, where the data term is exactly quadratic.

        In image intensities the slope of the contrast at 0 would stop every step at the first background pixel.
        """
        contrast = self.contrast
        if self.linear is None or contrast is None:
            return super().search_curve(x, direction)
        # Parameters live on the CPU, where looking at them waits for nothing.
        bend = contrast.steep_when_dark(torch.empty([1] * x.ndim, dtype=x.dtype))
        if not bool(bend.any()):
            return super().search_curve(x, direction)
        all_bend, bend = bool(bend.all()), bend.to(x.device)
        speed, origin = contrast.slope(x, spread) * direction, contrast(x)

        def at(step: Tensor) -> tuple[Tensor, Tensor]:
            if may_wait(step):
                curved = torch.where(step == 0, x, contrast.inverse(origin + step * speed))
            else:
                curved = contrast.inverse(origin + step * speed) if bool(step.any()) else x
            velocity = speed / contrast.slope(curved)
            if all_bend:
                return curved, velocity
            return torch.where(bend, curved, x + step * direction), torch.where(bend, velocity, direction)

        return at

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        found = super().data_spectrum(shape, like, mixing)
        flat = self.contrast is not None and self.contrast.may_be_flat
        return replace(found, may_be_flat=True) if found is not None and flat else found

    @property
    def is_straight_along_search(self) -> bool:
        return self.linear is not None and (self.contrast is None or self.contrast.is_straight_along_search)

    def typical_value(self, x: float) -> float:
        return x if self.contrast is None else self.contrast.typical_value(x)

    def measured_fraction(self, y: Tensor) -> Tensor:
        return self._outer.measured_fraction(y)

    def grid(self, image: Grid) -> Grid:
        return self._outer.grid(image)

    def covered_shape(self, measured: Size) -> Size:
        return self._outer.covered_shape(measured)

    def linear_problem(self, y: Tensor, shape: Sequence[int], noise_std: float) -> LinearProblem:
        """L; a contrast is undone on the measurement first.

        That is exact only where the image is constant over what L mixes: contrast and averaging do not commute. The noise is then that of
        each intensity divided by the slope there; the model has its root mean square over each image.

        Raises:
            InputError: L changes what is constant, so that the contrast cannot be undone behind it.
        """
        linear = self.linear
        if linear is None or (not self.is_linear and not _keeps_constants(linear, shape, y)):
            return super().linear_problem(y, shape, noise_std)
        noise, warnings = noise_like(y, noise_std), []
        if self.contrast is not None and not self.is_linear:
            y = self.contrast.inverse(y)
            noise = float(noise) * self.contrast.slope(y).pow(-2).flatten(1).mean(1).sqrt()
            warnings = [
                "the contrast was undone on the measurement, because the solver needs a linear operator; that is not exact at edges"
            ]
        return LinearProblem(linear.model(shape, y, noise), y, warnings)


def noise_like(y: Tensor, noise_std: float) -> Tensor:
    """The noise's standard deviation ``(1,)`` with the measurement's type and device."""
    return torch.full((1,), noise_std, dtype=y.dtype, device=y.device)


def _keeps_constants(linear: LinearOperator, shape: Sequence[int], like: Tensor) -> bool:
    """Whether an image of ones is measured as ones."""
    ones = torch.ones((1, *shape[1:]), dtype=like.dtype, device=like.device)
    measured = linear.select(torch.zeros(1, dtype=torch.long))(ones)
    return measured.shape[1:] == like.shape[1:] and bool((measured - 1).abs().max() < 1e-3)


class _Chain(Operator):
    """What operators one after the other have in common, the outermost first."""

    operators: tuple[Operator, ...]

    @property
    def parts(self) -> Sequence[Operator]:
        return self.operators

    @property
    def couples_slices(self) -> bool:
        return any(part.couples_slices for part in self.operators)

    def forward(self, x: Tensor) -> Tensor:
        return reduce(lambda value, part: part(value), reversed(self.operators), x)

    def typical_value(self, x: float) -> float:
        return reduce(lambda value, part: part.typical_value(value), reversed(self.operators), x)

    def measured_fraction(self, y: Tensor) -> Tensor:
        return self.operators[0].measured_fraction(y)

    def select(self, index: Tensor) -> Self:
        return replace(self, operators=tuple(part.select(index) for part in self.operators))  # type: ignore[type-var]

    def grid(self, image: Grid) -> Grid:
        return reduce(lambda grid, part: part.grid(grid), reversed(self.operators), image)

    def covered_shape(self, measured: Size) -> Size:
        return reduce(lambda shape, part: part.covered_shape(shape), self.operators, measured)

    def to_json(self) -> dict[str, Any]:
        return {"type": "Composition", "operators": [part.to_json() for part in self.operators]}

    def __str__(self) -> str:
        return " @ ".join(map(str, self.operators))


@dataclass(frozen=True, eq=False)
class Composition(_Chain, Scanner):
    """``A(x) = A1(A2(... x))``; compositions in it are taken apart. ``A1 @ A2`` makes one.

    Linear after linear is linear, and linear after a scanner is a scanner. A contrast that comes after mixing is neither: there automatic
    differentiation has to do.

    Attributes:
        operators: the outermost first.

    Raises:
        InputError: there is none, or something in it is not an operator.
    """

    operators: tuple[Operator, ...]

    def __post_init__(self) -> None:
        if not self.operators or not all(isinstance(part, Operator) for part in self.operators):
            raise InputError(f"a composition has {len(self.operators)} parts; expected one operator or more, nothing else")
        flat = [p for part in self.operators for p in (part.operators if isinstance(part, _Chain) else (part,))]
        object.__setattr__(self, "operators", tuple(flat))

    @cached_property
    def linear(self) -> LinearOperator | None:
        parts = tuple(part.linear for part in self.operators if part.linear is not None)
        if len(parts) < len(self.operators) or not all(part.is_linear for part in self.operators[:-1]):
            return None
        return _LinearChain(parts)

    @property
    def contrast(self) -> Curve | None:
        return self.operators[-1].contrast


@dataclass(frozen=True, eq=False)
class _LinearChain(_Chain, LinearOperator):
    """The linear part of a `Composition`."""

    operators: tuple[LinearOperator, ...]

    @property
    def is_pointwise(self) -> bool:
        return all(part.is_pointwise for part in self.operators)

    @property
    def mixing_part(self) -> LinearOperator | None:
        mixers = [part for part in self.operators if not part.is_pointwise]
        return mixers[0].mixing_part if len(mixers) == 1 else None

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        shapes = [tuple(shape)]
        for part in reversed(self.operators[1:]):
            depth, height, width = (1, *shapes[-1][2:])[-3:]
            measured = part.grid(Grid((width, height, depth), np.eye(4))).shape[::-1]
            shapes.append((*shapes[-1][:2], *measured[5 - len(shape) :]))
        return reduce(lambda v, step: step[0].adjoint(v, step[1]), zip(self.operators, reversed(shapes), strict=True), w)

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        if len(self.operators) == 1:
            return self.operators[0].model(shape, like, noise_std)
        return super().model(shape, like, noise_std)

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        mixers = [part for part in self.operators if not part.is_pointwise]
        return mixers[0].data_spectrum(shape, like, mixing) if len(mixers) == 1 else None


@dataclass(frozen=True, eq=False)
class Multiple(LinearOperator, SameGrid):
    """``A(x) = a x``; ``a * A`` makes one.

    Attributes:
        factor: a.
    """

    factor: float

    @property
    def is_pointwise(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        return self.factor * w


@dataclass(frozen=True, eq=False)
class OperatorTuple(Operator):
    """What a `Sum` and a `Stack` have in common; the grids are the first operator's.

    Attributes:
        operators: of one image, at least one.
    """

    operators: tuple[Operator, ...]

    @property
    def parts(self) -> Sequence[Operator]:
        return self.operators

    @property
    def is_linear(self) -> bool:
        return all(part.is_linear for part in self.operators)

    @property
    def couples_slices(self) -> bool:
        return any(part.couples_slices for part in self.operators)

    def select(self, index: Tensor) -> Self:
        return replace(self, operators=tuple(part.select(index) for part in self.operators))

    def grid(self, image: Grid) -> Grid:
        return self.operators[0].grid(image)

    def to_json(self) -> dict[str, Any]:
        raise InputError(f"a {type(self).__name__} has no file; expected an operator that has; write its operators one by one")

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.operators))})"


@dataclass(frozen=True, eq=False)
class Sum(OperatorTuple):
    """``A(x) = A1(x) + A2(x) + ...``; all measure on one grid. ``A1 + A2`` makes one."""

    def forward(self, x: Tensor) -> Tensor:
        return reduce(torch.add, (part(x) for part in self.operators))

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        return reduce(torch.add, (part.adjoint(w, shape) for part in self.operators))

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        near = [part.linearise(x, spread) for part in self.operators]
        return Linearisation(
            lambda: reduce(torch.add, (each.value for each in near)),
            lambda p: reduce(torch.add, (each.jvp(p) for each in near)),
            lambda w: reduce(torch.add, (each.vjp(w) for each in near)),
        )


@dataclass(frozen=True, eq=False)
class Adjoint(LinearOperator):
    """``A^T`` of a linear operator, from measurements to images on the largest grid that they cover; ``A.H`` makes one.

    Attributes:
        operator: A.
    """

    operator: LinearOperator

    @property
    def parts(self) -> Sequence[Operator]:
        return (self.operator,)

    @property
    def couples_slices(self) -> bool:
        return self.operator.couples_slices

    def forward(self, x: Tensor) -> Tensor:
        depth, height, width = (1, *x.shape[2:])[-3:]
        covered = self.operator.covered_shape((width, height, depth))[::-1]
        return self.operator.adjoint(x, (len(x), 1, *covered[5 - x.ndim :]))

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        return self.operator(w)

    def select(self, index: Tensor) -> "Adjoint":
        return Adjoint(self.operator.select(index))

    def grid(self, image: Grid) -> Grid:
        shape = self.operator.covered_shape(image.shape)
        place = self.operator.grid(Grid(shape, np.eye(4))).affine
        return Grid(shape, image.affine @ np.linalg.inv(place), image.native)

    def covered_shape(self, measured: Size) -> Size:
        return self.operator.grid(Grid(measured, np.eye(4))).shape
