"""The data step: the image nearest to the denoiser's that explains the measurement."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dynamicdps.data_term.data_term import DataTerm
from dynamicdps.data_term.error_correlation import ErrorCorrelation
from dynamicdps.data_term.line_search import search
from dynamicdps.operators import Linearisation
from dynamicdps.operators.inner_products import inner, put, take
from dynamicdps.operators.linear import DataSpectrum, conjugate_gradients, diagonal_preconditioner
from dynamicdps.operators.parameters import per_image
from dynamicdps.operators.precision import wide

METHODS = ("gauss-newton", "l-bfgs", "gradient")
MEMORY = 8


@dataclass(frozen=True)
class DataStep:
    """Result of a data step.

    Attributes:
        x: images.
        misfit: rms of ``(y - A(x)) / noise_std``, ``(batch,)``.
        step: length of the last accepted step along its direction, ``(batch,)``; 1 is the full Gauss-Newton step.
        outcome: the line search's `Outcome` of that step, ``(batch,)``.
        operator_calls: applications of A or of its Jacobian, both ways, for an image (the most).
    """

    x: Tensor
    misfit: Tensor
    step: Tensor
    outcome: Tensor
    operator_calls: int


@dataclass(frozen=True)
class _Problem:
    """``f(x) = |whitened residual|^2 / 2 + |L^-1 (x - centre)|^2 / (2 r^2)`` on the images that still run; L is 1 without correlation."""

    term: DataTerm
    centre: Tensor
    r: Tensor
    errors: ErrorCorrelation | None = None

    @property
    def noise(self) -> float:
        return self.term.noise.std

    def select(self, index: Tensor) -> "_Problem":
        if len(index) == len(self.centre):
            return self
        return replace(self, term=self.term.select(index), centre=self.centre[index], r=self.r[index])

    def value(self, residual: Tensor, offset: Tensor | None) -> Tensor:
        """The objective; the offset from the centre is 0 where it is `None`."""
        data = 0.5 * inner(residual, residual) / self.noise**2
        if offset is None:
            return data
        white = self.whiten(offset)
        return data + 0.5 * inner(white, white) / wide(self.r).square()

    def whiten(self, offset: Tensor) -> Tensor:
        return offset if self.errors is None else self.errors.whiten(offset)

    def gradient(self, x: Tensor, residual: Tensor) -> Tensor:
        offset = x - self.centre
        pull = offset if self.errors is None else self.errors.precision(offset)
        return pull / per_image(self.r.square(), x) - self.term.linearise(x).vjp(residual) / self.noise**2


def data_step(
    term: DataTerm,
    centre: Tensor,
    spread: Tensor,
    *,
    start: Tensor | None = None,
    method: str = "gauss-newton",
    line_search: str = "wolfe",
    iterations: int = 4,
    cg_iterations: int = 40,
    cg_tolerance: float = 1e-3,
    tolerance: float = 1e-3,
    discrepancy: float = 0.0,
    errors: ErrorCorrelation | None = None,
) -> DataStep:
    """Minimise ``|whitened residual|^2 / 2 + |x - centre|^2 / (2 spread^2)`` for each image.

    Gauss-Newton: each direction solves the problem with A linearised, in measurement space,
    ``q = r^2 J^T (r^2 J J^T + noise_std^2)^-1 b``, by preconditioned conjugate gradients. In measurement space the system is small
    and well conditioned even where the contrast is steep. The alternatives need a gradient only: L-BFGS (Nocedal and Wright,
    algorithm 7.4) and plain gradient descent. An image that is done leaves the batch.

    Args:
        term: the measurement; of several, `join` makes one.
        centre: images to stay near (the denoiser's output), batch first.
        spread: their expected error r, ``(batch,)``, image intensities, greater than 0.
        start: first iterate; by default `centre`.
        method: ``"gauss-newton"``, ``"l-bfgs"`` or ``"gradient"``.
        line_search: ``"wolfe"``, ``"armijo"`` or ``"constant"``.
        iterations: most steps along a direction.
        cg_iterations: most conjugate-gradient steps for each Gauss-Newton direction.
        cg_tolerance: they end when the preconditioned residual has fallen to this share.
        tolerance: an image is done when a step changes its objective by less than this share.
        discrepancy: an image is done when its misfit is at most this, in standard deviations of the noise (Morozov: 1; the data are
            then explained, and more steps only fit noise); 0 asks for the minimum.
        errors: how alike the centre's errors are in the slices of a volume; independent by default. The offset from the centre is then
            measured by ``K^-1``, so that a correction does not stop at the edge of a measured slice.

    Raises:
        ValueError: the method or the line search is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"the method is {method!r}; expected one of {', '.join(METHODS)}")
    whole = _Problem(term, centre, spread.to(centre.dtype), errors)
    x = centre if start is None else start
    residual = term.residual(x)
    value = whole.value(residual, None if start is None else x - centre)
    misfit = term.rms(residual / term.noise.std)
    step, outcome = torch.zeros_like(value), torch.zeros_like(value, dtype=torch.long)
    calls = torch.ones_like(outcome)
    # An image without any misfit can be far from its minimum too.
    goal = discrepancy if discrepancy > 0 else -1.0
    running = misfit > goal
    memory = _Memory() if method == "l-bfgs" else None
    # Plain gradients have no natural length: the last accepted one is the best guess of the next.
    trial = torch.ones_like(value)
    # Of the direction before, where the next conjugate gradients start.
    dual: Tensor | None = None
    for iteration in range(iterations):
        index = running.nonzero()[:, 0]
        if len(index) == 0:
            break
        part, current, remaining = whole.select(index), take(x, index), take(residual, index)
        if method == "gauss-newton":
            wide = per_image(part.r, current)
            linearised = part.term.linearise(current, wide)
            guess = None if dual is None else take(dual, index)
            centred = iteration == 0 and start is None
            direction, change, w, used = _gauss_newton(part, current, remaining, linearised, centred, guess, cg_iterations, cg_tolerance)
            dual = w if dual is None else put(dual, index, w)
            # What the secant foretells is exact on the operator's own curve.
            phi = _Curve(part, current, remaining, direction, wide, change if part.term.operator.is_straight_along_search else None)
        else:
            direction, used = _descent(part, current, remaining, memory, index)
            phi = _Curve(part, current, remaining, direction)
        value0 = value[index]
        slope0 = phi.slope_at_start()
        guess = torch.ones_like(value0) if method == "gauss-newton" else trial[index]
        limits = {"max_step": 2.0} if method == "gauss-newton" else {"max_trials": 20}
        found = search(line_search, phi, value0, slope0, guess, **limits)
        moved, remaining = phi.at(found.step)
        calls[index] += used + phi.operator_calls
        x, residual = put(x, index, moved), put(residual, index, remaining)
        trial[index] = 2 * found.step
        step[index], outcome[index], value[index] = found.step, found.outcome, found.value
        misfit = put(misfit, index, part.term.rms(remaining / part.noise))
        better = value0 - found.value > tolerance * value0
        running[index] = better & (misfit[index] > goal)
    return DataStep(x, misfit.to(x.dtype), step.to(x.dtype), outcome, int(calls.max()))


