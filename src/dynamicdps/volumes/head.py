"""The brain in a head by intensity and shape alone, for scans that no network was trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.morphology import Mask, Spacing, block_mean, close, depth, fill_planes, largest, open_
from dynamicdps.volumes.volume import Volume

WORKING_MM = 2.5  # bones and sulci are a few of these wide
BRAIN_HEIGHT_MM = 150.0  # from the skin of the vertex to the foramen magnum
CORE_MM = 25.0  # deeper under the skin than this lies brain, in the upper head
SKIN_MM = 4.0  # less deep lies none
BRAIN_LIKE = (0.6, 1.6)  # intensities of brain, relative to their median
GAP_MM = 6.0  # half the width of what is closed in the outline
FLOOR = 0.01  # conductance of what is black


@dataclass(frozen=True)
class Coarse:
    """A volume by block means of about `WORKING_MM`.

    Attributes:
        data: intensities.
        spacing: its voxels in mm.
        factors: voxels of the volume in a block.
    """

    data: NDArray[np.float32]
    spacing: Spacing
    factors: tuple[int, int, int]

    @classmethod
    def of(cls, volume: Volume) -> "Coarse":
        i, j, k = (max(1, round(WORKING_MM / s)) for s in volume.spacing)
        x, y, z = volume.spacing
        return cls(block_mean(volume.data, (i, j, k)), (x * i, y * j, z * k), (i, j, k))

    @property
    def across(self) -> int:
        """The axis across the slices."""
        return int(np.argmax(self.spacing)) if max(self.spacing) > 1.01 * min(self.spacing) else 2


def head_outline(coarse: Coarse) -> Mask:
    """The filled outline of the head.

    Raises:
        InputError: nothing stands out of the background.
    """
    from dipy.segment.threshold import otsu
    from scipy import ndimage

    # Nearer to the air than Otsu's threshold: fat is so bright that his lies above the brain.
    level = otsu(coarse.data)
    air, tissue = coarse.data[coarse.data <= level].mean(), coarse.data[coarse.data > level].mean()
    bright = coarse.data > air + 0.25 * (tissue - air)
    # Bone may part skin and brain wholly: both are kept, specks of noise are not, and the gap is closed.
    labels, _ = ndimage.label(bright)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    head = close((sizes >= 0.02 * sizes.max())[labels] & bright, GAP_MM, coarse.spacing)
    head = largest(fill_planes(head, coarse.across))
    if head.mean() < 0.01:
        raise InputError("no head stands out of the background; expected a magnitude image of a head; give a mask")
    return head


def find_brain_in_head(volume: Volume) -> Mask:
    """Inside of the skull of a T1-like scan, on the scan's grid.

    Random walks (Grady 2006) from the middle of the head against those from the skin: a voxel is brain if a walk from it reaches the
    middle first. Steps are the less likely the darker the voxel, so that the dark skull parts both, and gaps in it do not leak far.
    Here steps depend on the intensity itself, not on its differences as in the paper.

    Raises:
        InputError: there is no head, or it is too small to hold a brain.
    """
    coarse = Coarse.of(volume)
    head = head_outline(coarse)
    levels = np.flatnonzero(head.mean((0, 1)) > 0.02)
    height = int(BRAIN_HEIGHT_MM / coarse.spacing[2])
    if len(levels) > height:
        head[..., : levels.max() - height + 1] = False
    below = depth(head, coarse.spacing)
    core = largest(below > CORE_MM)
    if not core.any():
        raise InputError("the head is nowhere 50 mm wide; expected a head with its brain; check the voxel size or give a mask")
    typical = float(np.median(coarse.data[core]))
    relative = coarse.data / max(typical, 1e-12)
    core = largest(core & (relative > BRAIN_LIKE[0]) & (relative < BRAIN_LIKE[1]))
    conductance = np.clip(relative, 0, 1) ** 3 + FLOOR
    chance = random_walk(conductance.astype(np.float64), core, below <= SKIN_MM, coarse.spacing)
    inside = largest(open_(chance > 0.5, 3.0, coarse.spacing))
    inside = fill_planes(close(inside, 6.0, coarse.spacing), coarse.across)
    # Between the coarse voxels the chance is interpolated: no steps along the outline.
    smooth = np.where(inside, np.maximum(chance, 0.55), np.minimum(chance, 0.45))
    return _on_full_grid(smooth, coarse, volume.shape) > 0.5


def random_walk(conductance: NDArray[np.float64], inner: Mask, outer: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Chance of a walk from each voxel to reach `inner` before `outer`.

    The discrete Dirichlet problem with values 1 and 0 there, by conjugate gradients; an edge conducts as its lesser voxel does,
    divided by the square of its length.
    """
    from scipy import sparse
    from scipy.sparse.linalg import cg

    index = np.arange(conductance.size).reshape(conductance.shape)
    rows, columns, weights = [], [], []
    for axis in range(3):
        here: list[Any] = [slice(None)] * 3
        there: list[Any] = [slice(None)] * 3
        here[axis], there[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(here), tuple(there)
        rows.append(index[a].ravel())
        columns.append(index[b].ravel())
        weights.append((np.minimum(conductance[a], conductance[b]) * (min(spacing) / spacing[axis]) ** 2).ravel())
    size = (conductance.size, conductance.size)
    edges = sparse.coo_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=size).tocsr()
    edges = edges + edges.T
    laplacian = (sparse.diags(np.asarray(edges.sum(1)).ravel()) - edges).tocsr()
    free = ~(inner | outer).ravel()
    chance: NDArray[np.float64] = inner.ravel().astype(np.float64)
    system = laplacian[free][:, free]
    known = -laplacian[free][:, inner.ravel()].sum(1)
    chance[free] = cg(system, np.asarray(known).ravel(), rtol=1e-4, maxiter=2000, M=sparse.diags(1 / system.diagonal()))[0]
    return chance.reshape(conductance.shape)


def _on_full_grid(coarse: NDArray[np.float64], grid: Coarse, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    from scipy import ndimage

    axes = [(np.arange(n) + 0.5) / f - 0.5 for n, f in zip(shape, grid.factors, strict=True)]
    out: NDArray[np.float64] = coarse
    for axis, at in enumerate(axes):
        low = np.clip(np.floor(at).astype(int), 0, out.shape[axis] - 1)
        high = np.minimum(low + 1, out.shape[axis] - 1)
        share = np.clip(at - low, 0, 1).reshape([-1 if a == axis else 1 for a in range(3)])
        out = out.take(low, axis) * (1 - share) + out.take(high, axis) * share
    return np.asarray(ndimage.gaussian_filter(out, [0.5 if f > 1 else 0 for f in grid.factors]))
