"""Volumes small enough to lie inside a page: cropped, in few grey levels, thinned where they must be, as packed NIfTI in base64."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from dynamicdps.volumes import Volume

# Of base64 text; with the viewer's program (2.3 MB) and the pre-rendered slices a page stays under 25 MB.
MAX_TEXT = 20_500_000
# Thinning leaves axes that are short already: the slices of a thick-slice scan.
MIN_AXIS = 64
MARGIN_VOXELS = 4
MAX_INT16_LEVELS = 60_000
UINT8_LEVELS = 255
# Bytes before the voxels.
NIFTI_HEADER = 352


@dataclass(frozen=True)
class Embedded:
    """A volume as it lies in the page.

    Attributes:
        text: base64 of a gzipped NIfTI file in RAS order with an otherwise empty header, its voxels as `differences`.
        level: one grey level in the volume's units; values read back are right to half of it.
        every: along each axis one voxel of so many is kept.
    """

    text: str
    level: float
    every: tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """A part of a grid, in voxel indices: a slice along x, y, z."""

    grid: Volume
    x: slice
    y: slice
    z: slice

    @classmethod
    def around(cls, grid: Volume, signal: NDArray[np.bool_]) -> "Box":
        """The smallest box that holds the voxels that are true, with a margin of four; the whole grid where none is."""
        if not signal.any():
            return cls(grid, *(slice(0, n) for n in grid.shape))
        extents = [np.flatnonzero(signal.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        limits = [(int(i[0]) - MARGIN_VOXELS, int(i[-1]) + 1 + MARGIN_VOXELS) for i in extents]
        return cls(grid, *(slice(max(0, low), min(n, high)) for (low, high), n in zip(limits, grid.shape, strict=True)))

    def within(self, volume: Volume) -> "Box":
        """The part of the box that another volume covers; the box itself where that is none of it."""
        corners = np.array(list(product(*((-0.5, n - 0.5) for n in volume.shape))))
        index = apply_affine(np.linalg.inv(self.grid.affine) @ volume.affine, corners)
        ends = zip((self.x, self.y, self.z), np.floor(index.min(0)), np.ceil(index.max(0)), strict=True)
        parts = [slice(max(axis.start, int(low)), min(axis.stop, int(high) + 1)) for axis, low, high in ends]
        return self if any(part.start >= part.stop for part in parts) else Box(self.grid, *parts)

    def crop(self, volume: Volume) -> Volume:
        """The part of a volume, on this grid or another, that covers the box; the whole volume where nothing does."""
        corners = np.array(list(product(*((a.start - 0.5, a.stop - 0.5) for a in (self.x, self.y, self.z)))))
        index = apply_affine(np.linalg.inv(volume.affine) @ self.grid.affine, corners)
        # A voxel reaches half its length beyond its centre; the tiny share absorbs rounding.
        low = np.clip(np.ceil(index.min(0) - 0.5 + 1e-3), 0, volume.shape).astype(int)
        high = np.clip(np.floor(index.max(0) + 0.5 - 1e-3) + 1, 0, volume.shape).astype(int)
        if (high <= low).any():
            return volume
        affine = volume.affine.copy()
        affine[:3, 3] = apply_affine(volume.affine, low)
        return Volume(np.ascontiguousarray(volume.data[tuple(map(slice, low, high))]), affine)


def embed_all(volumes: Mapping[str, tuple[Volume, float]], max_text: int = MAX_TEXT) -> dict[str, Embedded]:
    """Embed volumes so that together they stay within a size; long axes are thinned alike until they do.

    Args:
        volumes: each with its wanted grey level, by name.
        max_text: most characters of base64 text.
    """
    factor = 1
    while True:
        embedded = {name: embed(volume, level, _thinning(volume.shape, factor)) for name, (volume, level) in volumes.items()}
        shortest = max((n for volume, _ in volumes.values() for n in volume.shape), default=0) // factor < MIN_AXIS
        if sum(len(e.text) for e in embedded.values()) <= max_text or shortest:
            return embedded
        factor += 1


def embed(volume: Volume, level: float, every: tuple[int, int, int] = (1, 1, 1)) -> Embedded:
    """Embed one volume.

    Args:
        volume: any units; values that are not finite become 0.
        level: wanted grey level, greater than 0; coarser where the range asks for more than 60,000 of them.
        every: keep one voxel of so many along x, y, z. Kept voxels keep their own values: nothing is averaged.
    """
    kept = Volume(volume.data[:: every[0], :: every[1], :: every[2]], volume.affine @ np.diag([*every, 1.0]))
    image, level = _quantised(kept, level)
    header, stored = image.to_bytes()[:NIFTI_HEADER], np.asanyarray(image.dataobj)
    # mtime 0: the same volume gives the same page.
    packed = gzip.compress(header + differences(stored.ravel(order="F")), compresslevel=6, mtime=0)
    return Embedded(base64.b64encode(packed).decode("ascii"), level, every)


def differences(values: NDArray[Any]) -> bytes:
    """Each value's difference to the one before, which packs a quarter smaller; the viewer sums them up again.

    Differences wrap as the integers do. Their signs move to the lowest bit, so that small ones are small positive numbers, and the low
    bytes of all values come before the high ones, which are mostly 0.

    Args:
        values: uint8 or int16, ``(voxels,)``.
    """
    size = values.itemsize
    signed: NDArray[np.integer] = np.diff(values, prepend=values.dtype.type(0)).view(f"i{size}")
    folded: NDArray[np.integer] = (signed << 1) ^ (signed >> (8 * size - 1))
    content: bytes = folded.astype(f"<i{size}").view(np.uint8).reshape(-1, size).T.tobytes()
    return content


def pack(volume: Volume, level: float) -> tuple[bytes, float]:
    """A volume as a gzipped NIfTI file of 8 or 16 bits in RAS order, whose header holds nothing but grid and scale.

    Args:
        volume: as for `embed`.
        level: likewise.

    Returns:
        The file, and the grey level that it has.
    """
    image, level = _quantised(volume, level)
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0), level


def _quantised(volume: Volume, level: float) -> tuple[nib.Nifti1Image, float]:
    data = np.nan_to_num(volume.data, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    low, high = float(data.min(initial=0)), float(data.max(initial=0))
    level = _short(max(level, (high - low) / (MAX_INT16_LEVELS - 500)))
    # A multiple of the level, so that 0, the background, stays 0 exactly.
    first = np.floor(low / level)
    levels = np.rint(data / level) - first
    if levels.max(initial=0) <= UINT8_LEVELS:
        stored, intercept = levels.astype(np.uint8), first * level
    else:
        middle = MAX_INT16_LEVELS // 2
        stored, intercept = (levels - middle).astype(np.int16), (first + middle) * level
    image = nib.Nifti1Image(stored, volume.affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(level, intercept)
    return image, level


def _short(level: float) -> float:
    """The level with eight binary digits: its multiples are exact in the header's float32, and so is what is read back."""
    mantissa, exponent = np.frexp(level)
    return float(np.ldexp(np.floor(mantissa * 2**8), exponent - 8))


def _thinning(shape: Sequence[int], factor: int) -> tuple[int, int, int]:
    x, y, z = (factor if n >= MIN_AXIS else 1 for n in shape)
    return x, y, z
