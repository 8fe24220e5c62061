"""What a measurement alone tells of its scanner: intensities, spectrum, and how much slices share."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.parameters import Parameter

PERCENTILES = (1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 99)
# Edges of frequency bands in cycles/mm: fine ones for the spectrum, coarse ones for what neighbouring slices share.
SPECTRUM: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.225, 0.25)
SPECTRUM += (0.275, 0.3, 0.325, 0.35, 0.375, 0.4, 0.425, 0.45, 0.475, 0.5)
COHERENCE = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5)
LAGS = (1, 2, 3, 4)
COUNT = len(PERCENTILES) + len(SPECTRUM) - 1 + len(LAGS) * (len(COHERENCE) - 1) + 4

_BINOMIAL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])[None, None] / 16
_HEAD = 0.1  # share of the brightest tissue above which a voxel belongs to the head
_MARGIN_MM = 3.0
_FIELD_MM = 256.0
_SMALLEST = 8  # voxels in the plane, and 20 times as many in the head


@dataclass(frozen=True, eq=False)
class ScanStatistics:
    """Numbers from one measurement that do not change with its intensity scale, its field of view or its noise's seed.

    Attributes:
        values: ``(COUNT,)``: log percentiles of the head's intensities, log power by spatial frequency, coherence of slices 1 to 4
            apart by spatial frequency, signal to noise, noise against signal power, voxel size and slice distance. Not a number
            where the grid does not reach.
        top: 99th percentile of the head's intensities, smoothed, in units of the measurement.
    """

    values: NDArray[np.float64]
    top: float


def scan_statistics(y: Tensor, spacing: tuple[float, float, float], noise_std: Parameter) -> ScanStatistics:
    """Measure a measurement.

    Power and coherence are what is left after the noise's known share is taken off; outside the head nothing counts, so that a
    background of noise, of its magnitude or of zeros is the same.

    Args:
        y: one volume ``(depth, height, width)``, any units.
        spacing: voxel size in mm along x, y, z.
        noise_std: standard deviation of its white noise, in the units of `y`.

    Raises:
        InputError: there are fewer than 8 voxels along x or y, or no head in it.
    """
    depth, height, width = y.shape
    noise = float(noise_std)
    if min(height, width) < _SMALLEST:
        raise InputError(f"the scan has {width} x {height} voxels in the plane; expected at least 8 x 8; check the orientation")
    smooth = torch.nn.functional.conv2d(torch.nn.functional.pad(y[:, None], (1, 1, 1, 1), mode="replicate"), _BINOMIAL.to(y))[:, 0]
    head, top = _head(smooth, noise)
    if int(head.sum()) < 20 * _SMALLEST:
        raise InputError(f"the scan has {int(head.sum())} voxels above its noise; expected a head; check the scan and its noise level")
    percentiles = np.percentile(smooth[head].numpy(), PERCENTILES) / top
    # Exact zeros were put there by a brain mask: they carry no noise.
    margin = _grown(head, spacing) & (y != 0)
    masked = torch.where(margin, y, 0.0)
    # On one field of view for all scans: a band's mean depends on how finely it is sampled.
    field_of_view = [max(n, math.ceil(_FIELD_MM / d)) for n, d in ((height, spacing[1]), (width, spacing[0]))]
    waves = torch.fft.fft2(masked, s=field_of_view)
    voxels = max(1.0, float(margin.sum()) / depth)
    power = waves.abs().square().mean(0) / voxels - noise**2
    lines = [torch.fft.fftfreq(n, d=d) for n, d in zip(field_of_view, (spacing[1], spacing[0]), strict=True)]
    frequency = torch.hypot(lines[0][:, None], lines[1][None])
    limit = 0.5 / max(spacing[:2]) + 1e-6
    level = max(float(masked.square().sum()) / (voxels * depth) - noise**2, noise**2)
    floor = noise**2 / level
    relative = np.log(np.clip(_banded(power, frequency, SPECTRUM, limit) / level, 0.03 * floor, None))
    banded = _banded(power, frequency, COHERENCE, limit)
    coherence = []
    for lag in LAGS:
        if depth <= lag:
            coherence.append(np.full(len(COHERENCE) - 1, np.nan))
            continue
        shared = (waves[:-lag] * waves[lag:].conj()).real.mean(0) / voxels
        ratio = _banded(shared, frequency, COHERENCE, limit) / np.maximum(banded, 0.1 * noise**2)
        coherence.append(np.clip(ratio, -1.5, 1.5))
    rest = np.log([top / noise, floor, (spacing[0] * spacing[1]) ** 0.5])
    values = np.concatenate([np.log(np.clip(percentiles, 0.01, None)), relative, *coherence, rest, [spacing[2]]])
    return ScanStatistics(values, top)


def _head(smooth: Tensor, noise: float) -> tuple[Tensor, float]:
    """Voxels of the head, and the 99th percentile of their intensities."""
    bright = smooth[smooth > 0.3 * smooth.max()]
    typical = float(np.quantile(bright.numpy(), 0.95)) if bright.numel() else 0.0
    # Smoothing leaves 3/8 of white noise.
    head = smooth > max(_HEAD * typical, 3 * 0.375 * noise)
    return head, float(np.percentile(smooth[head].numpy(), 99)) if bool(head.any()) else 0.0


def _grown(head: Tensor, spacing: tuple[float, float, float]) -> Tensor:
    """The head with its holes filled and a margin in the plane: its outer edge counts, the noise beyond it does not."""
    rings = max(1, round(_MARGIN_MM / min(spacing[:2])))
    slices = [ndimage.binary_dilation(ndimage.binary_fill_holes(s), iterations=rings) for s in head.numpy()]
    return torch.from_numpy(np.stack(slices))


def _banded(values: Tensor, frequency: Tensor, edges: tuple[float, ...], limit: float) -> NDArray[np.float64]:
    """Means over bands of frequency, ``(len(edges) - 1,)``; not a number for bands that the grid does not hold whole."""
    # A band holds its upper edge: 0 to the first edge is no band.
    band = torch.bucketize(frequency.flatten(), torch.tensor(edges)) - 1
    inside = (band >= 0) & (band < len(edges) - 1)
    counts = torch.bincount(band[inside], minlength=len(edges) - 1).double()
    sums = torch.zeros(len(edges) - 1, dtype=torch.float64).index_add_(0, band[inside], values.flatten()[inside].double())
    means = (sums / counts).numpy()
    means[np.array(edges[1:]) > limit] = np.nan
    return np.asarray(means)
