"""The matrix that a scan was acquired on, where zero-filling k-space made a larger one of it."""

import numpy as np
from numpy.typing import NDArray

from dynamicdps.volumes.acquisition import across_slices
from dynamicdps.volumes.volume import Volume

# The spectrum is read inside the head, for magnitudes of noise alone have no empty band: from `_SKIN_MM` under the outline, rising over
# `_RIM_MM`, so that no edge of a window fills the band either.
_TISSUE, _SMOOTH_MM, _SKIN_MM, _RIM_MM = 0.25, 3.0, 3.0, 25.0
_FEWEST = 24
# Frequencies at the end of an axis that have to be empty, as a share of all; how far under the acquired ones they lie, dB; and within which
# share of the acquired ones the second quarter of that fall happens: that of a Gaussian blur takes 0.3.
_TAIL, _DEPTH, _STEEP = 0.08, 20.0, 0.15


def acquired_matrix(scan: Volume) -> tuple[int, int, int]:
    """Size of the matrix that a scan was measured on, from the empty band of its spectrum.

    Zero-filling leaves a band at the end of k-space without signal and noise, which begins abruptly. It is looked for along both axes of
    the slices (those of the shorter voxel edges), inside the head. A scan without such a band, or without thick slices, keeps its size.

    Args:
        scan: whole field of view, any units.

    Returns:
        Voxels along x, y and z, at most the scan's; a few percent off, see docs/operators.md.
    """
    across = across_slices(scan.spacing)
    window = None if across is None else _inside_head(scan, across)
    if window is None:
        return scan.shape
    shares = [1.0 if axis == across else _acquired_share(scan.data * window, axis) for axis in range(3)]
    x, y, z = (round(n * share) for n, share in zip(scan.shape, shares, strict=True))
    return x, y, z


def on_acquired_matrix(data: NDArray[np.floating], matrix: tuple[int, int, int]) -> NDArray[np.float64]:
    """What a zero-filled scan shows at the voxels that were acquired: its frequencies inside the acquired matrix, alone.

    White noise of k-space is white there again, with the standard deviation that it has in the zero-filled scan.

    Args:
        data: ``(x, y, z)``, any units.
        matrix: of `acquired_matrix`; at most the shape of `data` along each axis.

    Returns:
        Values on the matrix, voxel 0 at the place of the scan's voxel 0.
    """
    found = np.asarray(data, dtype=np.float64)
    for axis, count in enumerate(matrix):
        size = data.shape[axis]
        if count < size:
            waves = np.fft.fftshift(np.fft.fft(found, axis=axis), axes=axis)
            middle = np.take(waves, np.arange(count) + size // 2 - count // 2, axis)
            found = np.fft.ifft(np.fft.ifftshift(middle, axes=axis), axis=axis).real * (count / size)
    return found


def _inside_head(scan: Volume, slice_axis: int) -> NDArray[np.float64] | None:
    """1 well inside the head, falling smoothly to 0 at its rim slice by slice; `None` where there is too little of it."""
    from scipy import ndimage

    plane = [a for a in range(3) if a != slice_axis]
    if min(scan.shape[a] for a in plane) < _FEWEST:
        return None
    spacing = [scan.spacing[a] for a in plane]
    slices = np.moveaxis(scan.data, slice_axis, 0)
    smooth = ndimage.gaussian_filter(slices, [0, *(_SMOOTH_MM / s for s in spacing)])
    head = smooth > _TISSUE * np.percentile(smooth, 99)
    # The image's border is an edge too.
    depths = [ndimage.distance_transform_edt(np.pad(ndimage.binary_fill_holes(each), 1), spacing)[1:-1, 1:-1] for each in head]
    window = 0.5 - 0.5 * np.cos(np.pi * np.clip((np.stack(depths) - _SKIN_MM) / _RIM_MM, 0, 1))
    return np.moveaxis(window, 0, slice_axis) if window.any() else None


def _acquired_share(data: NDArray[np.floating], axis: int) -> float:
    """Share of the frequencies of an axis that were acquired; 1 where none is empty.

    The band ends where the power, in dB, has fallen half the way to what is empty.
    """
    size = data.shape[axis]
    power = (np.abs(np.fft.fft(data, axis=axis)) ** 2).mean(axis=tuple(a for a in range(3) if a != axis))
    folded = (power + np.roll(power[::-1], 1)) / 2
    level = 10 * np.log10(np.maximum(folded[: size // 2 + 1], 1e-30))
    count = len(level)
    tail = max(3, round(_TAIL * count))
    empty = float(np.median(level[-tail:]))
    begin, end = 0, count
    for _ in range(3):
        depth = float(np.median(level[round(0.45 * end) : max(round(0.75 * end), 1)])) - empty
        begin, end = (int(np.flatnonzero(level > empty + share * depth).max(initial=0)) + 1 for share in (0.75, 0.5))
    abrupt = depth >= _DEPTH and end - begin <= _STEEP * end
    return min(1.0, (2 * end - 1) / size) if abrupt and end < count - tail else 1.0
