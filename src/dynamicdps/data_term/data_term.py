"""One scan's likelihood: what was measured, by which scanner, with which noise, and what of it counts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dynamicdps.data_term.whitening import Whitening
from dynamicdps.operators import IterativeModel, Linearisation, LinearProblem, Noise, Operator, Stack, Weighting
from dynamicdps.operators.operator import Composition
from dynamicdps.operators.parameters import per_image
from dynamicdps.operators.precision import wide


@dataclass(frozen=True, eq=False)
class DataTerm:
    """``y = A(x) + n``: how well images explain a measurement.

    Residuals are weighted, and filtered where the noise is not white: what noise leaves in them is white, of its standard deviation.

    Attributes:
        measurement: y, batch first, image intensities.
        scanner: A.
        noise: of the measurement; a number is the standard deviation of white Gaussian noise.
        weights: how much each measured voxel counts, 0 to 1, ``(height, width)``, ``(depth, height, width)`` or ``(batch, 1, ...)``;
            `None` is 1 everywhere. Where it is 0 the measurement may be anything.
        perturbation: added to `target`: what makes a data step draw a sample; see `perturbed`.
    """

    measurement: Tensor
    scanner: Operator
    noise: Noise
    weights: Tensor | None = None
    perturbation: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", Noise.of(self.noise))

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise, image intensities."""
        return self.noise.std

    @cached_property
    def operator(self) -> Operator:
        """From images to what residuals are taken of: A, filtered and weighted."""
        return Composition((*self._outer, self.scanner)) if self._outer else self.scanner

    @cached_property
    def _outer(self) -> tuple[Operator, ...]:
        """What stands before the scanner: weights after the filter."""
        weights = () if self.weights is None else (Weighting(self.weights),)
        return weights if self.noise.spectrum is None else (*weights, Whitening(self.noise.spectrum))

    @cached_property
    def target(self) -> Tensor:
        """The measurement, filtered and weighted as `operator` does it."""
        y = Composition(self._outer)(self.measurement) if self._outer else self.measurement
        return y if self.perturbation is None else y + self.perturbation

    @cached_property
    def measured_fraction(self) -> Tensor:
        """Share of the measurement that counts, ``(batch,)``: what noise alone leaves of a mean square of 1."""
        return self.operator.measured_fraction(self.target)

    def residual(self, x: Tensor) -> Tensor:
        """``y - A(x)`` in image intensities, weighted and with white noise.

        Raises:
            ValueError: ``A(x)`` has another shape than y.
        """
        predicted = self.operator(x)
        if predicted.shape != self.target.shape:
            raise ValueError(f"A(x) has shape {tuple(predicted.shape)}; expected that of the measurement, {tuple(self.target.shape)}")
        return self.target - predicted

    def whitened(self, x: Tensor) -> Tensor:
        """The residual in standard deviations of the noise: about standard normal where an image explains the measurement."""
        return self.residual(x) / self.noise.std

    def linearise(self, x: Tensor, spread: Tensor | None = None) -> Linearisation:
        """Jacobian products of `operator` near images; the residual is `target` less its value."""
        return self.operator.linearise(x, spread)

    def linear_problem(self, shape: Sequence[int]) -> LinearProblem:
        """What solvers that need a linear operator work on; arguments and errors as `Operator.linear_problem`.

        A contrast is undone on the measurement itself, and the residual is then filtered and weighted as ever.
        """
        if self.operator.is_linear or self.operator is self.scanner or self.perturbation is not None:
            return self.operator.linear_problem(self.target, shape, self.noise.std)
        inner = self.scanner.linear_problem(self.measurement, shape, self.noise.std)
        outer, y = Composition(self._outer).linear, inner.measurement
        assert outer is not None
        model = IterativeModel(
            inner.model.noise_std, lambda x: outer(inner.model(x)), lambda w: inner.model.adjoint(outer.adjoint(w, y.shape))
        )
        return LinearProblem(model, outer(y), inner.warnings)

    def misfit(self, x: Tensor) -> Tensor:
        """Root mean square of `whitened` over what counts, ``(batch,)``; 1 where only noise is left."""
        return self.rms(self.whitened(x)).to(self.target.dtype)

    def rms(self, residual: Tensor) -> Tensor:
        """Root mean square of a residual over what counts, ``(batch,)``, in the widest type."""
        return (wide(residual).flatten(1).square().mean(1) / self.measured_fraction).sqrt()

    def excess(self, x: Tensor) -> Tensor:
        """Root mean square of the residual beyond the noise, ``(batch,)``, image intensities: what the start level is read from.

        A mean over measurements with the noise's share taken off: the same for any image size, measurement grid and noise level.
        """
        return excess_misfit(self.residual_over_measured(x), self.noise.std)

    def residual_over_measured(self, x: Tensor) -> Tensor:
        """The residual, scaled so that its mean square is that over what counts: a mask must not make a poor image look like a good one."""
        return self.residual(x) / per_image(self.measured_fraction.sqrt(), self.target)

    def per_slice(self, x: Tensor) -> Tensor:
        """`misfit` of each measured slice along z, ``(batch, depth)``; NaN where nothing of a slice counts."""
        square = wide(self.whitened(x)).square()
        weights = torch.ones_like(self.target) if self.weights is None else Weighting(self.weights)(torch.ones_like(self.target))
        axes = tuple(a for a in range(1, square.ndim) if a != square.ndim - 3 or square.ndim == 4)
        found = (square.sum(axes) / wide(weights).square().sum(axes)).sqrt()
        return found if square.ndim == 5 else found[:, None]

    def select(self, index: Tensor) -> "DataTerm":
        """The term of some images of the batch, by their indices; itself where those are all."""
        if len(index) == len(self.measurement) and bool((index == torch.arange(len(index), device=index.device)).all()):
            return self
        weights = self.weights
        if weights is not None and weights.ndim > 3 and len(weights) > 1:
            weights = weights[index.to(weights.device)]

        def some(values: Tensor) -> Tensor:
            return values[index.to(values.device)]

        drawn = None if self.perturbation is None else some(self.perturbation)
        return replace(self, measurement=some(self.measurement), scanner=self.scanner.select(index), weights=weights, perturbation=drawn)

    def perturbed(self, drawn: Tensor) -> "DataTerm":
        """The term with the noise once more in its target, by standard normal numbers of the target's shape."""
        return replace(self, perturbation=self.noise.std * drawn)

    def to(self, target: torch.device | str | torch.dtype) -> "DataTerm":
        """The term with its measurement on a device or in a type; maps of operators follow where they are used."""
        return replace(self, measurement=self.measurement.to(target))


