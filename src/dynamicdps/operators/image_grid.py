"""Measurements on the image grid: what models and eyes look at, never what is explained."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynamicdps.operators.linear_interpolation import LinearInterpolation
from dynamicdps.operators.operator import Operator
from dynamicdps.operators.sampling import interpolate
from dynamicdps.volumes.grids import Grid


def voxel_factors(operator: Operator, shape: Sequence[int] = (64, 64, 64)) -> tuple[float, float, float]:
    """Length of a scanner voxel's edges in image voxels.

    Args:
        operator: the forward model.
        shape: image grid ``(x, y, z)``; it only matters to operators that know one grid.
    """
    nx, ny, nz = shape
    x, y, z = np.linalg.norm(operator.grid(Grid((nx, ny, nz), np.eye(4))).affine[:3, :3], axis=0).tolist()
    return x, y, z


def to_image_grid(y: Tensor, operator: Operator, shape: Sequence[int]) -> Tensor:
    """Measurements interpolated linearly where their voxels lie in the image; edges are held.

    Args:
        y: ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
        operator: its grid says where the voxels lie. Beyond half a voxel outside of a turned or shifted grid the result is 0.
        shape: of the image tensor; only its last two or three axes are used.
    """
    depth, height, width = (1, *shape[2:])[-3:]
    grid = operator.grid(Grid((width, height, depth), np.eye(4)))
    factors = np.diag(grid.affine)[:3]
    middle = grid.affine @ [*((n - 1) / 2 for n in grid.shape), 1]
    upright = bool((factors > 0).all()) and np.allclose(grid.affine[:3, :3], np.diag(factors), atol=1e-6)
    if upright and np.allclose(middle[:3], [(n - 1) / 2 for n in (width, height, depth)], atol=1e-3):
        x, y_, z = factors.tolist()
        return interpolate(y, (x, y_, z), shape)
    inverse = torch.from_numpy(np.linalg.inv(grid.affine)).to(y)
    axes = [torch.arange(n, dtype=y.dtype, device=y.device) for n in (depth, height, width)]
    z_, y_, x_ = (a.flatten() for a in torch.meshgrid(*axes, indexing="ij"))
    position = (torch.stack([x_, y_, z_], 1) @ inverse[:3, :3].T + inverse[:3, 3]).flip(-1)
    size = torch.tensor(grid.shape[::-1], dtype=y.dtype, device=y.device)
    inside = ((position >= -0.5 - 1e-4) & (position <= size - 0.5 + 1e-4)).all(-1)
    held = torch.minimum(position.clamp_min(0), size - 1)
    values = LinearInterpolation.at(held[None], grid.shape[::-1]).gather(y.flatten(2))
    return (values * inside).view(*y.shape[:2], *shape[2:])
