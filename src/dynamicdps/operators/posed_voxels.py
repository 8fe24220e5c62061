"""Thick voxels of a scan that lies askew in the image: what a second scan of a head measures of the first one's grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.operators.linear import DataSpectrum
from dynamicdps.operators.linear_interpolation import LinearInterpolation
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.operator import Composition, LinearOperator, Operator, Scanner, Size
from dynamicdps.operators.parameters import check_images
from dynamicdps.operators.resample import AffineResample
from dynamicdps.operators.sampling import along_band, constant_matrix
from dynamicdps.operators.swap_slice_axis import SwapSliceAxis
from dynamicdps.volumes.grids import Grid

# Beyond this angle to the image's axes the profile of a slice is not along one of them any more.
MOST_DEGREES = 15.0
# Reading between voxels blurs by this variance in voxels on average; what a variance is in the square of a profile's width.
INTERPOLATED = 1 / 6
SQUARE_OF_WIDTH = {"box": 12.0, "gaussian": 8 * math.log(2), "sinc": 8 * math.log(2)}
# A variance in voxels that is no blur.
NEGLIGIBLE = 0.02
# Weights below this share of the largest one are left out: they are below what float32 keeps of a sum. Leaving out more (1e-6) moved a pose
# that its scan hardly determines by 0.4 mm.
TAIL = 1e-9


@dataclass(frozen=True, eq=False)
class PosedVoxels(LinearOperator):
    """Means over voxels in any position: the image blurred along its own axes, read linearly at the voxels' centres.

    The blur is that of the voxel's edges along the image axes nearest to them. For a scan turned by 4 degrees the far end of a slice 5 mm
    thick is misplaced by 0.2 mm; the voxel's place is exact. That costs a quarter of a resampling of the image onto the scan's own axes,
    and blurs less: what is interpolated between is smooth already.

    Attributes:
        scanner: linear part and noise of the scan on its own grid; a contrast is ignored.
        matrix: ``(4, 4)``, measured voxel indices ``(x, y, z, 1)`` to image voxel indices.
        measured: grid of the scan ``(x, y, z)``.
        slice_axis: measured axis across the slices.
        pixel: edge of the scan's own image voxels in image voxels, in the plane and across it: the scanner's lengths count them.
        motion: ``(slices, 4, 4)``, where each slice lies beyond its place by `matrix`, image voxel indices to image voxel indices; `None`
            where the head kept still.
    """

    scanner: LowField
    matrix: NDArray[np.float64]
    measured: tuple[int, int, int]
    slice_axis: int
    pixel: tuple[float, float]
    motion: NDArray[np.float64] | None = None

    @property
    def parts(self) -> Sequence[Operator]:
        return (self.scanner,)

    @property
    def couples_slices(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        check_images(x.shape)
        return self._points(x.shape, x).gather(self.blurred(x).flatten(2)).view(*x.shape[:2], *self.measured[::-1])

    def blurred(self, x: Tensor) -> Tensor:
        """Images as thick voxels show them, before any is read."""
        for axis, matrix in self._blurs(x.shape, x):
            x = along_band(x, matrix, axis)
        return x

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        x = self._points(shape, w).scatter(w.flatten(2)).view(tuple(shape))
        for axis, matrix in self._blurs(shape, w):
            x = along_band(x, matrix.mT, axis)
        return x

    def select(self, index: Tensor) -> "PosedVoxels":
        del index
        return self

    def grid(self, image: Grid) -> Grid:
        return self._resample.grid(image)

    def covered_shape(self, measured: Size) -> Size:
        return self._resample.covered_shape(measured)

    @cached_property
    def _resample(self) -> AffineResample:
        return AffineResample(torch.from_numpy(self.matrix), self.measured)

    @cached_property
    def _known(self) -> dict[tuple[object, ...], LinearInterpolation]:
        return {}

    def _points(self, shape: Sequence[int], like: Tensor) -> LinearInterpolation:
        """The voxels' centres in the image; kept, because every step of a solver asks for them."""
        key = (*shape[2:], like.dtype, like.device)
        if key not in self._known:
            self._known[key] = (
                self._resample.interpolation(shape, like) if self.motion is None else self._moved_points(self.motion, shape, like)
            )
        return self._known[key]

    def _moved_points(self, motion: NDArray[np.float64], shape: Sequence[int], like: Tensor) -> LinearInterpolation:
        """The voxels' centres where each slice has a place of its own."""
        index = np.moveaxis(np.indices(self.measured), 0, -1)
        matrices = motion @ self.matrix
        # One matrix a slice, its axis kept so that it goes along the voxels' other axes.
        matrices = matrices.reshape(*(-1 if axis == self.slice_axis else 1 for axis in range(3)), 4, 4)
        position = (matrices[..., :3, :3] @ index[..., None])[..., 0] + matrices[..., :3, 3]
        # Positions and what is measured go by z, y, x.
        ordered = np.ascontiguousarray(position.transpose(2, 1, 0, 3).reshape(1, -1, 3)[..., ::-1])
        return LinearInterpolation.at(torch.from_numpy(ordered).to(like), tuple(shape[2:]))

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        """That of the scan on its own image grid, which a pose hardly changes."""
        if mixing is not None:
            return None
        own = self._upright
        covered = own.covered_shape(self.measured)
        return own.data_spectrum((*shape[:2], *covered[::-1]), like)

    @property
    def _upright(self) -> Operator:
        flat = replace(self.scanner, gamma=1.0)
        return flat if self.slice_axis == 2 else SwapSliceAxis(flat, self.slice_axis)

    def _blurs(self, shape: Sequence[int], like: Tensor) -> list[tuple[int, Tensor]]:
        """A square matrix for each image axis, with its (negative) axis."""
        scanner, (plane, through) = self.scanner, self.pixel
        found = []
        nearest = np.abs(self.matrix[:3, :3] / np.linalg.norm(self.matrix[:3, :3], axis=0)).argmax(0)
        for measured_axis, image_axis in enumerate(nearest.tolist()):
            size = shape[-1 - image_axis]
            if measured_axis != self.slice_axis:
                # A voxel's mean and a Gaussian add their variances; an image voxel is a mean already.
                width, blur = scanner.in_plane_factor * plane, float(scanner.blur) * plane
                variance = blur**2 + max(width**2 - 1, 0.0) / 12 - INTERPOLATED
                if variance > NEGLIGIBLE:
                    found.append((-1 - image_axis, _band(constant_matrix(size, 1.0, math.sqrt(variance), "box", 1.0)).to(like)))
            elif scanner.slice_thickness is not None:
                width = scanner.slice_thickness / scanner.image_spacing * through
                width = math.sqrt(max(width**2 - INTERPOLATED * SQUARE_OF_WIDTH[scanner.slice_profile], 1.0))
                found.append((-1 - image_axis, _band(constant_matrix(size, 1.0, 0.0, scanner.slice_profile, width)).to(like)))
        return found


