"""Inserted lesions: whether a reconstruction keeps what the measurement shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.evaluation.tissue import TISSUES

SMALLEST_MM, LARGEST_MM = 3.0, 15.0
EDGE_MM = 1.0
RING_MM = 3.0
CORE = 0.75


@dataclass(frozen=True, eq=False)
class Lesion:
    """An ellipsoid with a soft edge that is added to an image.

    Attributes:
        centre: in voxels ``(x, y, z)``.
        diameter_mm: diameter, from 3 to 15; of an ellipsoid, before the ratios of its axes.
        contrast: what its inside adds, image intensities; below 0 darker than its surroundings.
        mask: share of the lesion in each voxel, ``(x, y, z)``, from 0 to 1, float32.
        ring: voxels around it of the tissue at its centre, booleans, the same shape.
    """

    centre: tuple[float, float, float]
    diameter_mm: float
    contrast: float
    mask: NDArray[np.float32]
    ring: NDArray[np.bool_]

    @property
    def core(self) -> NDArray[np.bool_]:
        """Voxels well inside: at least three quarters of the largest share."""
        return np.asarray(self.mask >= CORE * self.mask.max())


def make_lesion(
    tissue: NDArray[np.uint8],
    spacing: tuple[float, float, float],
    centre: tuple[float, float, float],
    diameter_mm: float,
    contrast: float,
    ratios: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Lesion:
    """A lesion at a place.

    Its share falls from 1 to 0 over 1 mm across the surface; the ring is what lies up to 3 mm outside that edge, both stretched by the
    ratios.

    Args:
        tissue: labels ``(x, y, z)`` of `segment`, one slice or more; nothing is painted where they are 0.
        spacing: voxel size in mm.
        centre: in voxels, inside the brain.
        diameter_mm: from 3 to 15.
        contrast: image intensities, not 0.
        ratios: of the diameters along x, y, z to `diameter_mm`, from 0.5 to 2; 1 for a ball.

    Raises:
        InputError: a number is out of its range, the centre is not in the brain, or there is no tissue like the centre's around.
    """
    if not (SMALLEST_MM <= diameter_mm <= LARGEST_MM and contrast != 0 and all(0.5 <= r <= 2 for r in ratios)):
        raise InputError(
            f"the lesion has {diameter_mm} mm, contrast {contrast} and ratios {ratios}; expected {SMALLEST_MM:g} to {LARGEST_MM:g} mm, "
            "a contrast other than 0 and ratios from 0.5 to 2"
        )
    nearest = tuple(round(c) for c in centre)
    if not all(0 <= c < n for c, n in zip(nearest, tissue.shape, strict=True)) or tissue[nearest] == 0:
        raise InputError(f"the lesion's centre is voxel {nearest}; expected one inside the brain; choose another place")
    # Distance from the surface of a ball; an ellipsoid's is stretched by its ratios.
    steps = [(np.arange(n) - c) * mm for n, c, mm in zip(tissue.shape, centre, spacing, strict=True)]
    half = [diameter_mm * ratio / 2 for ratio in ratios]
    radius = np.sqrt(sum(np.square(g / h) for g, h in zip(np.meshgrid(*steps, indexing="ij", sparse=True), half, strict=True)))
    outside = (radius - 1) * diameter_mm / 2
    mask = np.clip(0.5 - outside / EDGE_MM, 0, 1) * (tissue > 0)
    ring = (outside > EDGE_MM / 2) & (outside <= EDGE_MM / 2 + RING_MM) & (tissue == tissue[nearest])
    if not mask.any() or not ring.any():
        raise InputError(
            f"the lesion at voxel {nearest} has no surroundings of its own tissue; expected some within {RING_MM:g} mm; move it"
        )
    return Lesion(centre, diameter_mm, contrast, mask.astype(np.float32), ring)


def place_lesions(
    tissue: NDArray[np.uint8],
    spacing: tuple[float, float, float],
    generator: np.random.Generator,
    *,
    count: int = 4,
    diameters_mm: tuple[float, float] = (3.0, 8.0),
    contrasts: Sequence[float] = (-0.2, 0.2),
    elongation: float = 1.25,
) -> list[Lesion]:
    """Lesions inside white matter, apart from its edges, from the ends of the stack and from each other.

    Diameters are drawn evenly from their range, contrasts taken in turn, ratios of the axes drawn so that the volume is the ball's; the
    largest lesion is placed first, each at a random place among those that have room for it with its soft edge. Where white matter is
    nowhere wide enough, a lesion shrinks to what fits, down to 3 mm.

    Args:
        tissue: labels ``(x, y, z)`` of `segment`; white matter is 3.
        spacing: voxel size in mm.
        generator: gives diameters, shapes and places.
        count: lesions.
        diameters_mm: smallest and largest, within 3 to 15.
        contrasts: image intensities, used in turn.
        elongation: largest ratio of an axis, from 1 to 2; the smallest is its inverse.

    Returns:
        The lesions, largest first; no voxel belongs to two of them or to the ring of one and the inside of another.

    Raises:
        InputError: a number is out of its range, or there is no room.
    """
    from scipy import ndimage

    low, high = diameters_mm
    if not (count >= 1 and SMALLEST_MM <= low <= high <= LARGEST_MM and len(contrasts) > 0 and 1 <= elongation <= 2):
        raise InputError(
            f"{count} lesions of {low} to {high} mm with {len(contrasts)} contrasts and elongation {elongation} are asked for; expected "
            f"at least one of {SMALLEST_MM:g} to {LARGEST_MM:g} mm, a contrast and an elongation from 1 to 2; change them"
        )
    drawn = np.sort(generator.uniform(low, high, count))[::-1]
    # Three quarters: without their mean the logarithms can be a third larger.
    logs = 0.75 * math.log(elongation) * generator.uniform(-1, 1, (count, 3))
    ratios = np.exp(logs - logs.mean(1, keepdims=True))
    white = tissue == TISSUES.index("wm") + 1
    # Beyond the image's ends there is no white matter, except across a single slice.
    padding = [(1, 1) if n > 1 else (0, 0) for n in tissue.shape]
    inside = tuple(slice(1, -1) if n > 1 else slice(None) for n in tissue.shape)
    room = ndimage.distance_transform_edt(np.pad(white, padding), sampling=spacing)[inside]
    grid = np.meshgrid(*[np.arange(n) * mm for n, mm in zip(tissue.shape, spacing, strict=True)], indexing="ij", sparse=True)
    placed: list[Lesion] = []
    for number, (drawn_mm, ratio) in enumerate(zip(drawn, ratios, strict=True)):
        half = float(ratio.max()) / 2
        diameter = min(float(drawn_mm), float(room.max()) / half - EDGE_MM)
        if diameter < SMALLEST_MM:
            raise InputError(
                f"white matter has room for {number} of {count} lesions; expected places for all of {SMALLEST_MM:g} mm and more, "
                "apart from each other; ask for fewer or smaller ones"
            )
        reach = (diameter + EDGE_MM) * half
        sites = np.argwhere(room >= reach - 1e-9)
        x, y, z = (float(c) for c in sites[generator.integers(len(sites))])
        contrast = float(contrasts[number % len(contrasts)])
        lesion = make_lesion(tissue, spacing, (x, y, z), diameter, contrast, (float(ratio[0]), float(ratio[1]), float(ratio[2])))
        placed.append(lesion)
        away = np.sqrt(sum(np.square(g - c * mm) for g, c, mm in zip(grid, (x, y, z), spacing, strict=True)))
        # The next one's inside must keep clear of this ring, and its ring, which is no wider than the largest, of this inside.
        room = np.minimum(room, away - reach - RING_MM * elongation)
    return placed


def insert_lesion(data: NDArray[np.float32], lesion: Lesion) -> NDArray[np.float32]:
    """The image with the lesion added, not below 0.

    Args:
        data: image intensities ``(x, y, z)``, the lesion's shape.
        lesion: of `make_lesion` or `place_lesions`.

    Raises:
        InputError: the shapes differ.
    """
    check_shape(data, lesion)
    return np.where(lesion.mask > 0, np.maximum(data + lesion.contrast * lesion.mask, 0), data).astype(np.float32)


def lesion_contrast(data: NDArray[Any], lesion: Lesion) -> float:
    """Mean of an image inside the lesion's core less that in its ring; arguments and errors as `insert_lesion`."""
    check_shape(data, lesion)
    return float(data[lesion.core].mean(dtype=np.float64) - data[lesion.ring].mean(dtype=np.float64))


def contrast_kept(reconstruction: NDArray[Any], truth: NDArray[Any], lesion: Lesion) -> float:
    """Share of a lesion's contrast that a reconstruction shows: 1 where it is kept, 0 where it is lost, below 0 where it turned.

    Args:
        reconstruction: image intensities ``(x, y, z)``.
        truth: with the lesion, likewise.
        lesion: the inserted one.

    Returns:
        The ratio; NaN where the truth itself shows no contrast.

    Raises:
        InputError: the shapes differ.
    """
    shown = lesion_contrast(truth, lesion)
    return lesion_contrast(reconstruction, lesion) / shown if shown != 0 else math.nan


def check_shape(data: NDArray[Any], lesion: Lesion) -> None:
    """Refuse an image of another grid than the lesion's.

    Raises:
        InputError: the shapes differ.
    """
    if data.shape != lesion.mask.shape:
        raise InputError(f"the image has shape {data.shape}; expected the lesion's, {lesion.mask.shape}; take the image it was made for")
