"""Grids that a result can be written on, and values of a volume there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.volume import RAS, Native, Volume, load

MAX_VOXELS = 512**3


@dataclass(frozen=True)
class Grid:
    """Voxel centres in space.

    Attributes:
        shape: size ``(x, y, z)``.
        affine: voxel indices to RAS mm, axes in RAS order.
        native: orientation and type with which a volume on this grid is written.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    native: Native = field(default=RAS, repr=False)

    def same_as(self, volume: Volume) -> bool:
        """Whether a volume lies on this grid, to a ten thousandth of a mm."""
        return self.shape == volume.shape and bool(np.allclose(self.affine, volume.affine, atol=1e-4))


def native_grid(volume: Volume) -> Grid:
    """The grid of the scan itself."""
    return Grid(volume.shape, volume.affine, volume.native)


def like(reference: str | Path | Volume) -> Grid:
    """The grid of another image, written in its orientation.

    Raises:
        InputError: as `load`.
    """
    return native_grid(reference if isinstance(reference, Volume) else load(reference))


def prior_grid(volume: Volume, spacing_mm: float = 1.0) -> Grid:
    """Cubes along the axes of the world (right, front, up) that cover the scan to the outer faces of its voxels.

    Args:
        volume: the scan, in any position.
        spacing_mm: edge of a voxel; 1 mm is what the bundled priors know.

    Raises:
        InputError: the edge is not 0.1 to 20 mm, or the grid would have more than 512 cubed voxels.
    """
    if not 0.1 <= spacing_mm <= 20:
        raise InputError(f"the voxel size is {spacing_mm!r} mm; expected 0.1 to 20 mm")
    faces = np.array(list(product(*[(-0.5, n - 0.5) for n in volume.shape])))
    corners = apply_affine(volume.affine, faces)
    low, high = corners.min(0), corners.max(0)
    counts = np.maximum(1, np.ceil((high - low) / spacing_mm - 1e-3)).astype(int)
    return _cubes((low + high) / 2 - spacing_mm * (counts - 1) / 2, counts, spacing_mm)


def grid_over(points: Sequence[NDArray[np.float64]], spacing_mm: float = 1.0) -> Grid:
    """Cubes along the axes of the world over points ``(3,)`` in mm, the first at whole mm, so that grids of 1 mm share their voxels.

    Raises:
        InputError: the grid would have more than 512 cubed voxels.
    """
    first = np.floor(np.min(points, axis=0))
    return _cubes(first, (np.ceil((np.max(points, axis=0) - first) / spacing_mm) + 1).astype(int), spacing_mm)


def _cubes(first: NDArray[np.float64], counts: NDArray[np.int_], spacing_mm: float) -> Grid:
    if counts.prod() > MAX_VOXELS:
        size = " x ".join(map(str, counts))
        raise InputError(f"the grid would have {size} voxels; expected at most 512 cubed; take larger voxels or check the scan's affine")
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = first
    x, y, z = counts.tolist()
    return Grid((x, y, z), affine)


def covering(inner: Volume, scan: Volume) -> Grid:
    """The grid of an image, continued by whole voxels until it covers a scan: what is in the image needs no interpolation there.

    Args:
        inner: the image.
        scan: what is to be covered to the outer faces of its voxels.

    Raises:
        InputError: the grid would have more than 512 cubed voxels.
    """
    faces = np.array(list(product(*[(-0.5, n - 0.5) for n in scan.shape])))
    corners = apply_affine(np.linalg.inv(inner.affine) @ scan.affine, faces)
    before = np.maximum(0, np.ceil(-0.5 - corners.min(0) - 1e-3)).astype(int)
    after = np.maximum(0, np.ceil(corners.max(0) - (np.array(inner.shape) - 0.5) - 1e-3)).astype(int)
    counts = np.array(inner.shape) + before + after
    if counts.prod() > MAX_VOXELS:
        size = " x ".join(map(str, counts))
        raise InputError(f"the grid would have {size} voxels; expected at most 512 cubed; check the affines")
    affine = inner.affine.copy()
    affine[:3, 3] = apply_affine(inner.affine, -before)
    x, y, z = counts.tolist()
    return Grid((x, y, z), affine, inner.native)