def _band(matrix: Tensor) -> Tensor:
    """The ``(1, out, in)`` matrix as ``(out, in)`` without the far tails of its profiles."""
    return torch.where(matrix[0].abs() > TAIL * matrix.abs().max(), matrix[0], torch.zeros_like(matrix[0]))


def posed(
    operator: Operator,
    own_shape: Size,
    own_affine: NDArray[np.float64],
    image_affine: NDArray[np.float64],
    motion: NDArray[np.float64] | None = None,
) -> Operator | None:
    """An operator of a scan's own image grid as one of another image grid; `None` where `PosedVoxels` does not describe it.

    Args:
        operator: `LowField`, also with another slice axis.
        own_shape: image grid that it is made for.
        own_affine: its place in mm.
        image_affine: that of the image.
        motion: ``(slices, 4, 4)``, movement in mm of each measured slice from the place that `own_affine` gives it.
    """
    if isinstance(operator, Composition):
        *outer, innermost = operator.operators
        if not all(part.is_linear and part.linear.is_pointwise for part in outer if part.linear is not None):
            return None
        moved = posed(innermost, own_shape, own_affine, image_affine, motion)
        return None if moved is None else Composition((*outer, moved))
    inner, across = (operator.inner, operator.axis) if isinstance(operator, SwapSliceAxis) else (operator, 2)
    if not isinstance(inner, LowField) or isinstance(inner.blur, Tensor):
        return None
    to_image = np.linalg.inv(image_affine) @ own_affine
    columns = np.linalg.norm(to_image[:3, :3], axis=0)
    cosines = np.abs(to_image[:3, :3] / columns)
    if len(set(cosines.argmax(0).tolist())) < 3 or np.rad2deg(np.arccos(np.clip(cosines.max(0), 0, 1))).max() > MOST_DEGREES:
        return None
    if motion is None and np.allclose(to_image, np.rint(to_image), atol=1e-3):
        return None  # The scan's own voxels are the image's: nothing has to be read between them.
    measured = operator.grid(Grid(own_shape, np.eye(4)))
    in_plane = [columns[a] for a in range(3) if a != across]
    pixel = float(np.mean(in_plane)), float(columns[across])
    in_voxels = None if motion is None else np.linalg.inv(image_affine) @ motion @ image_affine
    linear = PosedVoxels(inner, to_image @ measured.affine, measured.shape, across, pixel, in_voxels)
    return Scanner(linear, operator.contrast)
