"""Which slices of which grid a picture shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.volumes import Volume

MAX_SLICES = 3
BRAIN_THRESHOLD = 0.02
MIN_BRAIN_SHARE = 0.05
MARGIN_VOXELS = 4


@dataclass(frozen=True)
class Cut:
    """Which slices of which grid are shown, and which part of each.

    Attributes:
        grid: the volume on whose grid everything is shown.
        slices: indices along z.
        x: voxels along x.
        y: voxels along y.
    """

    grid: Volume
    slices: tuple[int, ...]
    x: slice
    y: slice

    @classmethod
    def through(cls, volume: Volume, scale: float, count: int = MAX_SLICES, margin: float = 0.2) -> "Cut":
        """Slices spread over those that hold signal, cropped to it.

        Args:
            volume: the grid, and the signal.
            scale: its units of one image-intensity unit.
            count: most slices.
            margin: share of the slices with signal that is left out at either end.
        """
        signal = volume.data > BRAIN_THRESHOLD * scale
        occupied = np.flatnonzero(signal.mean((0, 1)) >= MIN_BRAIN_SHARE)
        if not len(occupied):
            return cls.whole(volume, count, margin)
        x, y = (_extent(signal.any(axes)) for axes in ((1, 2), (0, 2)))
        return cls(volume, _spread(occupied, count, margin), x, y)

    @classmethod
    def whole(cls, volume: Volume, count: int = MAX_SLICES, margin: float = 0.2) -> "Cut":
        """Slices spread over the volume, uncropped; arguments as `through`."""
        return cls(volume, _spread(range(volume.shape[2]), count, margin), slice(0, volume.shape[0]), slice(0, volume.shape[1]))

    def of(self, volume: Volume) -> list[NDArray[np.float64]]:
        """The shown part of each slice of a volume, ``(x, y)``: its nearest voxels where it lies on another grid, 0 outside it."""
        return [np.nan_to_num(self._slice(volume, z)).astype(np.float64) for z in self.slices]

    def _slice(self, volume: Volume, z: int) -> NDArray[Any]:
        if volume.shape == self.grid.shape and np.allclose(volume.affine, self.grid.affine, atol=1e-3):
            return volume.data[self.x, self.y, z]
        x, y = np.meshgrid(np.arange(self.x.start, self.x.stop), np.arange(self.y.start, self.y.stop), indexing="ij")
        here = np.stack([x, y, np.full_like(x, z), np.ones_like(x)])
        index = np.einsum("ij,jxy->ixy", np.linalg.inv(volume.affine) @ self.grid.affine, here)[:3]
        size = np.array(volume.shape)[:, None, None]
        # A voxel reaches half its length beyond its centre.
        inside = ((index >= -0.5) & (index <= size - 0.5)).all(0)
        nearest = np.clip(np.rint(index).astype(int), 0, size - 1)
        return np.where(inside, volume.data[tuple(nearest)], 0)

    @property
    def labels(self) -> list[str]:
        """Height of each slice above the origin of the scan's coordinates."""
        centre = np.array([(n - 1) / 2 for n in self.grid.shape[:2]])
        heights = [round(float((self.grid.affine @ [*centre, z, 1.0])[2]), 1) + 0.0 for z in self.slices]
        return [f"z = {height:g} mm".replace("-", "\N{MINUS SIGN}") for height in heights]


def _spread(candidates: Sequence[int] | NDArray[np.int64], count: int, margin: float) -> tuple[int, ...]:
    chosen = np.unique(np.rint(np.quantile(np.asarray(candidates), np.linspace(margin, 1 - margin, count))).astype(int))
    return tuple(int(z) for z in chosen)


def _extent(occupied: Any) -> slice:
    index = np.flatnonzero(occupied)
    return slice(max(0, int(index[0]) - MARGIN_VOXELS), min(len(occupied), int(index[-1]) + 1 + MARGIN_VOXELS))