def target_grid(name: str | Path, volume: Volume) -> Grid:
    """A grid by its name.

    Args:
        name: ``"prior"`` (1 mm), ``"native"`` (the scan's) or an image file whose grid is taken.
        volume: the scan.

    Raises:
        InputError: it is neither name and no image.
    """
    if str(name) == "prior":
        return prior_grid(volume)
    if str(name) == "native":
        return native_grid(volume)
    return _grid_of_file(name)


def check_grid(name: str | Path) -> None:
    """Refuse the name of a grid that no scan can have, before there is a scan.

    Raises:
        InputError: as `target_grid`.
    """
    if str(name) not in ("prior", "native"):
        _grid_of_file(name)


def _grid_of_file(name: str | Path) -> Grid:
    if not Path(name).exists():
        raise InputError(f"there is no grid {str(name)!r}; expected prior, native or an image file")
    return like(name)


def covered(volume: Volume, grid: Grid) -> NDArray[np.bool_]:
    """Whether the voxels of a grid have their centres within the faces of a volume's."""
    matrix = np.linalg.inv(volume.affine) @ grid.affine
    x, y, z = np.ogrid[tuple(map(slice, grid.shape))]
    inside = np.ones(grid.shape, bool)
    for (a, b, c, first), count in zip(matrix[:3], volume.shape, strict=True):
        at = a * x + b * y + c * z + first
        inside &= (at >= -0.5 - 1e-6) & (at <= count - 0.5 + 1e-6)
    return inside


def sample(volume: Volume, grid: Grid, order: int = 1) -> Volume:
    """Values of a volume at the voxels of a grid; 0 outside the faces of its voxels.

    In the outer half of the border voxels, beyond their centres, the border's value goes on: thick slices end at their faces.

    Args:
        volume: the source.
        grid: where to.
        order: of the spline: 0 nearest, 1 linear, 3 cubic.
    """
    from scipy import ndimage

    if grid.same_as(volume):
        return Volume(volume.data, volume.affine, grid.native)
    matrix = np.linalg.inv(volume.affine) @ grid.affine
    first = np.rint(matrix[:3, 3]).astype(int)
    if np.allclose(matrix[:3, :3], np.eye(3), atol=1e-6) and np.allclose(matrix[:3, 3], first, atol=1e-4):
        # The grid's voxels are the volume's: nothing lies between them.
        out = np.zeros(grid.shape, np.float32)
        low, high = np.maximum(0, -first), np.minimum(grid.shape, np.array(volume.shape) - first)
        if (high > low).all():
            out[tuple(map(slice, low, high))] = volume.data[tuple(map(slice, low + first, high + first))]
        return Volume(out, np.array(grid.affine, dtype=np.float64), grid.native)
    out = np.empty(grid.shape, np.float32)
    plane = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape[:2]], indexing="ij"), axis=-1)
    source = ndimage.spline_filter(volume.data, order, output=np.float32, mode="nearest") if order > 1 else volume.data
    last = np.array(volume.shape) - 1
    for z in range(grid.shape[2]):
        at = plane @ matrix[:3, :2].T + matrix[:3, 2] * z + matrix[:3, 3]
        inside = ((at >= -0.5 - 1e-6) & (at <= last + 0.5 + 1e-6)).all(-1)
        values = ndimage.map_coordinates(source, np.moveaxis(np.clip(at, 0, last), -1, 0), order=order, mode="nearest", prefilter=False)
        out[..., z] = np.where(inside, values, 0)
    return Volume(out, np.array(grid.affine, dtype=np.float64), grid.native)
