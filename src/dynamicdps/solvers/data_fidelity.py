"""The data step: the image nearest to the denoiser's that explains the measurement."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.operators import Linearisation, Operator
from dynamicdps.solvers.line_search import strong_wolfe


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """``(batch,)`` shaped to broadcast over images or measurements."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each image, ``(batch,)``, summed in float64: an image's sum must not depend on its size."""
    return (a.double() * b.double()).flatten(1).sum(1)


def data_misfit(operator: Operator, y: Tensor, x: Tensor) -> Tensor:
    """Root mean square of ``(y - A(x)) / noise_std`` of each image, ``(batch,)``; 1 where only noise is left."""
    residual = (y - operator(x)) / operator.noise_std
    return residual.double().flatten(1).square().mean(1).sqrt().to(y.dtype)


@dataclass(frozen=True)
class DataStep:
    """Result of a data step.

    Attributes:
        x: images.
        misfit: rms of ``(y - A(x)) / noise_std``, ``(batch,)``.
        step: length of the last accepted step along the Gauss-Newton direction, ``(batch,)``; 1 is the full step.
        outcome: the line search's `Outcome` of that step, ``(batch,)``.
        operator_calls: applications of A or of its Jacobian, both ways, for an image.
    """

    x: Tensor
    misfit: Tensor
    step: Tensor
    outcome: Tensor
    operator_calls: int


def data_step(
    operator: Operator,
    y: Tensor,
    centre: Tensor,
    spread: Tensor,
    *,
    start: Tensor | None = None,
    iterations: int = 4,
    cg_iterations: int = 40,
    cg_tolerance: float = 1e-3,
    tolerance: float = 1e-3,
) -> DataStep:
    """Minimise ``|(y - A(x)) / noise_std|^2 / 2 + |x - centre|^2 / (2 spread^2)`` for each image.

    Gauss-Newton: each direction solves the problem with A linearised, in measurement space,
    ``q = r^2 J^T (r^2 J J^T + noise_std^2)^-1 b``, by preconditioned conjugate gradients; the step along it satisfies the strong
    Wolfe conditions. In measurement space the system is small and well conditioned even where the contrast is steep.

    Args:
        operator: the forward model A.
        y: measurements, batch first.
        centre: images to stay near (the denoiser's output), batch first.
        spread: their expected error r, ``(batch,)``, image intensities, greater than 0.
        start: first iterate; by default `centre`.
        iterations: most Gauss-Newton steps.
        cg_iterations: most conjugate-gradient steps in each.
        cg_tolerance: they end when the preconditioned residual has fallen to this share.
        tolerance: an image is done when a step changes its objective by less than this share.
    """
    noise = operator.noise_std
    r = spread.to(centre.dtype)
    r_wide, r_meas = per_image(r, centre), per_image(r, y)
    x = centre if start is None else start
    calls = 0
    linear = operator.linearise(x, r_wide)
    value = _objective(y - linear.value, x - centre, noise, r)
    step = torch.zeros_like(value)
    outcome = torch.zeros_like(value, dtype=torch.long)
    running = torch.ones_like(value, dtype=torch.bool)
    for _ in range(iterations):
        residual = y - linear.value
        offset = x - centre
        b = residual + linear.jvp(offset)
        w, cg_calls = _solve_dual(linear, b, r_meas, noise, cg_iterations, cg_tolerance)
        direction = r_wide.square() * linear.vjp(w) - offset
        velocity = operator.move(x, direction, torch.zeros_like(r_wide), r_wide)[1]
        slope = inner(offset, velocity) / r.double().square() - inner(residual, operator.linearise(x).jvp(velocity)) / noise**2
        calls += cg_calls + 4
        current, trial_values = x, value

        def phi(steps: Tensor, active: Tensor, x: Tensor = current, direction: Tensor = direction) -> tuple[Tensor, Tensor]:
            del active
            trial, velocity = operator.move(x, direction, per_image(steps, x), r_wide)
            at = operator.linearise(trial)
            misfit = y - at.value
            slope = inner(trial - centre, velocity) / r.double().square() - inner(misfit, at.jvp(velocity)) / noise**2
            return _objective(misfit, trial - centre, noise, r), slope

        search = strong_wolfe(phi, trial_values, torch.where(running, slope, torch.zeros_like(slope)), torch.ones_like(value), max_step=2.0)
        calls += 2 * int(search.trials.max())
        lengths = per_image(search.step, x)
        x = torch.where(lengths > 0, operator.move(current, direction, lengths, r_wide)[0], current)
        step = torch.where(running, search.step, step)
        outcome = torch.where(running, search.outcome, outcome)
        running = running & (value - search.value > tolerance * value)
        value = search.value
        linear = operator.linearise(x, r_wide)
        calls += 1
        if not bool(running.any()):
            break
    misfit = ((y - linear.value) / noise).double().flatten(1).square().mean(1).sqrt()
    return DataStep(x, misfit.to(x.dtype), step.to(x.dtype), outcome, calls)


def _objective(residual: Tensor, offset: Tensor, noise: float, r: Tensor) -> Tensor:
    return 0.5 * inner(residual, residual) / noise**2 + 0.5 * inner(offset, offset) / r.double().square()


def _solve_dual(linear: Linearisation, b: Tensor, r: Tensor, noise: float, iterations: int, tolerance: float) -> tuple[Tensor, int]:
    """Solve ``(r^2 J J^T + noise^2) w = b`` for each image by conjugate gradients; also the number of operator calls.

    The preconditioner is the diagonal of row sums of ``r^2 J J^T``: the product with the vector of ones. Blur and resolution
    have weights of one sign, so it bounds the diagonal, and it follows the slope of the contrast, which spans orders of
    magnitude between background and tissue.
    """
    ones = torch.ones_like(b)
    diagonal = r.square() * linear.jvp(linear.vjp(ones)).abs() + noise**2
    w = torch.zeros_like(b)
    residual = b
    z = residual / diagonal
    p = z
    rho = inner(residual, z)
    goal = tolerance**2 * rho
    calls = 2
    for _ in range(iterations):
        running = rho > goal
        if not bool(running.any()):
            break
        product = r.square() * linear.jvp(linear.vjp(p)) + noise**2 * p
        calls += 2
        alpha = torch.where(running, rho / inner(p, product).clamp_min(1e-300), torch.zeros_like(rho))
        w = w + per_image(alpha, w) * p
        residual = residual - per_image(alpha, w) * product
        z = residual / diagonal
        rho_new = torch.where(running, inner(residual, z), rho)
        p = z + per_image(torch.where(running, rho_new / rho.clamp_min(1e-300), torch.zeros_like(rho)), p) * p
        rho = rho_new
    return w, calls
