"""Parameters of any operator from a measurement and an image, by robust bounded least squares."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.operator import Composition, Operator

SCALE = "scale"
# 95 % of a normal distribution.
_Z = float(special.ndtri(0.975))
_LOGARITHMIC = ("gamma", SCALE)
_UNDETERMINED = 0.5  # of a parameter's range: an interval as long as that says nothing
_ENTANGLED = 0.95  # correlation beyond which two parameters are told apart by the bounds only
_STEP = 1e-3  # of finite differences, as a share of a parameter's range; operators compute in single precision
_ROUNDING = 1e-5
_SLACK = 0.01  # of a parameter's range: nearer to a bound than this is on it


@dataclass(frozen=True)
class Prior:
    """What is known about a parameter before the fit: a normal distribution (of the logarithm, for `gamma` and the scale)."""

    mean: float
    std: float


@dataclass(frozen=True)
class LeastSquaresFit:
    """Parameters found, with what the residuals say about them.

    Attributes:
        operator: with the values found.
        scale: units of the measurement of one unit of image intensity.
        values: by name, the scale among them.
        intervals: 95 %, by name, from the covariance.
        covariance: of the parameters in the order of `values`; of logarithms for `gamma` and the scale.
        residual_std: root mean square of what is left, units of the measurement.
        warnings: what could not be told, one sentence each.
    """

    operator: Operator
    scale: float
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    covariance: NDArray[np.float64]
    residual_std: float
    warnings: list[str] = field(default_factory=list)

    def correlation(self, first: str, second: str) -> float:
        """Correlation of the errors of two parameters, from -1 to 1."""
        names = list(self.values)
        i, j = names.index(first), names.index(second)
        return float(self.covariance[i, j] / math.sqrt(self.covariance[i, i] * self.covariance[j, j]))


def with_values(operator: Operator, values: Mapping[str, float]) -> Operator:
    """The operator with other parameters; in a composition, of the part that has them.

    Raises:
        InputError: no part, or more than one, has a parameter of that name, or a value is out of its range.
    """
    parts = list(operator.operators) if isinstance(operator, Composition) else [operator]
    for name, value in values.items():
        owners = [i for i, part in enumerate(parts) if name in {f.name for f in fields(part)}]  # type: ignore[arg-type]
        if len(owners) != 1:
            raise InputError(f"{len(owners)} parts of {operator} have a parameter {name!r}; expected one; choose another to fit")
        parts[owners[0]] = replace(parts[owners[0]], **{name: value})  # type: ignore[type-var]
    return Composition(tuple(parts)) if isinstance(operator, Composition) else parts[0]


def fit_least_squares(
    operator: Operator,
    y: Tensor,
    x: Tensor,
    bounds: Mapping[str, tuple[float, float]],
    *,
    scale: tuple[float, float] | None = None,
    priors: Mapping[str, Prior] | None = None,
    fixed: Mapping[str, float] | None = None,
    starts: int = 3,
    seed: int = 0,
) -> LeastSquaresFit:
    """Find the parameters for which ``scale * A(x)`` is nearest to the measurement.

    The loss is soft L1 of the residual over its own robust spread, so that places where the image is wrong do not decide
    (scipy's trust-region reflective algorithm; Branch, Coleman and Li 1999). Residuals of an imperfect image are alike in
    neighbouring voxels: the covariance counts as many independent ones as their autocorrelation leaves.

    The image's own errors are not in the intervals: they are those of a scan whose image is right. `fit_operator` corrects for them.

    Args:
        operator: its other parameters stay.
        y: one measurement, ``(1, channels, ...)``.
        x: its image, ``(1, 1, height, width)`` or ``(1, 1, depth, height, width)``.
        bounds: lowest and highest value of each parameter to fit; `gamma` greater than 0.
        scale: bounds of the intensity scale; without them it stays 1.
        priors: what is known of parameters; `gamma` and the scale in logarithms.
        fixed: parameters to set and keep.
        starts: the first is the operator's own values, the others are drawn between the bounds.
        seed: of the starts.

    Raises:
        InputError: a parameter does not exist, bounds are the wrong way round, or the measurement is not that of the image's grid.
    """
    operator = with_values(operator, fixed or {})
    limits = dict(bounds) | ({SCALE: scale} if scale is not None else {})
    if not limits or any(low >= high or (name in _LOGARITHMIC and low <= 0) for name, (low, high) in limits.items()):
        raise InputError(f"the bounds are {limits}; expected a lower and a higher number for one parameter or more; change them")
    if operator(x).shape != y.shape:
        raise InputError(
            f"the measurement has shape {tuple(y.shape)}; expected {tuple(operator(x).shape)} of this image's; change the grid"
        )
    names = list(limits)
    low, high = (np.array([_inner(n, limits[n][side]) for n in names]) for side in (0, 1))
    known = [(names.index(n), p) for n, p in (priors or {}).items() if n in names]
    own = {n: _inner(n, _value(operator, n)) for n in names}
    # Kept off the bounds, where the algorithm does not start.
    first = np.clip([own[n] for n in names], low + _SLACK * (high - low), high - _SLACK * (high - low))

    def residuals(inner: NDArray[np.float64]) -> NDArray[np.float64]:
        values = {n: _outer(n, v) for n, v in zip(names, inner.tolist(), strict=True)}
        factor = values.pop(SCALE, 1.0)
        with torch.inference_mode():
            left = y - factor * with_values(operator, values)(x)
        return left.double().flatten().numpy()

    def solve(points: Sequence[NDArray[np.float64]]) -> Any:
        """Weights from the residuals at the first point, then the best of the runs."""
        left = residuals(points[0])
        # Operators compute in single precision: what is left of an exact fit is rounding.
        spread = max(_robust_std(left), _ROUNDING * float(y.double().square().mean().sqrt()))
        independent = _independent_share(left.reshape(tuple(y.shape)))

        def objective(unit: NDArray[np.float64]) -> NDArray[np.float64]:
            inner = low + (unit - 1) * (high - low)
            data = math.sqrt(independent) / spread * residuals(inner)
            # The root of soft L1, so that the priors stay quadratic.
            soft = np.sign(data) * np.sqrt(2 * independent * (np.sqrt(1 + data**2 / independent) - 1))
            return np.concatenate([soft, [(inner[i] - p.mean) / p.std for i, p in known]])

        # From 1 at the lower bound to 2 at the upper one: the step of the finite differences is relative, and must not vanish at 0.
        runs = [optimize.least_squares(objective, 1 + (p - low) / (high - low), bounds=(1, 2), diff_step=_STEP) for p in points]
        return min(runs, key=lambda run: run.cost)

    random = np.random.default_rng(seed)
    best = solve([first] + [random.uniform(low, high) for _ in range(starts - 1)])
    # Away from the solution all residuals are alike: what they weigh is known only near it.
    best = solve([low + (best.x - 1) * (high - low)])
    solution = low + (best.x - 1) * (high - low)
    # Where the scan says nothing, a parameter is anywhere between its bounds: a uniform distribution has a variance of range^2 / 12.
    covariance = np.linalg.inv(best.jac.T @ best.jac + 12 * np.eye(len(names))) * np.outer(high - low, high - low)
    values = {n: _outer(n, v) for n, v in zip(names, solution.tolist(), strict=True)}
    half = _Z * np.sqrt(np.diag(covariance))
    intervals = {
        n: (_outer(n, max(v - h, a)), _outer(n, min(v + h, b))) for n, v, h, a, b in zip(names, solution, half, low, high, strict=True)
    }
    return LeastSquaresFit(
        with_values(operator, {n: v for n, v in values.items() if n != SCALE}),
        values.get(SCALE, 1.0),
        values,
        intervals,
        covariance,
        float(np.sqrt(np.mean(residuals(solution) ** 2))),
        _doubts(names, solution, half, low, high, covariance),
    )


def profile_likelihood(
    operator: Operator,
    y: Tensor,
    x: Tensor,
    name: str,
    grid: Sequence[float],
    bounds: Mapping[str, tuple[float, float]],
    *,
    scale: tuple[float, float] | None = None,
) -> list[tuple[float, float, dict[str, float]]]:
    """How well each value of one parameter explains the scan when the others are fitted to it.

    A flat profile says that the others make up for the parameter: which ones is in their values.

    Args:
        operator: as for `fit_least_squares`.
        y: as there.
        x: as there.
        name: the parameter to step through.
        grid: its values.
        bounds: of the others.
        scale: as there.

    Returns:
        For each value: itself, the root mean square of the residual, and the others' values.

    Raises:
        InputError: as `fit_least_squares`.
    """
    others = {n: b for n, b in bounds.items() if n != name}
    found = []
    for value in grid:
        fit = fit_least_squares(operator, y, x, others, scale=scale, fixed={name: float(value)}, starts=1)
        found.append((float(value), fit.residual_std, fit.values))
    return found


def _value(operator: Operator, name: str) -> float:
    if name == SCALE:
        return 1.0
    parts = operator.operators if isinstance(operator, Composition) else (operator,)
    for part in parts:
        if hasattr(part, name):
            value = getattr(part, name)
            return 0.0 if value is None else float(value)
    raise InputError(f"{operator} has no parameter {name!r}; expected one of its own; choose another to fit")


def _inner(name: str, value: float) -> float:
    return math.log(value) if name in _LOGARITHMIC else value


def _outer(name: str, value: float) -> float:
    return math.exp(value) if name in _LOGARITHMIC else float(value)


def _robust_std(values: NDArray[np.float64]) -> float:
    """Standard deviation from the median of absolute values over what is not exactly 0: a stripped background says nothing."""
    inside = np.abs(values[values != 0])
    return float(np.median(inside) / special.ndtri(0.75)) if inside.size else 0.0


def _independent_share(residual: NDArray[np.float64]) -> float:
    """Independent values among residuals, as a share: the inverse of the autocorrelation's sum along each axis (Bartlett 1946)."""
    share = 1.0
    for axis in range(2, residual.ndim):
        centred = residual - residual.mean()
        variance = float((centred**2).mean())
        if residual.shape[axis] < 4 or variance == 0:
            continue
        total = 1.0
        for lag in range(1, residual.shape[axis] // 2):
            a = np.take(centred, np.arange(residual.shape[axis] - lag), axis)
            b = np.take(centred, np.arange(lag, residual.shape[axis]), axis)
            rho = float((a * b).mean()) / variance
            if rho < 0.05:
                break
            total += 2 * rho
        share /= total
    return share


def _doubts(
    names: list[str],
    found: NDArray[np.float64],
    half: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> list[str]:
    doubts = []
    for i, name in enumerate(names):
        if min(found[i] - low[i], high[i] - found[i]) < _SLACK * (high[i] - low[i]):
            doubts.append(f"{name} was stopped by its bound at {_outer(name, float(found[i])):.3g}")
        elif 2 * half[i] > _UNDETERMINED * (high[i] - low[i]):
            doubts.append(f"{name} is not determined by this scan")
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations = np.sqrt(np.diag(covariance))
        correlation = covariance / np.outer(deviations, deviations)
    doubts += [
        f"{names[j]} and {names[i]} make up for each other (correlation {correlation[i, j]:+.2f})"
        for i in range(len(names))
        for j in range(i)
        if abs(correlation[i, j]) > _ENTANGLED
    ]
    return doubts
