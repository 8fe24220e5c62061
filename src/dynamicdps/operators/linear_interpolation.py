"""Linear interpolation at any positions, with its exact transpose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LinearInterpolation:
    """Images at positions between their voxels; 0 outside, with a linear fall to it over one voxel.

    Attributes:
        size: image size along the axes that positions refer to.
        index: voxel of each corner around each position, flattened over those axes, ``(maps, corners, points)``.
        weight: its share, same shape; 0 for a corner outside the image.
    """

    size: tuple[int, ...]
    index: Tensor
    weight: Tensor

    @classmethod
    def at(cls, position: Tensor, size: Sequence[int]) -> "LinearInterpolation":
        """Corners and shares.

        Args:
            position: voxel indices, ``(maps, points, axes)``, one map for all images or one for each; differentiable.
            size: of the images along the axes, in the same order.
        """
        lower = position.detach().floor()
        share = position - lower
        indices, weights = [], []
        for corner in product((0, 1), repeat=len(size)):
            index = torch.zeros_like(lower[..., 0], dtype=torch.long)
            weight = torch.ones_like(share[..., 0])
            for axis, (step, n) in enumerate(zip(corner, size, strict=True)):
                place = lower[..., axis] + step
                inside = (place >= 0) & (place <= n - 1)
                weight = weight * inside * (share[..., axis] if step else 1 - share[..., axis])
                index = index * n + place.clamp(0, n - 1).long()
            indices.append(index)
            weights.append(weight)
        return cls(tuple(size), torch.stack(indices, 1), torch.stack(weights, 1))

    def gather(self, x: Tensor) -> Tensor:
        """``(batch, channels, voxels)`` to ``(batch, channels, points)``."""
        maps, corners, points = self.index.shape
        index = self.index.view(maps, 1, -1).expand(len(x), x.shape[1], -1)
        values = torch.gather(x, 2, index).view(*x.shape[:2], corners, points)
        return (values * self.weight[:, None].to(x)).sum(2)

    def scatter(self, w: Tensor) -> Tensor:
        """Transpose of `gather`: ``(batch, channels, points)`` to ``(batch, channels, voxels)``."""
        maps = len(self.index)
        index = self.index.view(maps, 1, -1).expand(len(w), w.shape[1], -1)
        values = (w[:, :, None] * self.weight[:, None].to(w)).flatten(2)
        return torch.zeros(*w.shape[:2], math.prod(self.size), dtype=w.dtype, device=w.device).scatter_add(2, index, values)
