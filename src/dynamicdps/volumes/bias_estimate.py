"""Smooth shading of a scan by the coil, from the scan alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.morphology import erode
from dynamicdps.volumes.volume import Volume

MAX_ORDER = 6
ITERATIONS = 30
TOLERANCE = 1e-4
# Blocks of about this edge, of which at least this share is brain below the rim; each has white matter.
BLOCK_MM, ENOUGH = 24.0, 0.3
RIM_MM = 4.0
# The brightness of a block is this percentile of its voxels: white matter's, and not yet the noise's.
PERCENTILE = 80.0
# A block further below the field than this many robust standard deviations holds little white matter, and has this weight.
DARK_BLOCK, DARK_WEIGHT = -1.0, 0.15
# What anatomy alone looks like: weight of the penalty against one block's equation, and the spread of a field from which on anatomy
# hardly matters. Whole heads of another simulator come nearest to the truth with about half of what a free fit finds.
RIDGE, ANATOMY = 0.05, 0.2
MIN_VOXELS = 1000
MIN_BLOCKS = 3  # for each polynomial


@dataclass(frozen=True)
class BiasEstimate:
    """A shading: the scan is ``exp(b)`` times the image, ``exp(b)`` has mean 1 in the brain.

    Attributes:
        coefficients: of b in Legendre polynomials along z, y, x from -1 (first voxel) to 1 (last), as `operators.BiasField` takes
            them, ``(orders z, orders y, orders x)``.
        field: ``exp(b)`` on the scan's grid; outside the brain no more and no less than in it.
        range: the least and the largest value in the brain.
        iterations: of the robust fit, until nothing changed.
    """

    coefficients: NDArray[np.float64]
    field: Volume
    range: tuple[float, float]
    iterations: int

    def correct(self, volume: Volume) -> Volume:
        """The scan divided by the field."""
        return volume.with_data(volume.data / self.field.data)


def estimate_bias(volume: Volume, mask: NDArray[np.bool_], order: int = 2) -> BiasEstimate:
    """Fit a polynomial to the log brightness of white matter over the brain.

    A high percentile of the voxels of each block is the brightness of its white matter, whatever the contrast of the other tissues and
    however much slices and noise have mixed them; a mixture of tissue classes, which needs them apart, finds too much shading in thick
    slices. Blocks with little white matter are darker and count less (iteratively reweighted least squares). Anatomy looks like a weak
    shading: a penalty takes the field back, the more the weaker it is. Axes of few voxels get a lower order.

    Args:
        volume: scan with intensities of at least 0, white matter brightest.
        mask: brain, same shape.
        order: largest total degree, 1 to 6.

    Raises:
        InputError: the order is out of its range, or the brain has too few voxels.
    """
    if not 1 <= order <= MAX_ORDER:
        raise InputError(f"the order of the bias field is {order}; expected 1 to {MAX_ORDER}")
    inner = mask & erode(mask, RIM_MM, volume.spacing) & (volume.data > 0)
    if inner.sum() < MIN_VOXELS:
        inner = mask & (volume.data > 0)
    places, values = _blocks(volume, inner)
    basis, degrees = _basis(places, volume.shape, order)
    if inner.sum() < MIN_VOXELS or len(values) < MIN_BLOCKS * basis.shape[1]:
        raise InputError(
            f"the brain has {int(inner.sum())} voxels in {len(values)} blocks; expected at least {MIN_VOXELS} voxels and "
            f"{MIN_BLOCKS * basis.shape[1]} blocks for a bias field; check the mask or leave it out"
        )
    free, _ = _fit(values, basis, 0.0)
    penalty = RIDGE * min(1.0, (ANATOMY / max(float((basis @ free).std()), 1e-6)) ** 4)
    weights, iterations = _fit(values, basis, penalty)
    coefficients = np.zeros(degrees.max(0) + 1)
    coefficients[tuple(degrees.T)] = weights
    return _normalised(coefficients, volume, mask, iterations)


def _blocks(volume: Volume, inner: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the bright voxels of each block lie on average, ``(blocks, 3)``, and the logarithm of their brightness."""
    edges = np.maximum(1, np.minimum(np.rint(BLOCK_MM / np.array(volume.spacing)), np.array(volume.shape) // 2)).astype(int)
    places = np.argwhere(inner)
    keys = np.ravel_multi_index(tuple((places // edges).T), tuple(np.array(volume.shape) // edges + 1))
    order = np.argsort(keys, kind="stable")
    places, keys = places[order], keys[order]
    values = volume.data[tuple(places.T)].astype(np.float64)
    middles, levels = [], []
    for start, stop in zip(*_runs(keys), strict=True):
        if stop - start >= ENOUGH * edges.prod():
            low, level = np.percentile(values[start:stop], (PERCENTILE - 15, PERCENTILE))
            middles.append(places[start:stop][values[start:stop] >= low].mean(0))
            levels.append(np.log(level))
    return np.array(middles).reshape(-1, 3), np.array(levels)


def _runs(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one past the last index of each run of equal keys."""
    cuts = np.flatnonzero(np.diff(keys)) + 1
    return np.concatenate([[0], cuts]).astype(np.int64), np.concatenate([cuts, [len(keys)]]).astype(np.int64)


def _fit(values: NDArray[np.float64], basis: NDArray[np.float64], penalty: float) -> tuple[NDArray[np.float64], int]:
    """Reweighted least squares with a constant, which is not returned."""
    full = np.column_stack([np.ones(len(values)), basis])
    ridge = penalty * np.diag([0.0] + [1.0] * basis.shape[1])
    share, found, iterations = np.ones(len(values)), np.zeros(full.shape[1]), 0
    while iterations < ITERATIONS:
        iterations += 1
        normal = full.T @ (share[:, None] * full) + share.sum() * (ridge + 1e-8 * np.eye(full.shape[1]))
        before, found = found, np.linalg.solve(normal, full.T @ (share * values))
        residual = values - full @ found
        spread = 1.4826 * float(np.median(np.abs(residual))) + 1e-6
        share = np.where(residual < DARK_BLOCK * spread, DARK_WEIGHT, 1 / np.maximum(1, np.abs(residual) / (2 * spread)))
        if np.abs(full @ (found - before)).max() < TOLERANCE:
            break
    return found[1:], iterations


def _basis(places: NDArray[np.floating[Any]], shape: tuple[int, int, int], order: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Products of Legendre polynomials at those voxels but the constant, and their degrees along z, y, x."""
    x, y, z = (legvander(_coordinate(places[:, a].astype(np.float64), n), order) for a, n in enumerate(shape))
    # A parabola needs three voxels; along a few slices anatomy and shading cannot be told apart beyond a slope.
    limits = [min(order, 1 if n < 8 else order, n - 1) for n in shape[::-1]]
    degrees = np.array([d for d in np.ndindex(*(limit + 1 for limit in limits)) if 0 < sum(d) <= order])
    return np.stack([z[:, k] * y[:, j] * x[:, i] for k, j, i in degrees], axis=1), degrees


def _coordinate(index: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return 2 * index / (size - 1) - 1 if size > 1 else np.zeros_like(index)


def evaluate_bias(coefficients: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """The log field b on a grid ``(x, y, z)``."""
    orders = coefficients.shape[::-1]
    x, y, z = (legvander(_coordinate(np.arange(n, dtype=np.float64), n), k - 1) for n, k in zip(shape, orders, strict=True))
    return np.asarray(np.einsum("kji,zk,yj,xi->xyz", coefficients, z, y, x, optimize=True))


def _normalised(coefficients: NDArray[np.float64], volume: Volume, mask: NDArray[np.bool_], iterations: int) -> BiasEstimate:
    gain = np.exp(evaluate_bias(coefficients, volume.shape)).astype(np.float32)
    inside = gain[mask]
    level = float(inside.mean(dtype=np.float64))
    coefficients[0, 0, 0] -= np.log(level)
    low, high = float(inside.min()) / level, float(inside.max()) / level
    # A polynomial grows without bounds outside the voxels that it was fitted to.
    return BiasEstimate(coefficients, volume.with_data(np.clip(gain / level, low, high)), (low, high), iterations)