def excess_misfit(residual: Tensor, noise_std: float) -> Tensor:
    """Root mean square of a residual beyond the noise, ``(batch,)``, in its units."""
    mean_square = wide(residual).flatten(1).square().mean(1)
    return (mean_square - noise_std**2).clamp_min(0).sqrt().to(residual.dtype)


def join(terms: Sequence[DataTerm]) -> DataTerm:
    """Several measurements of the same images as one data term; of one term itself.

    The measurements stand one after the other as ``(batch, values)``, each scaled so that all have the noise of the quietest.

    Raises:
        ValueError: there is no term.
    """
    if not terms:
        raise ValueError("there is no data term; expected one or more")
    if len(terms) == 1:
        return terms[0]
    std = min(term.noise.std for term in terms)
    factors = tuple(std / term.noise.std for term in terms)
    stack = Stack(tuple(term.operator for term in terms), factors, tuple(tuple(term.target.shape[1:]) for term in terms))
    y = torch.cat([factor * term.target.flatten(1) for factor, term in zip(factors, terms, strict=True)], 1)
    return DataTerm(y, stack, Noise(std))


def pooled_residual(terms: Sequence[DataTerm], x: Tensor) -> tuple[Tensor, float]:
    """What is left of all measurements to explain, in image intensities, and the standard deviation of its noise.

    Of one term this is the residual itself. Of several it is its root mean square ``(batch, 1)`` over all measured values: they count by
    their number, whatever their noise, because the error of an image is what the start level answers to.
    """
    if len(terms) == 1:
        return terms[0].residual_over_measured(x), terms[0].noise.std
    counts = [term.target[0].numel() * wide(term.measured_fraction) for term in terms]
    squares = [term.rms(term.residual(x)).square() for term in terms]
    total = torch.stack(counts).sum(0)
    mean = torch.stack([n * s for n, s in zip(counts, squares, strict=True)]).sum(0) / total
    noise = torch.stack([n * term.noise.std**2 for n, term in zip(counts, terms, strict=True)]).sum(0) / total
    # One noise for all images, whoever they are: that of measurements without masks. What masks change of an image's own goes into its
    # residual, so that its excess stays.
    sizes = [term.target[0].numel() for term in terms]
    common = sum(n * term.noise.std**2 for n, term in zip(sizes, terms, strict=True)) / sum(sizes)
    return (mean - noise + common).clamp_min(0).sqrt().to(x.dtype)[:, None], common**0.5
