"""Heads whose intensities say their classes, and the network that reads them: chances are known, so sides and volumes are."""

import numpy as np
import torch
from torch import Tensor, nn

from dynamicdps.segmentation import BrainNetwork
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.volumes import Volume

# Class k has the intensity FIRST + STEP * (TURN * k modulo the number of classes): neighbours in the brain differ, white matter is bright.
FIRST, STEP, TURN = 0.1, 0.055, 7
# What is brightest, and of no class.
SKIN = 1.0
# Centre of the right one of each pair in mm, radius in mm; the right one is larger by `GROWN`.
PAIRS = {"thalamus": ((12.0, -6.0, 4.0), 7.0), "caudate": ((12.0, 14.0, 8.0), 6.0), "hippocampus": ((20.0, -8.0, -12.0), 6.0)}
GROWN = 2.0


class Coded(nn.Module):
    """Takes the intensity of a class for this class, for sure; what is darker or brighter than any is of class 0."""

    def forward(self, x: Tensor) -> Tensor:
        numbers = ((x[:, 0] - FIRST) / STEP).round().long()
        # 7 times 7 is 1 modulo 16.
        classes = torch.where((numbers > 0) & (numbers < len(CLASSES)), numbers * TURN % len(CLASSES), 0)
        return 30.0 * nn.functional.one_hot(classes, len(CLASSES)).movedim(-1, 1).float()


class Shells(nn.Module):
    """White matter in the middle of whatever it sees, cortex around it."""

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in x.shape[2:]), indexing="ij")
        radius = torch.stack(grid).square().sum(0).sqrt()
        classes = torch.where(radius < 0.4, CLASSES.index("white matter"), torch.where(radius < 0.6, CLASSES.index("cortex"), 0))
        return 20.0 * nn.functional.one_hot(classes, len(CLASSES)).movedim(-1, 0)[None].float()


def coded_network() -> BrainNetwork:
    return BrainNetwork(Coded())


def code(name: str) -> float:
    """Intensity of a class."""
    return FIRST + STEP * (TURN * CLASSES.index(name) % len(CLASSES))


def coded_head(
    shape: tuple[int, int, int] = (53, 61, 55), edges: tuple[float, float, float] = (2.0, 2.0, 2.0), first: tuple[float, ...] | None = None
) -> Volume:
    """Shells of skin, fluid, cortex and white matter around paired parts, right ones larger, and a brain stem.

    Args:
        shape: voxels.
        edges: of a voxel in mm.
        first: place of the first voxel in mm; by default the head lies in the middle.
    """
    start = first or tuple(-e * (n - 1) / 2 for e, n in zip(edges, shape, strict=True))
    affine = np.diag([*edges, 1.0])
    affine[:3, 3] = start
    x, y, z = np.meshgrid(*(s + e * np.arange(n) for s, e, n in zip(start, edges, shape, strict=True)), indexing="ij")
    radius = np.sqrt((x / 0.92) ** 2 + (y / 1.12) ** 2 + z**2)
    data = np.select(
        [radius < 33, radius < 42, radius < 45, radius < 49], [code("white matter"), code("cortex"), code("outer fluid"), SKIN], 0.0
    )
    for name, ((px, py, pz), size) in PAIRS.items():
        for side in (-1, 1):
            grown = size + GROWN * (side > 0)
            data[(x - side * px) ** 2 + (y - py) ** 2 + (z - pz) ** 2 < grown**2] = code(name)
    data[(x**2 + (y + 10) ** 2 < 64) & (z < -16) & (radius < 42)] = code("brain stem")
    return Volume(data.astype(np.float32), affine)
