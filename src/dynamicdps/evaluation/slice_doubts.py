"""Slices whose measurement is explained worse than the others': where prior or operator are out of their depth."""

import numpy as np
from numpy.typing import NDArray

from dynamicdps.volumes import Volume

# A misfit that noise and a slightly wrong operator do not reach, alone or against the scan's other slices.
LEAST_MISFIT = 1.5
TIMES_TYPICAL = 1.5
# Of the largest slice's voxels that count: what is smaller says little.
MIN_SHARE = 0.05


def slice_misfits(residual: Volume, axis: int = 2) -> NDArray[np.float64]:
    """Root mean square of a standardised residual in each slice, over voxels that are not exactly 0; NaN where too few count.

    Args:
        residual: ``(y - A(x)) / noise_std`` on the scanner's grid.
        axis: across the slices.
    """
    data = np.moveaxis(np.nan_to_num(residual.data.astype(np.float64)), axis, 0).reshape(residual.shape[axis], -1)
    counted = np.count_nonzero(data, axis=1)
    enough = counted >= max(1, MIN_SHARE * counted.max(initial=0))
    found = np.full(len(data), np.nan)
    found[enough] = np.sqrt(np.square(data[enough]).sum(1) / counted[enough])
    return found


def slice_doubts(residual: Volume, axis: int | None = 2) -> list[str]:
    """A warning that names the slices with a misfit of 1.5 and 1.5 times the median slice's or more; none where all are alike.

    Args:
        residual: ``(y - A(x)) / noise_std`` on the scanner's grid.
        axis: across the slices; z where it is not known.
    """
    axis = 2 if axis is None else axis
    misfits = slice_misfits(residual, axis)
    if not np.isfinite(misfits).any():
        return []
    typical = float(np.nanmedian(misfits))
    limit = max(LEAST_MISFIT, TIMES_TYPICAL * typical)
    bad = np.flatnonzero(np.nan_to_num(misfits) > limit)
    if not len(bad):
        return []
    begin = ("left", "back", "below")[axis]
    return [
        f"{_ranges(bad)} of {len(misfits)} (counted from {begin}): the measurement is explained worse than elsewhere (misfit up to "
        f"{misfits[bad].max():.1f}, in the median slice {typical:.1f}), by motion, an artefact or anatomy that the models do not know"
    ]


def _ranges(indices: NDArray[np.intp]) -> str:
    """Numbers from 1 on, neighbours joined: ``slices 3 to 9 and 14``."""
    parts = np.split(indices + 1, np.flatnonzero(np.diff(indices) > 1) + 1)
    words = [f"{part[0]}" if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts]
    text = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"{'slice' if len(indices) == 1 else 'slices'} {text}"
