"""What the residual of a good fit looks like: its distribution and its power by spatial frequency."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynamicdps.volumes import Volume

LIMIT = 6.0
BINS = 60
RINGS = 24


@dataclass(frozen=True)
class Histogram:
    """Density of the residual, in noise standard deviations.

    Attributes:
        edges: of the bins, from -6 to 6.
        density: in each bin; integrates to the share of values inside.
        outside: share of values beyond 6 standard deviations.
    """

    edges: NDArray[np.float64]
    density: NDArray[np.float64]
    outside: float


@dataclass(frozen=True)
class Spectrum:
    """Power of the residual by spatial frequency in the plane; that of the noise alone is 1 at all of them.

    Attributes:
        frequency: cycles per mm, rising.
        power: mean over slices and directions, in units of the noise's.
    """

    frequency: NDArray[np.float64]
    power: NDArray[np.float64]


def histogram(residual: Volume) -> Histogram:
    """Distribution of a standardised residual over all voxels but those that are exactly 0: a mask has left them out."""
    values = residual.data[np.isfinite(residual.data) & (residual.data != 0)].astype(np.float64)
    counts, edges = np.histogram(values, bins=BINS, range=(-LIMIT, LIMIT))
    total = max(1, values.size)
    return Histogram(edges, counts / (total * np.diff(edges)), float((np.abs(values) > LIMIT).sum()) / total)


def spectrum(residual: Volume) -> Spectrum:
    """Radial mean of the periodogram of each slice of a standardised residual, up to the lower of the two Nyquist frequencies.

    The mean is kept: a residual that is positive everywhere has its power at frequency 0, which is the first ring's.
    """
    data = np.nan_to_num(residual.data.astype(np.float64))
    dx, dy, _ = residual.spacing
    # A mask leaves voxels out, which are exactly 0: noise in the others alone has to have power 1.
    counted = max(1, np.count_nonzero(data)) / data.shape[2]
    power = (np.abs(np.fft.fft2(data, axes=(0, 1))) ** 2 / counted).mean(2)
    radius = np.hypot(np.fft.fftfreq(data.shape[0], dx)[:, None], np.fft.fftfreq(data.shape[1], dy)[None])
    edges = np.linspace(0, 0.5 / max(dx, dy), min(RINGS, max(2, min(data.shape[:2]) // 2)) + 1)
    # The Nyquist frequency itself belongs to the last ring.
    ring = np.minimum(np.digitize(radius, edges) - 1, len(edges) - 2 + (radius > edges[-1] * (1 + 1e-9)))
    counts = np.bincount(ring.ravel(), minlength=len(edges))[: len(edges) - 1]
    sums = np.bincount(ring.ravel(), weights=power.ravel(), minlength=len(edges))[: len(edges) - 1]
    held = counts > 0
    return Spectrum(((edges[1:] + edges[:-1]) / 2)[held], sums[held] / counts[held])