class _Curve:
    """The objective along a curve, with its slope; the last point is kept, for it mostly is where the search ends.

    Args:
        part: the problem.
        x: where the curve starts.
        residual: ``y - A(x)``.
        direction: of the curve, image shape.
        spread: of its secants, or `None`: tangents.
        change: ``d/ds A`` along the curve where that is the same everywhere, or `None`.
    """

    def __init__(
        self, part: _Problem, x: Tensor, residual: Tensor, direction: Tensor, spread: Tensor | None = None, change: Tensor | None = None
    ) -> None:
        self.part, self.x, self.residual, self.change = part, x, residual, change
        self.curve = part.term.operator.search_curve(x, direction, spread)
        self.last: tuple[Tensor, Tensor, Tensor] | None = None
        self.operator_calls = 0

    def __call__(self, steps: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        del active
        part = self.part
        trial, velocity = self.curve(per_image(steps, self.x))
        if self.change is not None:
            residual, change = self.residual - per_image(steps, self.change) * self.change, self.change
        else:
            linearised = part.term.linearise(trial)
            residual, change = part.term.target - linearised.value, linearised.jvp(velocity)
            self.operator_calls += 2
        offset = trial - part.centre
        self.last = steps.clone(), trial, residual
        return part.value(residual, offset), self._slope(offset, velocity, residual, change)

    def slope_at_start(self) -> Tensor:
        """The slope where the curve starts and the residual is known, ``(batch,)``."""
        trial, velocity = self.curve(torch.zeros([len(self.x)] + [1] * (self.x.ndim - 1), dtype=self.x.dtype, device=self.x.device))
        change = self.change
        if change is None:
            change = self.part.term.linearise(trial).jvp(velocity)
            self.operator_calls += 1
        return self._slope(trial - self.part.centre, velocity, self.residual, change)

    def _slope(self, offset: Tensor, velocity: Tensor, residual: Tensor, change: Tensor) -> Tensor:
        pull = inner(self.part.whiten(offset), self.part.whiten(velocity)) / wide(self.part.r).square()
        return pull - inner(residual, change) / self.part.noise**2

    def at(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """The image at the accepted steps, with its residual; where a step is 0 the image is the one before."""
        if self.last is not None and bool(((self.last[0] == steps) & (steps > 0)).all()):
            return self.last[1], self.last[2]
        lengths = per_image(steps, self.x)
        moved = torch.where(lengths > 0, self.curve(lengths)[0], self.x)
        if self.change is not None:
            return moved, self.residual - per_image(steps, self.change) * self.change
        self.operator_calls += 1
        return moved, self.part.term.residual(moved)


def _gauss_newton(
    part: _Problem,
    x: Tensor,
    residual: Tensor,
    linearised: Linearisation,
    centred: bool,
    guess: Tensor | None,
    iterations: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Direction p, the change ``J p`` of the measurement along it, the dual solution it comes from, and each image's operator calls.

    `centred` says that the images are at the centre.
    """
    y = part.term.target
    r_meas = per_image(part.r, y)
    offset = x - part.centre
    linear = linearised if part.errors is None else linearised.coloured(part.errors.colour)
    spectrum = part.term.operator.data_spectrum(x.shape, y, None if part.errors is None else part.errors.factor)
    b = residual if centred else residual + linearised.jvp(offset)
    w, rest, calls = _solve_dual(linear, spectrum, b, r_meas, part.noise, guess, iterations, tolerance)
    # J p = r^2 J J^T w - J offset, and the system says what r^2 J J^T w is.
    change = residual - part.noise**2 * w - rest
    return per_image(part.r.square(), x) * linear.vjp(w) - offset, change, w, calls + (1 if centred else 2)


class _Memory:
    """Pairs of steps and gradient changes of L-BFGS, each image with its own."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.last: tuple[Tensor, Tensor, Tensor] | None = None

    def direction(self, part: _Problem, x: Tensor, gradient: Tensor, index: Tensor) -> Tensor:
        """``-H g`` by the two-loop recursion (Nocedal and Wright, algorithm 7.4); the prior's curvature is the first guess of H."""
        if self.last is not None:
            kept = torch.isin(self.last[2], index)
            self.pairs = [(s[kept], g[kept], i[kept]) for s, g, i in self.pairs]
            change = x - self.last[0][kept], gradient - self.last[1][kept]
            self.pairs = [*self.pairs, (*change, index)][-MEMORY:]
        self.last = x, gradient, index
        q, shares = gradient, []
        for s, g, _ in reversed(self.pairs):
            curvature = inner(s, g)
            good = curvature > 1e-12
            a = torch.where(good, inner(s, q) / curvature.clamp_min(1e-12), torch.zeros_like(curvature))
            q = q - per_image(a, q) * g
            shares.append((a, curvature, good))
        scale = wide(part.r).square()
        if self.pairs:
            s, g, _ = self.pairs[-1]
            curvature = inner(s, g)
            scale = torch.where(curvature > 1e-12, curvature / inner(g, g).clamp_min(1e-12), scale)
        q = per_image(scale, q) * q
        for (s, g, _), (a, curvature, good) in zip(self.pairs, reversed(shares), strict=True):
            b = torch.where(good, inner(g, q) / curvature.clamp_min(1e-12), torch.zeros_like(curvature))
            q = q + per_image(torch.where(good, a - b, torch.zeros_like(a)), q) * s
        return -q


def _descent(part: _Problem, x: Tensor, residual: Tensor, memory: _Memory | None, index: Tensor) -> tuple[Tensor, Tensor]:
    """Direction of L-BFGS or of the gradient, and operator calls."""
    gradient = part.gradient(x, residual)
    calls = torch.ones_like(index)
    if memory is None:
        return -per_image(part.r.square(), x) * gradient, calls
    return memory.direction(part, x, gradient, index), calls


def _solve_dual(
    linear: Linearisation,
    spectrum: DataSpectrum | None,
    b: Tensor,
    r: Tensor,
    noise: float,
    guess: Tensor | None,
    iterations: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve ``(r^2 J J^T + noise^2) w = b`` for each image by conjugate gradients; also what is left of `b`, and the operator calls.

    The preconditioner takes the slope of the contrast, which spans orders of magnitude between background and tissue, from the row sums
    of ``J J^T``, the product with the vector of ones, and what mixes voxels from the operator's spectrum. Where that is not known
    the row sums alone have to do.
    """
    row_sums = linear.row_sums(b)
    precondition = diagonal_preconditioner(row_sums, r, noise) if spectrum is None else spectrum.preconditioner(row_sums, r, noise)

    def times(v: Tensor) -> Tensor:
        return r.square() * linear.jvp(linear.vjp(v)) + noise**2 * v

    found = conjugate_gradients(times, b, iterations, tolerance, guess, precondition)
    return found.x, found.residual, 2 * found.products + (2 if guess is None else 4)
