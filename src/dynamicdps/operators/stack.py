"""Several operators of one image as one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.linear import DataSpectrum, IterativeModel, diagonal_preconditioner
from dynamicdps.operators.operator import Linearisation, LinearProblem, Operator, OperatorTuple, SearchCurve, noise_like
from dynamicdps.operators.parameters import per_image


@dataclass(frozen=True, eq=False)
class Stack(OperatorTuple):
    """Several operators of one image: ``A(x)`` is ``(f1 A1(x), f2 A2(x), ...)``, one after the other as ``(batch, values)``.

    Attributes:
        factors: f, one an operator; 1 by default.
        shapes: of each operator's measurements without the batch; by default measured anew from the image's shape each time.
    """

    factors: tuple[float, ...] | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None

    @property
    def _parts(self) -> list[tuple[float, Operator]]:
        return list(zip(self.factors or (1.0,) * len(self.operators), self.operators, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([factor * part(x).flatten(1) for factor, part in self._parts], 1)

    def split(self, y: Tensor, shape: Sequence[int]) -> list[Tensor]:
        """The measurements in a stacked one, each in its own shape, times their factors.

        Args:
            y: ``(batch, values)``.
            shape: of the images.
        """
        shapes = self.shapes
        if shapes is None:
            image = torch.zeros((1, *shape[1:]), dtype=y.dtype, device=y.device)
            shapes = tuple(tuple(part.select(torch.zeros(1, dtype=torch.long))(image).shape[1:]) for part in self.operators)
        parts = torch.split(y, [prod(each) for each in shapes], 1)
        return [part.reshape(len(y), *each) for part, each in zip(parts, shapes, strict=True)]

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        pairs = zip(self._parts, self.split(w, shape), strict=True)
        return reduce(torch.add, (part.adjoint(factor * each, shape) for (factor, part), each in pairs))

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        return _StackedLinearisation(self, [part.linearise(x, spread) for part in self.operators], x.shape)

    def search_curve(self, x: Tensor, direction: Tensor, spread: Tensor | None = None) -> SearchCurve:
        """The curve of all operators where they have one contrast; else straight: no curve is right for several contrasts."""
        return self.operators[0].search_curve(x, direction, spread) if self._has_one_contrast else super().search_curve(x, direction)

    @property
    def is_straight_along_search(self) -> bool:
        return self.is_linear or (self._has_one_contrast and all(part.is_straight_along_search for part in self.operators))

    @property
    def _has_one_contrast(self) -> bool:
        first = self.operators[0].contrast
        return all(part.linear is not None for part in self.operators) and all(
            (part.contrast is None) if first is None else first.is_same(part.contrast) for part in self.operators
        )

    def measured_fraction(self, y: Tensor) -> Tensor:
        if self.shapes is None:
            raise InputError("the stack does not know the shapes of its measurements; expected `shapes`; give them")
        counts = [prod(shape) for shape in self.shapes]
        shares = [part.measured_fraction(each) for part, each in zip(self.operators, self.split(y, ()), strict=True)]
        return reduce(torch.add, (count * share for count, share in zip(counts, shares, strict=True))) / sum(counts)

    def linear_problem(self, y: Tensor, shape: Sequence[int], noise_std: float) -> LinearProblem:
        """The operators' own problems, each scaled to noise of `noise_std`."""
        found = [
            part.linear_problem(each / factor, shape, noise_std / factor)
            for (factor, part), each in zip(self._parts, self.split(y, shape), strict=True)
        ]
        scales = [noise_std / problem.model.noise_std for problem in found]
        whole = replace(self, factors=None)

        def forward(x: Tensor) -> Tensor:
            return torch.cat([(per_image(s, m := p.model(x)) * m).flatten(1) for s, p in zip(scales, found, strict=True)], 1)

        def adjoint(w: Tensor) -> Tensor:
            parts = zip(scales, found, whole.split(w, shape), strict=True)
            return reduce(torch.add, (p.model.adjoint(per_image(s, each) * each) for s, p, each in parts))

        joint = torch.cat([(per_image(s, p.measurement) * p.measurement).flatten(1) for s, p in zip(scales, found, strict=True)], 1)
        model = IterativeModel(noise_like(y, noise_std), forward, adjoint)
        return LinearProblem(model, joint, list(dict.fromkeys(w for p in found for w in p.warnings)))

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum:
        found = [part.data_spectrum(shape, each, mixing) for part, each in zip(self.operators, self.split(like, shape), strict=True)]
        return _StackedSpectrum(self, found, shape)


class _StackedLinearisation(Linearisation):
    """The operators of a `Stack` near an image."""

    def __init__(self, stack: Stack, near: Sequence[Linearisation], shape: Sequence[int]) -> None:
        self.stack, self.near, self.shape = stack, near, shape
        super().__init__(self._stacked_value, self._stacked_jvp, self._stacked_vjp)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([factor * part.flatten(1) for (factor, _), part in zip(self.stack._parts, parts, strict=True)], 1)

    def _stacked_value(self) -> Tensor:
        return self._joined([each.value for each in self.near])

    def _stacked_jvp(self, p: Tensor) -> Tensor:
        return self._joined([each.jvp(p) for each in self.near])

    def _stacked_vjp(self, w: Tensor) -> Tensor:
        parts = zip(self.stack._parts, self.near, self.stack.split(w, self.shape), strict=True)
        return reduce(torch.add, (each.vjp(factor * part) for (factor, _), each, part in parts))

    def row_sums(self, like: Tensor) -> Tensor:
        """Row sums of each operator alone: they precondition one block each."""
        parts = zip(self.stack._parts, self.near, self.stack.split(like, self.shape), strict=True)
        return torch.cat([(factor**2 * each.row_sums(part)).flatten(1) for (factor, _), each, part in parts], 1)

    def coloured(self, colour: Callable[[Tensor], Tensor]) -> Linearisation:
        return _StackedLinearisation(self.stack, [each.coloured(colour) for each in self.near], self.shape)


class _StackedSpectrum(DataSpectrum):
    """A preconditioner of one block an operator."""

    def __init__(self, stack: Stack, spectra: Sequence[DataSpectrum | None], shape: Sequence[int]) -> None:
        self.stack, self.spectra, self.shape = stack, spectra, shape

    def preconditioner(self, row_sums: Tensor, r: Tensor, noise: float) -> Callable[[Tensor], Tensor]:
        def block(factor: float, spectrum: DataSpectrum | None, sums: Tensor) -> Callable[[Tensor], Tensor]:
            wide = r.reshape(-1, *[1] * (sums.ndim - 1))
            if spectrum is None:
                return diagonal_preconditioner(sums, wide, noise)
            # The block of f A with noise n is f^2 times that of A with n / f.
            apply = spectrum.preconditioner(sums / factor**2, wide, noise / factor)
            return lambda q: apply(q) / factor**2

        factors = [factor for factor, _ in self.stack._parts]
        blocks = [block(*each) for each in zip(factors, self.spectra, self.stack.split(row_sums, self.shape), strict=True)]

        def whole(q: Tensor) -> Tensor:
            return torch.cat([block(part).flatten(1) for block, part in zip(blocks, self.stack.split(q, self.shape), strict=True)], 1)

        return whole
