"""Which assumption of the forward model fails, where an image does not explain a measurement."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dynamicdps.volumes import Volume

Array = NDArray[np.float64]

# Points of the intensity curve, order of the polynomials of shading.
CURVE_POINTS = 10
SHADING_ORDER = 2
# Least share of what noise leaves open that a pattern must explain to be named; fewest voxels of a scan and of a slice that say anything.
NAMED = 0.25
FEWEST, FEWEST_OF_SLICE = 100, 20
# Robust standard deviations beyond which a residual does not say more about a pattern.
EXTREME = 3.0
MAD_OF_NORMAL = 0.6744897501960817
# What follows each pattern, and what may be done.
MEANINGS = {
    "contrast": "It follows the intensity alone, so the contrast curve is wrong: have it fitted (--operator fit), or say which contrast "
    "the scan has (--contrast).",
    "shading": "It varies smoothly over the head, as a coil's shading does: say --shading on.",
    "blur": "It follows the edges, so the blur or the slice thickness of the operator is wrong: have them fitted (--operator fit), or "
    "write the true ones into the operator's file.",
    "motion": "It follows the edges in another direction in each slice, as where the head moved between slices: look at the slices, or "
    "repeat the scan.",
}


@dataclass(frozen=True)
class MisfitCause:
    """A wrong assumption and how much of a residual its pattern explains.

    Attributes:
        name: ``"contrast"``, ``"shading"``, ``"blur"`` or ``"motion"``.
        share: of the residual's mean square beyond the noise, 0 to 1.
    """

    name: str
    share: float


def misfit_causes(residual: Volume, predicted: Array, axis: int = 2) -> list[MisfitCause]:
    """How much of a residual follows the pattern of each assumption that may fail, the largest share first.

    Each pattern is what the prediction changes by to first order where the assumption is a little wrong: a curve of its intensities
    (contrast), a smooth factor (shading), its second differences along each axis (blur), its gradients with a factor for each slice
    (motion, less what one shift of all slices explains). Shares are by least squares, each pattern alone, so that they may sum to more
    than 1. Voxels whose residual is exactly 0 do not count. Empty where nothing is left beyond the noise, or too few voxels count.

    Args:
        residual: ``(y - A(x)) / noise_std`` on the scanner's grid.
        predicted: ``A(x)`` on that grid, any unit, ``(x, y, z)``.
        axis: across the slices.

    Raises:
        ValueError: the two have different shapes.
    """
    r = np.nan_to_num(residual.data.astype(np.float64))
    if r.shape != predicted.shape:
        raise ValueError(f"the residual has shape {r.shape}, the prediction {predicted.shape}; expected the same")
    counted = r != 0
    count = int(np.count_nonzero(counted))
    square = float(np.square(r).sum())
    excess = square - count
    if count < FEWEST or excess <= 0:
        return []
    p = np.where(np.isfinite(predicted), predicted, 0.0)
    patterns = {
        "contrast": _curve(p[counted]),
        "shading": _smooth(counted) * p[counted][:, None],
        "blur": np.column_stack([_second_difference(p, a, counted) for a in range(3)]),
    }
    shares = {name: _explained(pattern, r[counted]) / excess for name, pattern in patterns.items()}
    shares["motion"] = _explained_by_slice(p, r, counted, axis) / excess
    return sorted((MisfitCause(name, min(max(share, 0.0), 1.0)) for name, share in shares.items()), key=lambda cause: -cause.share)


def without_causes(residual: Volume, predicted: Array, axis: int = 2) -> Array:
    """What the patterns of `misfit_causes` together do not explain of a residual: what is left where the forward model is right.

    They are fitted by least squares to the residual without its extremes, which a structure that is missing leaves and no pattern explains.

    Args:
        residual: as for `misfit_causes`.
        predicted: likewise.
        axis: across the slices.

    Returns:
        The rest, ``(x, y, z)``; 0 where a voxel does not count. Where too few count, the residual itself.
    """
    r = np.nan_to_num(residual.data.astype(np.float64))
    counted = r != 0
    if np.count_nonzero(counted) < FEWEST:
        return r
    p = np.where(np.isfinite(predicted), predicted, 0.0)
    values = r[counted]
    middle = float(np.median(values))
    reach = EXTREME * max(1.0, float(np.median(np.abs(values - middle))) / MAD_OF_NORMAL)
    rest, trimmed = r.copy(), np.zeros_like(r)
    trimmed[counted] = np.clip(values, middle - reach, middle + reach)
    blur = [_second_difference(p, a, counted) for a in range(3)]
    whole = _fitted(np.column_stack([_curve(p[counted]), _smooth(counted) * p[counted][:, None], *blur]), trimmed[counted])
    rest[counted] -= whole
    trimmed[counted] -= whole
    shifts = _shifts(p, counted, axis)
    for here, inside in _slices(counted, axis):
        moved = _fitted(np.column_stack([s[here][inside] for s in shifts]), trimmed[here][inside])
        rest[here][inside] -= moved
    return rest


def cause_sentence(causes: Sequence[MisfitCause]) -> str:
    """What the largest cause is and what may be done; where none explains enough, that it is none of them."""
    if causes and causes[0].share >= NAMED:
        first = causes[0]
        return f"Of what is left beyond the noise, {first.share:.0%} has the pattern of {first.name}. {MEANINGS[first.name]}"
    return "What is left follows none of contrast, shading, blur and motion: the stated noise is too weak, or an artefact is there."


def misfit_reasons(residuals: Sequence[Volume], predicted: Sequence[Volume], axes: Sequence[int | None], limit: float) -> list[str]:
    """Which assumption of the forward model fails, a sentence for each scan that is not explained.

    Args:
        residuals: in standard deviations of the noise, of each scan.
        predicted: ``A(x)`` of each scan; none where it is not known.
        axes: across the slices; z where it is not known.
        limit: misfit in standard deviations of the noise, from which a scan is not explained.
    """
    found = []
    for number, (residual, seen, axis) in enumerate(zip(residuals, predicted, axes, strict=False), start=1):
        left = residual.data[np.nan_to_num(residual.data) != 0]
        if left.size and float(np.sqrt(np.square(left, dtype=np.float64).mean())) > limit:
            sentence = cause_sentence(misfit_causes(residual, seen.data.astype(np.float64), 2 if axis is None else axis))
            found.append(sentence if len(residuals) == 1 else f"Scan {number}: {sentence}")
    return found


def _curve(p: Array) -> Array:
    """Hat functions of the intensity between its quantiles, ``(voxels, points)``."""
    knots = np.unique(np.quantile(p, np.linspace(0, 1, CURVE_POINTS)))
    if len(knots) < 2:
        return np.ones((len(p), 1))
    return np.column_stack([np.interp(p, knots, one) for one in np.eye(len(knots))])


def _smooth(counted: NDArray[np.bool_]) -> Array:
    """Polynomials of the place without a constant, which is of the contrast, ``(voxels, terms)``."""
    places = np.argwhere(counted)
    low, high = places.min(0), places.max(0)
    u = 2 * (places - low) / np.maximum(high - low, 1) - 1
    terms = [t for t in product(range(SHADING_ORDER + 1), repeat=3) if 0 < sum(t) <= SHADING_ORDER]
    return np.column_stack([np.prod(u ** np.array(t), axis=1) for t in terms])


def _second_difference(p: Array, axis: int, counted: NDArray[np.bool_]) -> Array:
    """``p[i - 1] - 2 p[i] + p[i + 1]``, where all three count; 0 elsewhere, because a mask's edge is none of the image."""
    found = np.zeros_like(p)
    if p.shape[axis] > 2:
        inner, before, after = (_part(axis, s) for s in (slice(1, -1), slice(None, -2), slice(2, None)))
        all_count = counted[inner] & counted[before] & counted[after]
        found[inner] = np.where(all_count, p[before] - 2 * p[inner] + p[after], 0)
    return found[counted]


