"""What a network says of a head: the chance of each class, and the brain, its structures and their volumes that follow."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from dynamicdps.segmentation.classes import BRAIN, CLASSES, Structure, structures, tissues
from dynamicdps.segmentation.midplane import Midplane, fit_midplane
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import Grid, sample
from dynamicdps.volumes.morphology import Mask, close, dilate, erode, largest

FLUID = CLASSES.index("outer fluid")
# Sulci are closed over this width; fluid between gyri counts as brain, that around them does not.
CLOSING_MM = 4.0
# What hangs on the brain by a bridge of less than twice this width, as an eye does by its nerve, is no brain.
BRIDGE_MM = 4.0
# How far around the brain and its fluid chances count: their tails lie there, and nothing else that is of the head.
AROUND_MM = 4.0
# Classes that are compared together between left and right.
_SURFACES = (("ventricles",), ("cortex", "cerebellar cortex"), ("white matter", "cerebellar white matter"))
_ALIKE = tuple([CLASSES.index(name) for name in names] for names in _SURFACES)
# Voxels whose classes are found at once.
_CHUNK = 500_000


@dataclass(frozen=True)
class ClassChances:
    """Chances on a grid of voxels.

    Attributes:
        values: chance of each of `CLASSES`, ``(classes, x, y, z)``.
        affine: voxel indices to RAS mm.
        brain: where it is, ``(x, y, z)``; by default chances say so.
        counted: where chances count, ``(x, y, z)``; by default around the brain.
        scale: intensity that was 1 for the network; `None` where none was asked.
    """

    values: NDArray[np.float32]
    affine: NDArray[np.float64]
    brain: Mask | None = None
    counted: Mask | None = None
    scale: float | None = None

    @cached_property
    def inside(self) -> Mask:
        """The brain; may be empty. Chances show it as their largest piece, sulci closed, without what hangs on it by a thin bridge."""
        from scipy import ndimage

        if self.brain is not None:
            return self.brain
        spacing = _spacing(self.affine)
        inside = largest(self.values[list(BRAIN)].sum(0) > 0.5)
        if inside.any():
            inside = ndimage.binary_fill_holes(close(inside, CLOSING_MM, spacing))
            core = largest(erode(inside, BRIDGE_MM, spacing))
            # Twice as far out as it was eroded: tips of gyri stay.
            inside = inside & dilate(core, 2 * BRIDGE_MM, spacing) if core.any() else inside
        return inside

    def within(self, brain: Volume) -> "ClassChances":
        """The same chances with another brain: where a volume is above one half."""
        x, y, z = self.values.shape[1:]
        return replace(self, brain=sample(brain, Grid((x, y, z), self.affine)).data > 0.5)

    @cached_property
    def support(self) -> Mask:
        """Where chances count: in the brain, in the fluid that touches it, and a little around both."""
        if self.counted is not None:
            return self.counted
        return dilate(largest(self.inside | (self.values[FLUID] > 0.5)) | self.inside, AROUND_MM, _spacing(self.affine))

    def at(self, points: NDArray[np.float64]) -> torch.Tensor:
        """Chances between voxels, ``(classes, points)``; beyond the border its own go on.

        Args:
            points: RAS mm, ``(points, 3)``.
        """
        # grid_sample wants places from -1 to 1, the last axis first.
        size = np.maximum(np.array(self.values.shape[1:]) - 1, 1)
        to_voxels, values = np.linalg.inv(self.affine), torch.from_numpy(self.values)[None]
        found = []
        for start in range(0, len(points), _CHUNK):
            places = (2 * apply_affine(to_voxels, points[start : start + _CHUNK]) / size - 1)[:, ::-1].astype(np.float32)
            at = torch.from_numpy(places.copy())[None, :, None, None]
            found.append(torch.nn.functional.grid_sample(values, at, padding_mode="border", align_corners=True)[0, :, :, 0, 0])
        return torch.cat(found, 1) if found else values.new_zeros((len(CLASSES), 0))

    def _at_voxels(self, grid: Grid, index: NDArray[np.int_]) -> torch.Tensor:
        """As `at`, of a grid's voxels ``(voxels, 3)``; where they are the chances' own, nothing is interpolated."""
        to_own = np.linalg.inv(self.affine) @ grid.affine
        shift = np.rint(to_own[:3, 3])
        if np.allclose(to_own[:3, :3], np.eye(3), atol=1e-4) and np.allclose(to_own[:3, 3], shift, atol=1e-2):
            own = (index + shift.astype(int)).clip(0, np.array(self.values.shape[1:]) - 1)
            return torch.from_numpy(self.values[(slice(None), *own.T)])
        return self.at(apply_affine(grid.affine, index))

    def midplane(self) -> Midplane:
        """The plane between the halves of the brain, which must not be empty."""
        return fit_midplane(np.stack([self.values[list(group)].sum(0) for group in _ALIKE]) * self.support, self.affine)

    def brain_on(self, grid: Grid) -> Mask:
        """The brain on a grid: between voxels the chance is interpolated, so that there are no steps along the outline."""
        brain = self.values[list(BRAIN)].sum(0)
        smooth = np.where(self.inside, np.maximum(brain, 0.55), np.minimum(brain, 0.45)).astype(np.float32)
        return sample(Volume(smooth, self.affine), grid).data > 0.5

    def labels_on(self, grid: Grid, brain: Mask, plane: Midplane | None) -> NDArray[np.uint8]:
        """Numbers of FreeSurfer's table on a grid, 0 where nothing is reported.

        A voxel of the brain has its likeliest class but `CLASSES[0]`; around it only fluid is told, where it is the likeliest.

        Args:
            grid: where to.
            brain: on that grid.
            plane: between left and right; `None` where sides are not known.
        """
        numbers = np.zeros((len(CLASSES), 2), np.uint8)
        for structure in structures(sided=plane is not None):
            for side in (0, 1) if not structure.side else (0,) if structure.side == "left" else (1,):
                numbers[CLASSES.index(structure.name), side] = structure.label
        labels = np.zeros(grid.shape, np.uint8)
        near = sample(Volume(self.support.astype(np.float32), self.affine), grid, order=0).data > 0.5
        index = np.argwhere(near | brain)
        for start in range(0, len(index), _CHUNK):
            part = index[start : start + _CHUNK]
            found = self._at_voxels(grid, part)
            inside = brain[tuple(part.T)]
            classes = np.where(inside, found[1:].argmax(0).numpy() + 1, np.where(found.argmax(0).numpy() == FLUID, FLUID, 0))
            right = np.zeros(len(part), int) if plane is None else (plane.distance(apply_affine(grid.affine, part)) >= 0).astype(int)
            labels[tuple(part.T)] = numbers[classes, right]
        return labels

    def volumes(self, plane: Midplane | None) -> dict[Structure, NDArray[np.float64]]:
        """Volumes by structure and tissue in the slices along z, ``(z,)``, mm3: sums of chances, so that half-filled voxels count by half.

        Args:
            plane: as in `labels_on`.
        """
        voxel = float(np.prod(_spacing(self.affine)))
        right = self._right(plane)
        both, of_right = np.zeros((2, len(CLASSES), self.values.shape[-1]))
        for index in range(1, len(CLASSES)):
            chance = self.values[index] * self.support
            both[index] = chance.sum((0, 1), dtype=np.float64) * voxel
            of_right[index] = (chance * right).sum((0, 1), dtype=np.float64) * voxel
        by_side = {"": both, "left": both - of_right, "right": of_right}
        return {s: by_side[s.side][list(s.classes)].sum(0) for s in (*structures(sided=plane is not None), *tissues())}

    def confidences(self, plane: Midplane | None) -> dict[Structure, float]:
        """Mean chance of each structure and tissue where it is the likeliest, 0 to 1; NaN where it is nowhere.

        Args:
            plane: as in `labels_on`.
        """
        values = self.values[:, self.support]
        likeliest, right = values.argmax(0), self._right(plane)[self.support]
        by_side = {"": np.ones_like(right), "left": 1 - right, "right": right}
        found = {}
        for structure in (*structures(sided=plane is not None), *tissues()):
            chance = values[list(structure.classes)].sum(0)
            weight = by_side[structure.side] * np.isin(likeliest, structure.classes)
            found[structure] = float(weight @ chance) / float(weight.sum()) if weight.any() else float("nan")
        return found

    def _right(self, plane: Midplane | None) -> NDArray[np.float32]:
        """The share of each voxel that lies on the right, ``(x, y, z)``; 0 without a plane."""
        if plane is None:
            return np.zeros(self.values.shape[1:], np.float32)
        x, y, z = (np.arange(n, dtype=np.float32) for n in self.values.shape[1:])
        along = (self.affine[:3, :3].T @ plane.normal).astype(np.float32)
        first = np.float32(plane.distance(self.affine[:3, 3]))
        distance = along[0] * x[:, None, None] + along[1] * y[:, None] + (along[2] * z + first)
        return np.asarray(np.clip(0.5 + distance / np.float32(_spacing(self.affine)[0]), 0, 1))


def _spacing(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)
