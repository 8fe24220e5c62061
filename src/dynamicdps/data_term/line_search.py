"""Step lengths for a batch of images at once, each image at its own pace.

`strong_wolfe`: Nocedal and Wright, Numerical Optimization (2006), algorithms 3.5 (bracketing) and 3.6 (zoom); `armijo`: their
algorithm 3.1 (backtracking), without slopes along the way; `constant`: the first trial as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

LINE_SEARCHES = ("wolfe", "armijo", "constant")
Phi = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Outcome(IntEnum):
    """Why a line search ended.

    `SATISFIED`: its conditions hold. `NO_DESCENT`: the direction does not descend, the step is 0. `STEP_LIMIT`: the longest step still
    descends. `TRIAL_LIMIT`: out of trials; the step is the best so far that decreases enough, or 0. `UNCHECKED`: a constant step.
    """

    SATISFIED = 0
    NO_DESCENT = 1
    STEP_LIMIT = 2
    TRIAL_LIMIT = 3
    UNCHECKED = 4


@dataclass(frozen=True)
class LineSearch:
    """Result of a line search, each field of shape ``(batch,)``.

    Attributes:
        step: accepted step length; 0 where the direction does not descend.
        value: objective there.
        outcome: an `Outcome`; only `SATISFIED` promises the conditions of the search.
        trials: evaluations of the objective along the line.
    """

    step: Tensor
    value: Tensor
    outcome: Tensor
    trials: Tensor


def strong_wolfe(
    phi: Phi,
    value0: Tensor,
    slope0: Tensor,
    first: Tensor,
    *,
    c1: float = 1e-4,
    c2: float = 0.9,
    max_step: float = 1e6,
    max_trials: int = 10,
) -> LineSearch:
    """Find steps with ``phi(a) <= phi(0) + c1 a phi'(0)`` and ``|phi'(a)| <= c2 |phi'(0)|``.

    Args:
        phi: ``phi(steps, active)`` gives value and slope at each image's step, ``(batch,)`` each; entries that are not active are
            not used and need not be computed.
        value0: objective at step 0.
        slope0: slope at step 0; where it is not negative the step is 0.
        first: first trial steps, greater than 0.
        c1: constant of the sufficient decrease.
        c2: constant of the curvature condition, between `c1` and 1.
        max_step: longest step.
        max_trials: most evaluations for an image; then the best step so far that decreases enough is returned, or 0.
    """
    zero = torch.zeros_like(value0)
    step = first.clamp(max=max_step)
    low, value_low, slope_low = zero.clone(), value0.clone(), slope0.clone()
    high, value_high, slope_high = zero.clone(), value0.clone(), slope0.clone()
    zooming = torch.zeros_like(value0, dtype=torch.bool)
    outcome = torch.full_like(value0, Outcome.TRIAL_LIMIT, dtype=torch.long)
    accepted, accepted_value = zero.clone(), value0.clone()
    trials = torch.zeros_like(outcome)
    active = slope0 < 0
    outcome = torch.where(active, outcome, int(Outcome.NO_DESCENT))
    for _ in range(max_trials):
        if not bool(active.any()):
            break
        value, slope = phi(step, active)
        # A value that overflowed counts as one that is far too high.
        value = value.nan_to_num(nan=torch.inf, posinf=torch.inf)
        trials = trials + active
        too_high = (value > value0 + c1 * step * slope0) | (value >= value_low) & (low > 0)
        flat = ~too_high & (slope.abs() <= -c2 * slope0)
        done = active & flat
        accepted, accepted_value = torch.where(done, step, accepted), torch.where(done, value, accepted_value)
        outcome = torch.where(done, int(Outcome.SATISFIED), outcome)
        active = active & ~done

        # The minimum was passed: the bracket is (low, step). Otherwise `step` becomes the new low end.
        shrink = active & too_high
        advance = active & ~too_high
        turned = advance & torch.where(zooming, slope * (high - low) >= 0, slope >= 0)
        high, value_high, slope_high = (
            torch.where(turned, low, high),
            torch.where(turned, value_low, value_high),
            torch.where(turned, slope_low, slope_high),
        )
        high, value_high, slope_high = (
            torch.where(shrink, step, high),
            torch.where(shrink, value, value_high),
            torch.where(shrink, slope, slope_high),
        )
        low, value_low, slope_low = (
            torch.where(advance, step, low),
            torch.where(advance, value, value_low),
            torch.where(advance, slope, slope_low),
        )
        zooming = zooming | shrink | turned
        at_limit = active & ~zooming & (step >= max_step)
        accepted, accepted_value = torch.where(at_limit, step, accepted), torch.where(at_limit, value, accepted_value)
        outcome = torch.where(at_limit, int(Outcome.STEP_LIMIT), outcome)
        active = active & ~at_limit
        inside = _interpolate(low, value_low, slope_low, high, value_high, slope_high)
        step = torch.where(active, torch.where(zooming, inside, (2 * step).clamp(max=max_step)), step)
    # Out of trials: the low end of the bracket satisfies the sufficient decrease (or is 0).
    unfinished = outcome == Outcome.TRIAL_LIMIT
    return LineSearch(torch.where(unfinished, low, accepted), torch.where(unfinished, value_low, accepted_value), outcome, trials)


def armijo(
    phi: Phi,
    value0: Tensor,
    slope0: Tensor,
    first: Tensor,
    *,
    c1: float = 1e-4,
    shrink: float = 0.5,
    max_trials: int = 20,
) -> LineSearch:
    """Find steps with ``phi(a) <= phi(0) + c1 a phi'(0)`` by backtracking; arguments as `strong_wolfe`.

    Args:
        phi: only its values are used.
        value0: objective at step 0.
        slope0: slope at step 0.
        first: first trial steps.
        c1: constant of the sufficient decrease.
        shrink: factor between trials, between 0 and 1.
        max_trials: most evaluations for an image; then the step is 0.
    """
    step, accepted, accepted_value = first, torch.zeros_like(value0), value0.clone()
    outcome = torch.full_like(value0, Outcome.TRIAL_LIMIT, dtype=torch.long)
    trials = torch.zeros_like(outcome)
    active = slope0 < 0
    outcome = torch.where(active, outcome, int(Outcome.NO_DESCENT))
    for _ in range(max_trials):
        if not bool(active.any()):
            break
        value = phi(step, active)[0].nan_to_num(nan=torch.inf, posinf=torch.inf)
        trials = trials + active
        done = active & (value <= value0 + c1 * step * slope0)
        accepted, accepted_value = torch.where(done, step, accepted), torch.where(done, value, accepted_value)
        outcome = torch.where(done, int(Outcome.SATISFIED), outcome)
        active = active & ~done
        step = torch.where(active, shrink * step, step)
    return LineSearch(accepted, accepted_value, outcome, trials)


def constant(phi: Phi, value0: Tensor, slope0: Tensor, first: Tensor) -> LineSearch:
    """The first trial as it is, wherever the direction descends; arguments as `strong_wolfe`."""
    descends = slope0 < 0
    value = phi(first, descends)[0] if bool(descends.any()) else value0
    outcome = torch.where(descends, int(Outcome.UNCHECKED), int(Outcome.NO_DESCENT))
    return LineSearch(torch.where(descends, first, torch.zeros_like(first)), torch.where(descends, value, value0), outcome, descends.long())


def search(kind: str, phi: Phi, value0: Tensor, slope0: Tensor, first: Tensor, **limits: float) -> LineSearch:
    """A line search by its name: ``"wolfe"``, ``"armijo"`` or ``"constant"``.

    Args:
        kind: which one.
        phi: as `strong_wolfe`, like the next three.
        value0: objective at step 0.
        slope0: slope at step 0.
        first: first trial steps.
        limits: constants of `strong_wolfe`; of these `armijo` uses `c1`.

    Raises:
        ValueError: there is no such search.
    """
    if kind == "wolfe":
        return strong_wolfe(phi, value0, slope0, first, **limits)  # type: ignore[arg-type]
    if kind == "armijo":
        return armijo(phi, value0, slope0, first, c1=limits.get("c1", 1e-4))
    if kind == "constant":
        return constant(phi, value0, slope0, first)
    raise ValueError(f"the line search is {kind!r}; expected one of {', '.join(LINE_SEARCHES)}")


def _interpolate(low: Tensor, value_low: Tensor, slope_low: Tensor, high: Tensor, value_high: Tensor, slope_high: Tensor) -> Tensor:
    """Minimiser of the cubic through both ends (Nocedal and Wright eq. 3.59), kept a tenth of the bracket away from them."""
    width = high - low
    d1 = slope_low + slope_high - 3 * (value_low - value_high) / (low - high)
    d2 = width.sign() * (d1.square() - slope_low * slope_high).clamp_min(0).sqrt()
    share = 1 - (slope_high + d2 - d1) / (slope_high - slope_low + 2 * d2)
    share = torch.where(share.isfinite(), share, torch.full_like(share, 0.5)).clamp(0.1, 0.9)
    return low + share * width