def _explained_by_slice(p: Array, r: Array, counted: NDArray[np.bool_], axis: int) -> float:
    """Energy that shifts within the plane explain, each slice with its own, less what one shift of all slices does."""
    shifts = _shifts(p, counted, axis)
    common = _explained(np.column_stack([s[counted] for s in shifts]), r[counted])
    each = 0.0
    for here, inside in _slices(counted, axis):
        each += _explained(np.column_stack([s[here][inside] for s in shifts]), r[here][inside])
    return each - common


def _shifts(p: Array, counted: NDArray[np.bool_], axis: int) -> list[Array]:
    """What shifts along the two axes of the plane change, on the scanner's grid."""
    shifts = []
    for a in (a for a in range(3) if a != axis):
        found = np.zeros_like(p)
        if p.shape[a] > 2:
            inner, before, after = (_part(a, s) for s in (slice(1, -1), slice(None, -2), slice(2, None)))
            found[inner] = np.where(counted[before] & counted[after], (p[after] - p[before]) / 2, 0)
        shifts.append(found)
    return shifts


def _slices(counted: NDArray[np.bool_], axis: int) -> Iterator[tuple[tuple[slice | int, ...], NDArray[np.bool_]]]:
    """The slices of which enough counts, with where it does."""
    for k in range(counted.shape[axis]):
        here = _part(axis, k)
        if np.count_nonzero(counted[here]) >= FEWEST_OF_SLICE:
            yield here, counted[here]


def _part(axis: int, chosen: slice | int) -> tuple[slice | int, ...]:
    return tuple(chosen if a == axis else slice(None) for a in range(3))


def _explained(pattern: Array, r: Array) -> float:
    """Energy of a residual that a linear combination of columns explains, less what it explains of noise."""
    basis, along = _along(pattern, r)
    return float(np.square(along).sum() - basis.shape[1])


def _fitted(pattern: Array, r: Array) -> Array:
    """The linear combination of columns that is nearest to a residual."""
    basis, along = _along(pattern, r)
    return np.asarray(basis @ along)


def _along(pattern: Array, r: Array) -> tuple[Array, Array]:
    """Orthonormal columns of the same span, and the residual's parts along them."""
    scale = np.linalg.norm(pattern, axis=0)
    pattern = pattern[:, scale > 0] / scale[scale > 0]
    values, vectors = np.linalg.eigh(pattern.T @ pattern)
    good = values > 1e-8 * values.max(initial=0)
    along = (vectors[:, good].T @ (pattern.T @ r)) / np.sqrt(values[good])
    return pattern @ (vectors[:, good] / np.sqrt(values[good])), along
