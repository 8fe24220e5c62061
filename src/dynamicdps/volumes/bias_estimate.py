"""Smooth shading of a scan by the coil, from the scan alone."""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.morphology import erode
from dynamicdps.volumes.volume import Volume

MAX_ORDER = 6
TISSUES = 3
ITERATIONS = 60
TOLERANCE = 1e-3
DARK = 0.8  # of the median: darker voxels are fluid, air, vessels and cortex mixed with them, whose places would look like shading
RIM_MM = 8.0  # below the surface, where fluid and cortex mix and their shares change with the place
SAMPLES = 15000
MIN_VOXELS = 1000
RIDGE = 1e-4


@dataclass(frozen=True)
class BiasEstimate:
    """A shading: the scan is ``exp(b)`` times the image, ``exp(b)`` has mean 1 in the brain.

    Attributes:
        coefficients: of b in Legendre polynomials along z, y, x from -1 (first voxel) to 1 (last), as `operators.BiasField` takes
            them, ``(orders z, orders y, orders x)``.
        field: ``exp(b)`` on the scan's grid; outside the brain no more and no less than in it.
        range: the least and the largest value in the brain.
        iterations: until nothing changed.
    """

    coefficients: NDArray[np.float64]
    field: Volume
    range: tuple[float, float]
    iterations: int

    def correct(self, volume: Volume) -> Volume:
        """The scan divided by the field."""
        return volume.with_data(volume.data / self.field.data)


def estimate_bias(volume: Volume, mask: NDArray[np.bool_], order: int = 2) -> BiasEstimate:
    """Fit a polynomial to the log intensities, jointly with a mixture of tissue classes (Van Leemput et al. 1999, IEEE TMI 18:885).

    Each voxel's class probabilities follow from its corrected log intensity; the polynomial is the least-squares fit to what the
    classes' means leave over, weighted by their precisions. Unlike there, the classes have no spatial prior, and the largest class
    sets the width of all, so that none collapses. Axes of few voxels get a lower order.

    Args:
        volume: scan with intensities of at least 0.
        mask: brain, same shape.
        order: largest total degree, 1 to 6.

    Raises:
        InputError: the order is out of its range, or the brain has too few voxels.
    """
    if not 1 <= order <= MAX_ORDER:
        raise InputError(f"the order of the bias field is {order}; expected 1 to {MAX_ORDER}; change it")
    bright = mask & (volume.data > DARK * float(np.median(volume.data[mask]) if mask.any() else 0.0))
    inner = bright & erode(mask, RIM_MM, volume.spacing)
    places = np.argwhere(inner if inner.sum() >= MIN_VOXELS else bright)
    if len(places) < MIN_VOXELS:
        raise InputError(
            f"the brain has {len(places)} voxels; expected at least {MIN_VOXELS} for a bias field; check the mask or leave it out"
        )
    places = places[:: max(1, len(places) // SAMPLES)]
    values = np.log(volume.data[tuple(places.T)].astype(np.float64))
    basis, degrees = _basis(places, volume.shape, order)
    # In an orthonormal basis of the brain the ridge is the same for every polynomial.
    rotation = np.linalg.qr(basis)[1] / np.sqrt(len(basis))
    basis = np.linalg.solve(rotation.T, basis.T).T
    weights, iterations = _fit(values, basis)
    coefficients = np.zeros(degrees.max(0) + 1)
    coefficients[tuple(degrees.T)] = np.linalg.solve(rotation, weights)
    return _normalised(coefficients, volume, mask, iterations)


def _fit(values: NDArray[np.float64], basis: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Expectation and maximisation in turn, until the field moves by less than `TOLERANCE`; the constant is left to the classes."""
    weights = np.zeros(basis.shape[1])
    means = np.quantile(values, (np.arange(TISSUES) + 0.5) / TISSUES)
    variances = np.full(TISSUES, values.var() / TISSUES**2)
    shares = np.full(TISSUES, 1 / TISSUES)
    iterations = 0
    while iterations < ITERATIONS:
        iterations += 1
        corrected = values - basis @ weights
        log_odds = np.log(shares) - 0.5 * np.log(variances) - 0.5 * (corrected[:, None] - means) ** 2 / variances
        odds = np.exp(log_odds - log_odds.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        counts = odds.sum(0) + 1e-9
        means = odds.T @ corrected / counts
        spread = (odds * (corrected[:, None] - means) ** 2).sum(0) / counts
        variances = np.maximum(spread, 0.25 * spread[counts.argmax()] + 1e-6)
        shares = counts / counts.sum()
        precision = odds / variances
        total = precision.sum(1)
        residual = values - precision @ means / total
        normal = basis.T @ (total[:, None] * basis) + RIDGE * total.sum() * np.eye(basis.shape[1])
        before, weights = weights, np.linalg.solve(normal, basis.T @ (total * residual))
        if np.abs(basis @ (weights - before)).max() < TOLERANCE:
            break
    return weights, iterations


def _basis(places: NDArray[np.int64], shape: tuple[int, int, int], order: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
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
