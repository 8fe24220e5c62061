"""Blur that differs by direction, and blur by motion during the scan.

Both are convolutions whose rows are weighted anew at the borders: ``y = (k * x) / (k * 1)``, with nothing outside the image. A
constant stays constant, and because the kernels are symmetric the adjoint is ``k * (w / (k * 1))``. The convolutions are linear, by
Fourier transforms on an image padded so far that nothing wraps around.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.operators.operator import LinearOperator, SameGrid
from dynamicdps.operators.parameters import Parameter, check_images, check_range
from dynamicdps.operators.sampling import along, axis_matrix

# Standard deviation of a voxel's own extent: a narrower kernel at an angle would fall between the voxels.
LEAST_STD = 0.29
# Points along a motion path.
POINTS = 128


@dataclass(frozen=True, eq=False)
class AnisotropicBlur(LinearOperator, SameGrid):
    """A Gaussian blur with a standard deviation along each of its axes, turned in the plane.

    Attributes:
        std_x: standard deviation along the turned x axis (towards higher columns), image voxels, 0 to 20, one or ``(batch,)``. Below
            0.29 it counts as 0.29 unless both are 0.
        std_y: likewise along the turned y axis (towards higher rows).
        std_z: across slices; applies to volumes.
        angle: of the axes in the plane, degrees, from columns towards rows.

    Raises:
        InputError: a parameter is out of its range.
    """

    std_x: Parameter = 0.0
    std_y: Parameter = 0.0
    std_z: Parameter = 0.0
    angle: Parameter = 0.0

    def __post_init__(self) -> None:
        for name in ("std_x", "std_y", "std_z"):
            check_range(name, getattr(self, name), 0.0, 20.0)
        check_range("angle", self.angle, -360.0, 360.0)

    @property
    def couples_slices(self) -> bool:
        return bool((torch.as_tensor(self.std_z) > 0).any())

    def forward(self, x: Tensor) -> Tensor:
        check_images(x.shape)
        kernel, across = self._kernel(x), self._across(x)
        y = x if kernel is None else _convolve(x, kernel) / _convolve(torch.ones_like(x[:1]), kernel)
        return y if across is None else along(y, across, -3)

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        kernel, across = self._kernel(w), self._across(w)
        u = w if across is None else along(w, across.transpose(-1, -2), -3)
        return u if kernel is None else _convolve(u / _convolve(torch.ones_like(w[:1]), kernel), kernel)

    def _kernel(self, x: Tensor) -> Tensor | None:
        """``(batch or 1, 2 height - 1, 2 width - 1)``: as far as two voxels of the image lie apart."""
        if all(not isinstance(std, Tensor) and std == 0 for std in (self.std_x, self.std_y)):
            return None
        std_x, std_y, angle = (_values(value, x) for value in (self.std_x, self.std_y, self.angle))
        least = torch.where((std_x > 0) | (std_y > 0), LEAST_STD, 1e-3)
        height, width = x.shape[-2:]
        rows = torch.arange(1 - height, height, dtype=x.dtype, device=x.device)[:, None]
        columns = torch.arange(1 - width, width, dtype=x.dtype, device=x.device)
        cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
        first, second = cos * columns + sin * rows, cos * rows - sin * columns
        kernel = torch.exp(-0.5 * ((first / torch.maximum(std_x, least)) ** 2 + (second / torch.maximum(std_y, least)) ** 2))
        return kernel / kernel.sum((-2, -1), keepdim=True)

    def _across(self, x: Tensor) -> Tensor | None:
        """One row of weights for each slice."""
        if x.ndim == 4 or (not isinstance(self.std_z, Tensor) and self.std_z == 0):
            return None
        std = _values(self.std_z, x).flatten()
        return axis_matrix(x.shape[-3], torch.ones_like(std), x.shape[-3], std)


@dataclass(frozen=True, eq=False)
class MotionBlur(LinearOperator, SameGrid):
    """The mean of the image over a straight movement in the plane at constant speed.

    Attributes:
        length: of the path, image voxels, 0 to 64, one or ``(batch,)``.
        angle: of the path, degrees, from columns towards rows, one or ``(batch,)``.

    Raises:
        InputError: a parameter is out of its range.
    """

    length: Parameter
    angle: Parameter = 0.0

    def __post_init__(self) -> None:
        check_range("length", self.length, 0.0, 64.0)
        check_range("angle", self.angle, -360.0, 360.0)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x.shape)
        kernel = self._kernel(x)
        return _convolve(x, kernel) / _convolve(torch.ones_like(x[:1]), kernel)

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        kernel = self._kernel(w)
        return _convolve(w / _convolve(torch.ones_like(w[:1]), kernel), kernel)

    def _kernel(self, x: Tensor) -> Tensor:
        """Points along the path, each shared between its four voxels; voxels that the path does not reach have weight 0."""
        length, angle = _values(self.length, x), torch.deg2rad(_values(self.angle, x))
        reach = math.ceil(float(length.detach().max()) / 2) + 1
        offset = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
        path = ((torch.arange(POINTS, dtype=x.dtype, device=x.device) + 0.5) / POINTS - 0.5) * length[:, 0]
        rows = (1 - (offset - (path * torch.sin(angle[:, 0]))[..., None]).abs()).clamp_min(0)
        columns = (1 - (offset - (path * torch.cos(angle[:, 0]))[..., None]).abs()).clamp_min(0)
        return torch.einsum("bpr,bpc->brc", rows, columns) / POINTS


def _values(value: Parameter, x: Tensor) -> Tensor:
    """``(batch or 1, 1, 1)``."""
    return torch.as_tensor(value).to(x).reshape(-1, 1, 1)


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Sum over offsets of kernel times image, zeros outside.

    Args:
        x: ``(batch, 1, [depth,] height, width)``.
        kernel: ``(batch or 1, rows, columns)``, odd, its centre in the middle.
    """
    half = [(m - 1) // 2 for m in kernel.shape[-2:]]
    # The padded size holds the kernel, and no voxel's share comes around to another.
    size = [max(n + h, 2 * h + 1) for n, h in zip(x.shape[-2:], half, strict=True)]
    padded = torch.nn.functional.pad(kernel, (0, size[1] - kernel.shape[2], 0, size[0] - kernel.shape[1]))
    transfer = torch.fft.rfft2(torch.roll(padded, (-half[0], -half[1]), (-2, -1)))
    transfer = transfer.view(len(kernel), *[1] * (x.ndim - 3), *transfer.shape[-2:])
    out: Tensor = torch.fft.irfft2(torch.fft.rfft2(x, s=size) * transfer, s=size)[..., : x.shape[-2], : x.shape[-1]]
    return out
