"""Blur and resolution along one axis, as a small matrix.

A scanner's voxel along each axis is a weighted mean of the image's voxels: the image blurred, then averaged over the voxel's
extent with its profile. Both are linear and separable, so each axis needs one matrix ``(measured, image)``, whose transpose is
the exact adjoint.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

PROFILES = ("gaussian", "box", "sinc")
# Zero crossings of the sinc profile that its Hann window keeps on each side, and the argument at which it falls to half.
LOBES = 3.0
HALF_SINC = 0.5684601477
# Rows that a band matrix is multiplied by at once.
BAND_ROWS = 24


def measured_size(size: int, factor: float) -> int:
    """Voxels of the scanner's grid that cover `size` image voxels when each is `factor` times as long."""
    return max(1, math.ceil(size / factor - 1e-6))


def axis_matrix(size: int, factor: Tensor, measured: int, blur: Tensor, profile: str = "box", width: Tensor | None = None) -> Tensor:
    """Rows of weights that turn an image line into a measured line.

    The measured grid is centred on the image grid. Rows sum to 1 (edges are renormalised), so a constant stays constant.

    Args:
        size: image voxels along the axis.
        factor: length of a scanner voxel in image voxels, ``(batch,)``, at least 1.
        measured: scanner voxels along the axis.
        blur: standard deviation of a Gaussian blur in image voxels, ``(batch,)``; 0 for none.
        profile: ``"box"`` (mean over the voxel), ``"gaussian"`` (its full width at half maximum is the voxel's length) or ``"sinc"``
            (likewise; with a Hann window over three zero crossings on each side: the response to a slice encoded in k-space, with
            its negative side lobes; Bernstein, King and Zhou 2004).
        width: length that a measurement integrates over in image voxels, ``(batch,)``; by default `factor`. Slices with a gap
            are thinner than their distance.

    Returns:
        ``(batch, measured, size)``; differentiable with respect to `blur` and `width`.

    Raises:
        ValueError: the profile is unknown.
    """
    width = factor if width is None else width
    index = torch.arange(size, dtype=factor.dtype, device=factor.device) - (size - 1) / 2
    centre = (torch.arange(measured, dtype=factor.dtype, device=factor.device) - (measured - 1) / 2)[None] * factor[:, None]
    distance = index[None, None, :] - centre[:, :, None]
    w = width[:, None, None]
    if profile == "box":
        # Share of each image voxel that lies in the scanner voxel.
        window = (torch.minimum(distance + 0.5, w / 2) - torch.maximum(distance - 0.5, -w / 2)).clamp_min(0)
    elif profile == "gaussian":
        window = torch.exp(-4 * math.log(2) * (distance / w) ** 2)
    elif profile == "sinc":
        t = distance / w * (2 * HALF_SINC)
        window = torch.sinc(t) * torch.cos(math.pi / 2 * (t / LOBES).clamp(-1, 1)).square()
    else:
        raise ValueError(f"the slice profile is {profile!r}; expected 'box' or 'gaussian' or 'sinc'")
    window = window / window.sum(-1, keepdim=True).clamp_min(1e-12)
    if not bool((blur > 0).any()):
        return window
    kernel = torch.exp(-0.5 * ((index[:, None] - index[None, :])[None] / blur.clamp_min(1e-3)[:, None, None]) ** 2)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    return _matmul(window, kernel)


@lru_cache(maxsize=64)
def constant_matrix(size: int, factor: float, blur: float, profile: str, width: float) -> Tensor:
    """`axis_matrix` for parameters that are the same for all images, ``(1, measured, size)``."""

    def one(value: float) -> Tensor:
        return torch.tensor([value])

    # Cached for all callers: a tensor born in inference mode could not take part in a later gradient.
    with torch.inference_mode(False):
        return axis_matrix(size, one(factor), measured_size(size, factor), one(blur), profile, one(width))


def interpolation_matrix(size: int, factor: float, measured: int) -> Tensor:
    """Linear interpolation from the scanner's grid to the image grid along one axis: ``(size, measured)``, edges held."""
    position = (torch.arange(size) - (size - 1) / 2) / factor + (measured - 1) / 2
    position = position.clamp(0, measured - 1)
    lower = position.floor().long().clamp(max=max(measured - 2, 0))
    share = position - lower
    matrix = torch.zeros(size, measured)
    rows = torch.arange(size)
    matrix[rows, lower] = 1 - share
    matrix[rows, (lower + 1).clamp(max=measured - 1)] += share
    return matrix


def along(u: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Apply matrices ``(out, in)`` or ``(batch, out, in)`` along one of the last three axes of ``(batch, 1, ..., ...)``."""
    moved = u.movedim(axis, -2)
    if matrix.ndim == 3:
        matrix = matrix.view(matrix.shape[0], *[1] * (moved.ndim - 3), *matrix.shape[1:])
    return _matmul(matrix, moved).movedim(-2, axis)


def along_band(u: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """`along` for a matrix ``(out, in)`` whose rows have few values next to each other: blocks of rows times what they look at."""
    moved = u.movedim(axis, -2)
    parts = []
    for rows in torch.split(matrix, BAND_ROWS):
        seen = (rows != 0).any(0).nonzero()[:, 0]
        first, last = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 1)
        parts.append(_matmul(rows[:, first:last], moved[..., first:last, :]))
    return torch.cat(parts, -2).movedim(-2, axis)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product in the operands' own precision: a network's autocast must not round what the scanner measures."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def interpolate(y: Tensor, factors: tuple[float, float, float], shape: Sequence[int]) -> Tensor:
    """Measurements interpolated linearly on the image grid.

    Args:
        y: ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
        factors: length of a scanner voxel in image voxels along x, y, z.
        shape: image tensor's shape; only its last two or three axes are used.
    """
    for axis, factor in zip((-1, -2, -3)[: y.ndim - 2], factors, strict=False):
        if factor != 1.0 or y.shape[axis] != shape[axis]:
            y = along(y, interpolation_matrix(shape[axis], factor, y.shape[axis]).to(y), axis)
    return y
