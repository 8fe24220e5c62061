"""A head that moves between the slices of a volume."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.linear_interpolation import LinearInterpolation
from dynamicdps.operators.operator import LinearOperator, SameGrid
from dynamicdps.operators.parameters import check_finite, check_images, check_range


@dataclass(frozen=True, eq=False)
class SliceMotion(LinearOperator, SameGrid):
    """Each slice turned about its centre, then shifted, in the plane, with bilinear interpolation; 0 comes in from outside.

    Attributes:
        angles: of the slices in degrees, from columns towards rows, ``(depth,)`` or ``(batch, depth)``. Differentiable.
        shifts: ``(depth, 2)`` or ``(batch, depth, 2)``: along x (columns) and y (rows), image voxels. Differentiable.

    Raises:
        InputError: a parameter is out of its range, or there are not as many angles as shifts.
    """

    angles: Tensor = field(metadata={"dims": 1})
    shifts: Tensor = field(metadata={"dims": 2})

    def __post_init__(self) -> None:
        check_finite("angles", self.angles, (1, 2))
        check_finite("shifts", self.shifts, (2, 3))
        check_range("angles", self.angles, -360.0, 360.0)
        check_range("shifts", self.shifts, -1000.0, 1000.0)
        if self.shifts.shape[-1] != 2 or self.shifts.shape[-2] != self.angles.shape[-1]:
            raise InputError(
                f"angles have shape {tuple(self.angles.shape)} and shifts {tuple(self.shifts.shape)}; expected as many pairs of shifts as "
                "angles; change them"
            )

    @property
    def couples_slices(self) -> bool:
        # A slice alone does not know which one it is.
        return self.angles.shape[-1] > 1

    def forward(self, x: Tensor) -> Tensor:
        found = self._interpolation(x.shape, x).gather(self._as_slices(x))
        return found.view(*self._slice_shape(x.shape), *x.shape[-2:]).movedim(1, 2).reshape(x.shape)

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        found = self._interpolation(shape, w).scatter(self._as_slices(w))
        return found.view(*self._slice_shape(shape), *w.shape[-2:]).movedim(1, 2).reshape(tuple(shape))

    def _slice_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Batch, depth, channels."""
        check_images(shape)
        depth = shape[2] if len(shape) == 5 else 1
        if depth != self.angles.shape[-1]:
            raise ValueError(f"the image has {depth} slices; expected {self.angles.shape[-1]}, one for each angle")
        return shape[0], depth, shape[1]

    def _as_slices(self, x: Tensor) -> Tensor:
        """``(batch * depth, channels, voxels)``."""
        batch, depth, channels = self._slice_shape(x.shape)
        volume = x if x.ndim == 5 else x[:, :, None]
        return volume.movedim(2, 1).reshape(batch * depth, channels, -1)

    def _interpolation(self, shape: Sequence[int], like: Tensor) -> LinearInterpolation:
        batch, depth, _ = self._slice_shape(shape)
        angles = torch.deg2rad(self.angles.to(like)).expand(batch, depth).reshape(-1, 1)
        shifts = self.shifts.to(like).expand(batch, depth, 2).reshape(-1, 1, 2)
        height, width = shape[-2:]
        rows = torch.arange(height, dtype=like.dtype, device=like.device) - (height - 1) / 2
        columns = torch.arange(width, dtype=like.dtype, device=like.device) - (width - 1) / 2
        y, x = (a.flatten() for a in torch.meshgrid(rows, columns, indexing="ij"))
        # Where each voxel of the moved slice comes from: the inverse of turn, then shift.
        x, y = x - shifts[..., 0], y - shifts[..., 1]
        cos, sin = torch.cos(angles), torch.sin(angles)
        position = torch.stack([cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2], -1)
        return LinearInterpolation.at(position, (height, width))
