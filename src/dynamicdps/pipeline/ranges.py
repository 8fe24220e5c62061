"""How the numbers of an image vary over its slices."""

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.evaluation import nrmse, psnr, residual_map, ssim
from dynamicdps.evaluation.evaluate import MIN_BRAIN_SHARE
from dynamicdps.operators import ScanOperator
from dynamicdps.volumes import IntensityScale, Volume, brain_mask, to_slices

Ranges = dict[str, tuple[float, float]]
RANGE_PERCENTILES = (5, 95)


def quality_ranges(reconstruction: Volume, truth: Volume, scale: IntensityScale) -> Ranges:
    """5th and 95th percentile of PSNR, SSIM and NRMSE over the slices that hold brain."""
    brain = torch.from_numpy(brain_mask(truth).mean((0, 1)) >= MIN_BRAIN_SHARE)
    x, t = (to_slices(scale.apply(volume).data)[brain] for volume in (reconstruction, truth))
    return {name: _range(measure(x, t).double().numpy()) for name, measure in (("psnr", psnr), ("ssim", ssim), ("nrmse", nrmse))}


def misfit_range(volume: Volume, scan: Volume, operator: ScanOperator, scale: IntensityScale) -> Ranges:
    """The same of the data misfit over measured slices, each over the voxels that count: the residual of the others is exactly 0."""
    residual = residual_map(volume, scan, operator, scale).data.astype(np.float64)
    counted = np.count_nonzero(residual, axis=(0, 1))
    return {"data_misfit": _range(np.sqrt(np.square(residual).sum((0, 1))[counted > 0] / counted[counted > 0]))}


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values[np.isfinite(values)], RANGE_PERCENTILES) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high)
