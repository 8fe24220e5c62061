"""Measurement on another grid: any position and orientation, or lower resolution in the plane."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.linear_interpolation import LinearInterpolation
from dynamicdps.operators.operator import CentredGrid, LinearOperator, Size
from dynamicdps.operators.parameters import check_finite, check_images, check_range
from dynamicdps.operators.sampling import constant_matrix
from dynamicdps.operators.separable import SeparableOperator
from dynamicdps.volumes.grids import Grid


@dataclass(frozen=True, eq=False)
class AffineResample(LinearOperator):
    """Trilinear values of the image at the voxels of another grid.

    It takes points, not means: put a blur, `SliceProfile` or `InPlaneResolution` inside where the measured voxels are larger. Outside the
    image lies 0. A single slice is a volume of depth 1.

    Attributes:
        matrix: ``(4, 4)`` or ``(batch, 4, 4)``: scanner voxel indices ``(x, y, z, 1)`` to image voxel indices, so
            ``inv(image affine) @ scanner affine``.
        measured: scanner grid ``(x, y, z)``.

    Raises:
        InputError: the matrix is not affine and invertible, or a number is out of its range.
    """

    matrix: Tensor = field(metadata={"dims": 2})
    measured: tuple[int, int, int]

    def __post_init__(self) -> None:
        check_finite("matrix", self.matrix, (2, 3))
        last = torch.tensor([0, 0, 0, 1]).to(self.matrix)
        if self.matrix.shape[-2:] != (4, 4) or not bool((self.matrix[..., 3, :] == last).all()):
            raise InputError("the resampling matrix is not affine; expected 4 x 4 numbers with 0 0 0 1 in the last row")
        if not bool((torch.linalg.det(self.matrix[..., :3, :3].double()).abs() > 1e-9).all()):
            raise InputError("the resampling matrix has no inverse; expected a determinant other than 0")
        try:
            x, y, z = (int(n) for n in self.measured)
        except (TypeError, ValueError) as error:
            raise InputError(f"the measured grid is {self.measured!r}; expected three whole numbers x, y, z") from error
        if min(x, y, z) < 1 or max(x, y, z) > 4096:
            raise InputError(f"the measured grid is {(x, y, z)}; expected sizes from 1 to 4096")
        object.__setattr__(self, "measured", (x, y, z))

    @property
    def couples_slices(self) -> bool:
        # Single slices suffice where slice k of the measurement is slice k of the image and nothing else, and there is one.
        if self.measured[2] > 1:
            return True
        own = torch.tensor([0.0, 0.0, 1.0, 0.0]).to(self.matrix)
        return bool((self.matrix[..., 2, :] != own).any() or (self.matrix[..., :2, 2] != 0).any())

    def forward(self, x: Tensor) -> Tensor:
        found = self.interpolation(x.shape, x).gather(x.flatten(2))
        return found.view(*x.shape[:2], *self._measured_tail(x.shape))

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        return self.interpolation(shape, w).scatter(w.flatten(2)).view(tuple(shape))

    def grid(self, image: Grid) -> Grid:
        return Grid(self.measured, image.affine @ self._first_matrix(), image.native)

    def covered_shape(self, measured: Size) -> Size:
        """The image grid from its first voxel to the farthest one that the measured grid reaches."""
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in measured], (1,), indexing="ij")).reshape(4, -1)
        farthest = (self._first_matrix() @ corners)[:3].max(axis=1)
        x, y, z = (max(1, int(np.floor(p + 1e-6)) + 1) for p in farthest)
        return x, y, z

    def _first_matrix(self) -> NDArray[np.float64]:
        matrix = self.matrix if self.matrix.ndim == 2 else self.matrix[0]
        return np.asarray(matrix.detach().double().cpu().numpy())

    def _measured_tail(self, shape: Sequence[int]) -> tuple[int, ...]:
        check_images(shape)
        tail = self.measured[::-1]
        if len(shape) == 4 and tail[0] != 1:
            raise ValueError(f"the image is a single slice of shape {tuple(shape)}; expected a volume for a measured depth of {tail[0]}")
        return tail if len(shape) == 5 else tail[1:]

    def interpolation(self, shape: Sequence[int], like: Tensor) -> LinearInterpolation:
        """The measured voxels' places in images of a shape, and their neighbours' shares."""
        self._measured_tail(shape)
        matrix = (self.matrix if self.matrix.ndim == 3 else self.matrix[None]).to(like)
        axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in self.measured[::-1]]
        z, y, x = (a.flatten() for a in torch.meshgrid(*axes, indexing="ij"))
        position = torch.stack([x, y, z], 1) @ matrix[:, :3, :3].transpose(-1, -2) + matrix[:, None, :3, 3]
        depth = shape[2] if len(shape) == 5 else 1
        return LinearInterpolation.at(position.flip(-1), (depth, *shape[-2:]))


@dataclass(frozen=True, eq=False)
class InPlaneResolution(SeparableOperator, CentredGrid):
    """Means over larger voxels in the plane (anti-aliased); both grids share their centre.

    Attributes:
        factor: length of a measured voxel in image voxels, 1 to 32.

    Raises:
        InputError: a parameter is out of its range.
    """

    factor: float

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 1.0, 32.0)

    @property
    def _factors(self) -> tuple[float, float, float]:
        return float(self.factor), float(self.factor), 1.0

    def _matrices(self, shape: Sequence[int], like: Tensor) -> list[tuple[int, Tensor]]:
        check_images(shape)
        factor = float(self.factor)
        return [(axis, constant_matrix(shape[axis], factor, 0.0, "box", factor).to(like)) for axis in (-1, -2)]
