"""Images made of label maps: every contrast, resolution and shading, so that a network learns shapes only.

Billot et al. 2023 (SynthSeg) and Hoopes et al. 2022 (SynthStrip): networks that were trained on nothing else find structures in real scans
of any contrast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from dynamicdps.conditional.scanner_draws import smooth_field
from dynamicdps.errors import InputError
from dynamicdps.segmentation.classes import class_of

Array = NDArray[np.float32]
Labels = NDArray[np.uint8]

# Most rotation in degrees, logarithm of the scale, shear, shift in mm, and standard deviation of the smooth displacement in mm.
ANGLE, SCALING, SHEAR, SHIFT, BENDING = 20.0, 0.15, 0.08, 15.0, 4.0
# Control points of smooth fields along each axis.
KNOTS = (4, 10)
# Edge of a slice in mm that heads may be measured with.
THICKEST_MM = 9.0
# Shares of the draws: several outer tissues as one; no tissue around the brain; a slab; fat outside that outshines the brain, and how much.
MERGED, STRIPPED, SLAB, FATTY = 0.4, 0.12, 0.25, 0.3
FAT = (1.2, 3.0)
# Width of a slab in mm, drawn by its logarithm: from three slices of 4 mm to half a head.
SLAB_MM = (12.0, 110.0)
# Shares of the draws whose tissues have the contrast of a common scan, and its ranges of intensity: fluid, cortex, white matter, deep
# grey (thalamus and pallidum lie between it and white matter), brain stem. Low field has less contrast between them.
COMMON: dict[str, tuple[float, tuple[tuple[float, float], ...]]] = {
    "T1w": (0.3, ((0.05, 0.45), (0.5, 0.8), (0.8, 1.05), (0.6, 0.95), (0.75, 1.05))),
    "T2w": (0.15, ((0.8, 1.2), (0.5, 0.8), (0.3, 0.6), (0.3, 0.7), (0.3, 0.6))),
    "FLAIR": (0.1, ((0.03, 0.35), (0.6, 0.95), (0.45, 0.75), (0.45, 0.85), (0.5, 0.8))),
}
# Which of those ranges a class has.
TISSUE_OF_CLASS = (0, 0, 0, 1, 2, 1, 2, 3, 3, 3, 3, 1, 1, 3, 4, 4)


@dataclass(frozen=True)
class LabelMap:
    """A head's labels on a coarse grid.

    Attributes:
        tissues: number of each voxel's own label, ``(x, y, z)``; 0 is air.
        classes: class of each number, ``(numbers,)``.
    """

    tissues: Labels
    classes: Labels

    @classmethod
    def from_file(cls, path: str | Path, spacing_mm: float = 2.0) -> "LabelMap":
        """Read a label map with FreeSurfer's numbers, by the nearest label on a coarser grid.

        Raises:
            InputError: it cannot be read, is no map of whole numbers, or has no brain.
        """
        try:
            image = nibabel.as_closest_canonical(nibabel.load(path))
            data = np.asarray(image.dataobj)
        except (OSError, ImageFileError) as error:
            raise InputError(f"{path} cannot be read as a label map; expected a NIfTI file; check it") from error
        if data.ndim != 3 or not np.array_equal(data, np.rint(data)):
            raise InputError(f"{path} is no label map; expected whole numbers in three dimensions; check it")
        edges = np.linalg.norm(image.affine[:3, :3], axis=0)
        index = [
            np.clip(np.rint(np.arange(0, n * e, spacing_mm) / e).astype(int), 0, n - 1) for n, e in zip(data.shape, edges, strict=True)
        ]
        labels, numbers = np.unique(data[np.ix_(*index)].astype(int), return_inverse=True)
        classes = np.array([class_of(label) for label in labels.tolist()], np.uint8)
        if not (classes > 1).any() or len(labels) > 255:
            raise InputError(f"{path} holds no brain; expected labels of FreeSurfer's table, such as 2, 3, 41 and 42; check it")
        shape = tuple(len(i) for i in index)
        return cls(numbers.reshape(shape).astype(np.uint8), classes)


@dataclass(frozen=True)
class SyntheticHeads:
    """Draws images and their classes.

    Attributes:
        maps: heads.
        shape: of an image.
        spacing_mm: of its voxels and of the maps.
        count: images of a batch.
    """

    maps: Sequence[LabelMap]
    shape: tuple[int, int, int]
    spacing_mm: float = 2.0
    count: int = 1

    def pair(self, rng: np.random.Generator) -> tuple[Array, Labels]:
        """An image, its brightest percent at 1, and the class of each voxel; both of `shape`."""
        head = self.maps[int(rng.integers(len(self.maps)))]
        tissues = self._bent(head.tissues, rng)
        classes = head.classes[tissues]
        image = self._painted(tissues, classes, head.classes, rng)
        return self._scanned(image, classes, rng)

    def _bent(self, tissues: Labels, rng: np.random.Generator) -> Labels:
        """The labels turned, scaled, sheared, shifted, bent and perhaps mirrored, on the grid of an image."""
        matrix = np.diag(np.exp(rng.uniform(-SCALING, SCALING) + rng.uniform(-SCALING, SCALING, 3) / 2))
        matrix = Rotation.from_euler("xyz", rng.uniform(-ANGLE, ANGLE, 3), degrees=True).as_matrix() @ matrix
        matrix = matrix @ (np.eye(3) + rng.uniform(-SHEAR, SHEAR, (3, 3)) * (1 - np.eye(3)))
        if rng.random() < 0.5:
            matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
        middle = (np.array(tissues.shape) - 1) / 2 + rng.uniform(-SHIFT, SHIFT, 3) / self.spacing_mm
        grid = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in self.shape), indexing="ij")).astype(np.float32)
        places = np.tensordot(matrix.astype(np.float32), grid, 1) + middle.astype(np.float32)[:, None, None, None]
        amount = abs(rng.normal(0, BENDING)) / self.spacing_mm
        for axis in range(3):
            places[axis] += amount * smooth_field(self.shape, rng, int(rng.integers(*KNOTS)))
        index = np.rint(places).astype(np.int32)
        inside = np.ones(self.shape, bool)
        for axis, n in enumerate(tissues.shape):
            inside &= (index[axis] >= 0) & (index[axis] < n)
            np.clip(index[axis], 0, n - 1, out=index[axis])
        return np.where(inside, tissues[tuple(index)], 0).astype(np.uint8)

    def _painted(self, tissues: Labels, classes: Labels, of_number: Labels, rng: np.random.Generator) -> Array:
        """A mean and a spread for each label, textured; the air is dark."""
        count = len(of_number)
        means = rng.uniform(0.05, 1.0, count)
        common = list(COMMON.values())
        kind = int(rng.choice(len(common) + 1, p=[*(share for share, _ in common), 1 - sum(share for share, _ in common)]))
        if kind < len(common):
            of_tissue = [rng.uniform(*limits) for limits in common[kind][1]]
            means = np.array([of_tissue[TISSUE_OF_CLASS[c]] * rng.uniform(0.93, 1.07) if c else rng.uniform(0.0, 1.6) for c in of_number])
        elif rng.random() < 0.5:
            # Parts of one tissue alike, as in most scans.
            of_tissue = list(rng.uniform(0.05, 1.0, 5))
            means = np.array([of_tissue[TISSUE_OF_CLASS[c]] * rng.uniform(0.9, 1.1) if c else rng.uniform(0.0, 1.2) for c in of_number])
        outer = np.flatnonzero(of_number == 0)[1:]
        if len(outer) and rng.random() < MERGED:
            chosen = rng.random(len(outer)) < 0.5
            means[outer[chosen]] = rng.uniform(0, 1.2)
        if len(outer) and rng.random() < FATTY:
            # Scalp, neck and what lies behind the eyes; near the coil it is brighter still.
            means[outer[rng.random(len(outer)) < 0.3]] = rng.uniform(*FAT)
        means[0] = 0.0 if rng.random() < 0.5 else rng.uniform(0, 0.1)
        spreads = rng.uniform(0.0, 0.08, count)
        spreads[0] = rng.uniform(0, 0.02)
        image = means[tissues] + spreads[tissues] * rng.normal(size=tissues.shape)
        if rng.random() < 0.7:
            image = image + 0.1 * means[tissues] * rng.uniform(0, 1) * smooth_field(self.shape, rng, int(rng.integers(*KNOTS)))
        if rng.random() < STRIPPED:
            keep = ndimage.binary_dilation(classes > 1, iterations=int(rng.integers(1, 4)))
            image = np.where(keep, image, 0)
        return np.asarray(ndimage.gaussian_filter(image, rng.uniform(0.3, 0.8)), dtype=np.float32)

    def _scanned(self, image: Array, classes: Labels, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Shading, thick slices, noise, a field of view, and a bent scale of intensities."""
        image = image * np.exp(rng.uniform(0, 0.35) * smooth_field(self.shape, rng, int(rng.integers(*KNOTS)))).astype(np.float32)
        if rng.random() < 0.6:
            axis, thick = int(rng.integers(3)), rng.uniform(self.spacing_mm, THICKEST_MM) / self.spacing_mm
            image = _thick_slices(image, axis, thick, rng.uniform(0, thick))
        image = np.abs(image + rng.uniform(0, 0.1) ** 1.5 * rng.normal(size=self.shape)).astype(np.float32)
        if rng.random() < SLAB:
            axis, edge = int(rng.integers(3)), self.shape
            width = int(np.exp(rng.uniform(*np.log(SLAB_MM))) / self.spacing_mm)
            first = int(rng.integers(edge[axis] // 4, max(edge[axis] * 3 // 4 - width // 2, edge[axis] // 4 + 1)))
            outside = np.ones(edge[axis], bool)
            outside[max(0, first) : first + width] = False
            index = tuple(outside if a == axis else slice(None) for a in range(3))
            image[index] = 0
            classes = classes.copy()
            classes[index] = 0
        top = float(np.percentile(image[image > 0.02], 99)) if (image > 0.02).any() else 1.0
        image = np.clip(image / max(top, 1e-3), 0, 2) ** np.exp(rng.uniform(-0.3, 0.3))
        return image.astype(np.float32), classes

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Images ``(batch, 1, x, y, z)`` and classes ``(batch, x, y, z)``."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        images, classes = zip(*(self.pair(rng) for _ in range(self.count)), strict=True)
        return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(classes)).long()


def _thick_slices(image: Array, axis: int, thick: float, first: float) -> Array:
    """Means over slices of a number of voxels, interpolated linearly back."""
    n = image.shape[axis]
    smooth = ndimage.gaussian_filter1d(image, thick / 2.355, axis=axis)
    centres = np.arange(first, n, thick)
    slices = ndimage.map_coordinates(np.eye(n), np.meshgrid(centres, np.arange(n), indexing="ij"), order=1, mode="nearest")
    at = (np.arange(n) - first) / thick
    back = ndimage.map_coordinates(np.eye(len(centres)), np.meshgrid(at, np.arange(len(centres)), indexing="ij"), order=1, mode="nearest")
    moved = np.tensordot((back @ slices).astype(np.float32), smooth, (1, axis))
    return np.asarray(np.moveaxis(moved, 0, axis), dtype=np.float32)
