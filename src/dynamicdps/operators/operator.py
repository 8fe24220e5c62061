"""What every forward operator offers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.linear import DataSpectrum, IterativeModel, LinearModel
from dynamicdps.operators.parameters import differs_per_image, from_plain, to_plain, to_text
from dynamicdps.operators.precision import wide_type

if TYPE_CHECKING:
    from dynamicdps.operators.composition import Composition


# From step lengths to points and velocities.
SearchCurve = Callable[[Tensor], tuple[Tensor, Tensor]]


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
    """Forward model ``y = A(x) + noise`` of a scanner, on a batch.

    Images have shape ``(batch, 1, height, width)`` (single slices) or ``(batch, 1, depth, height, width)`` (volumes), range [0, 1].
    What `forward` does to one image never depends on the others of the batch. ``A1 @ A2`` is A1 after A2.

    An operator that is a dataclass prints, and goes to a file and back, by its fields. Parameters that are tensors ``(batch,)``
    differ per image; how a field holds another tensor says `dynamicdps.operators.parameters`.

    Attributes:
        noise_std: standard deviation of the measurement's noise as a share of the intensity range, greater than 0.
    """

    noise_std: float

    @property
    def is_linear(self) -> bool:
        """Whether ``A(a x + b z) = a A(x) + b A(z)``."""
        return False

    def linear_problem(self, y: Tensor, shape: Sequence[int]) -> LinearProblem:
        """What solvers that need a linear operator work on.

        Args:
            y: measurements.
            shape: of the images.

        Raises:
            InputError: the operator is not linear and does not know how to become so.
        """
        if not self.is_linear:
            raise InputError(
                f"{type(self).__name__} is not linear; expected a linear operator for this solver; choose dynamicdps, dps or red-diff"
            )
        return LinearProblem(IterativeModel(self.noise_like(y), self.forward, lambda w: self.adjoint(w, shape)), y, [])

    def noise_like(self, y: Tensor) -> Tensor:
        """The noise's standard deviation ``(1,)`` with the measurement's type and device."""
        return torch.full((1,), self.noise_std, dtype=y.dtype, device=y.device)

    def counted(self, y: Tensor) -> Tensor:
        """Share of each measurement that counts, ``(batch,)``, greater than 0: what noise alone leaves of a mean square of 1."""
        return torch.ones(len(y), dtype=wide_type(y.device), device=y.device)

    @property
    def acts_on_voxels(self) -> bool:
        """Whether each measured voxel is a function of the one at its place: nothing is mixed, nothing hidden."""
        return False

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        """The spectrum of ``A A^T`` of what mixes voxels, where it is known and cheap; it only speeds data steps up.

        Args:
            shape: of the images.
            like: a measurement.
            mixing: L, ``(depth, depth)``: then of ``A L L^T A^T``, with L along z of the image.
        """
        del shape, like, mixing
        return None

    @property
    def couples_slices(self) -> bool:
        """Whether a measured slice depends on several image slices, so that only whole volumes make sense."""
        return False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``A(x)`` without noise; differentiable."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def __matmul__(self, inner: "Operator") -> "Composition":
        """``(A1 @ A2)(x) = A1(A2(x))``."""
        from dynamicdps.operators.composition import Composition

        return Composition((self, inner))

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        """``A^T w``.

        Args:
            w: measurements, batch first.
            shape: of the images.

        Raises:
            InputError: the operator is not linear.
        """
        if not self.is_linear:
            raise InputError(
                f"{type(self).__name__} is not linear; expected a linear operator for an adjoint; use the products that linearise gives"
            )
        return self.linearise(torch.zeros(tuple(shape), dtype=w.dtype, device=w.device)).vjp(w)

    def typical_value(self, x: float) -> float:
        """Where an intensity goes in tissue that is the same all around: what the contrast makes of it."""
        return x

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
        """A curve through `x` for line searches.

        A straight line, unless the operator knows coordinates in which it is nearer to linear.

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
    def straightens(self) -> bool:
        """Whether ``A(curve(s)) = A(x) + s J d`` exactly, with J from `linearise` for the same spread: a search needs no further A."""
        return self.is_linear

    def select(self, index: Tensor) -> Self:
        """The operator of some images of the batch, by their indices; itself where no parameter differs per image."""
        found = {f.name: value[index.to(value.device)] for f, value in self._parameters() if differs_per_image(f, value)}
        return replace(self, **found) if found else self  # type: ignore[type-var]

    @abstractmethod
    def measurement_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Scanner grid ``(x, y, z)`` for an image grid ``(x, y, z)``."""

    @abstractmethod
    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Image grid ``(x, y, z)`` for a scanner grid ``(x, y, z)``: the largest one that it covers."""

    @abstractmethod
    def voxel_factors(self) -> tuple[float, float, float]:
        """Length of a scanner voxel in image voxels along x, y, z; both grids share their centre."""

    def voxel_map(self, image: tuple[int, int, int], measured: tuple[int, int, int]) -> NDArray[np.float64]:
        """Affine from scanner voxel indices to image voxel indices, ``(4, 4)``.

        Args:
            image: image grid ``(x, y, z)``.
            measured: scanner grid ``(x, y, z)``.
        """
        out = np.eye(4)
        for axis, (size, count, factor) in enumerate(zip(image, measured, self.voxel_factors(), strict=True)):
            out[axis, axis] = factor
            out[axis, 3] = (size - 1) / 2 - factor * (count - 1) / 2
        return out

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
    def is_linear(self) -> bool:
        return True

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        _, pullback, *_ = torch.func.vjp(self.forward, torch.zeros(tuple(shape), dtype=w.dtype, device=w.device))
        (out,) = pullback(w)
        return out  # type: ignore[no-any-return]

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        del spread
        return Linearisation(lambda: self.forward(x), self.forward, lambda w: self.adjoint(w, x.shape))


class SameGrid(Operator):
    """An operator that measures on the image grid."""

    def measurement_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return shape

    def image_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return shape

    def voxel_factors(self) -> tuple[float, float, float]:
        return 1.0, 1.0, 1.0
