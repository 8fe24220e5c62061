"""Where the brain is: by a file, by a network, by intensity and shape, or because the scan holds nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dynamicdps.errors import InputError
from dynamicdps.volumes import deepbet
from dynamicdps.volumes.grids import native_grid, sample
from dynamicdps.volumes.head import Coarse, find_brain_in_head, head_outline
from dynamicdps.volumes.intensity import brain_mask
from dynamicdps.volumes.morphology import Mask, depth, inner_edge, soft_edge
from dynamicdps.volumes.volume import Volume, load

METHODS = ("auto", "network", "deepbet", "classical", "none")
# What finds the brain of a scan on its grid.
Finder = Callable[[Volume], Mask]
# Black is below this share of the brightest tissue; so many of all voxels and of those around what is shown are in a stripped scan.
BLACK, BLACK_SHARE, BLACK_AROUND = 0.02, 0.1, 0.5
FAT, BONE = 1.2, 0.85  # of the median of the brain's middle, and of the brightest ring outside
WHOLE_HEAD_MM = 120.0
# Thinner slabs show the network too little: of 4 slices of 5 mm it finds a half of the brain, intensity and shape 97 % (Dice, two heads).
NETWORK_MM = 80.0
BRAIN_ML = (600.0, 2200.0)
# Voxels that the rim of an enhanced brain is deep, at least.
RIM_VOXELS = 2.0
LOOK = (
    "the mask was found by intensity and shape alone; look at it, and give one of your own where it is wrong, or --mask none if the scan "
    "has no skull"
)


@dataclass(frozen=True)
class BrainMask:
    """The brain on the scan's grid.

    Attributes:
        inside: true in the brain, ``(x, y, z)``.
        method: one of `METHODS` but auto, or the file.
        warnings: what to check, one sentence each.
    """

    inside: Mask
    method: str
    warnings: list[str] = field(default_factory=list)

    def soft(self, volume: Volume, edge_mm: float) -> Volume:
        """1 inside, falling to 0 over `edge_mm` outside: the brain itself keeps its full weight."""
        return Volume(soft_edge(self.inside, edge_mm, volume.spacing), volume.affine, volume.native)

    def rim(self, volume: Volume, edge_mm: float) -> Volume:
        """0 outside, rising to 1 over `edge_mm` inside: what is blended with it uses an image of the brain only where it holds brain.

        Across thick slices it rises over two of them: an image of the outermost one was made of a measurement that is half outside.
        """
        x, y, z = (min(edge, edge_mm / RIM_VOXELS) for edge in volume.spacing)
        return Volume(inner_edge(self.inside, edge_mm, (x, y, z)), volume.affine, volume.native)

    def millilitres(self, volume: Volume) -> float:
        return float(self.inside.sum() * np.prod(volume.spacing) / 1000)


def extract_brain(volume: Volume, method: str | Path = "auto", network: Finder | None = None) -> BrainMask:
    """Find the brain.

    ``"auto"``: ``"none"`` if the scan is skull-stripped; else ``"deepbet"`` if its weights are installed, the scan covers a whole head and
    what it finds has the size of a brain; else ``"network"`` where there is one and its brain has that size, or the scan is a slab of
    `NETWORK_MM` or more; else ``"classical"``, warned of.

    Args:
        volume: the scan; for ``"deepbet"`` and ``"classical"`` T1-weighted.
        method: one of `METHODS`, or a mask file: it is brain where the file holds more than one half.
        network: what ``"network"`` asks, such as `dynamicdps.segmentation.BrainNetwork.find`.

    Raises:
        InputError: there is no such method or file, a mask is empty, the method finds nothing, or ``"network"`` is asked for without one.
    """
    if str(method) not in METHODS:
        return _given(volume, Path(method))
    if method == "none":
        return BrainMask(brain_mask(volume), "none")
    if method == "classical":
        return BrainMask(find_brain_in_head(volume), "classical", [LOOK])
    if method == "network":
        if network is None:
            raise InputError("there is no model that finds brains; expected one named brain-mask; train and add one, or take another mask")
        found = BrainMask(network(volume), "network")
        return replace(found, warnings=[_implausible(found, volume)]) if covers_head(volume) and not _plausible(found, volume) else found
    if method == "deepbet":
        found = BrainMask(deepbet.find_brain_by_deepbet(volume), "deepbet")
        return found if _plausible(found, volume) else replace(found, warnings=[_implausible(found, volume)])
    if is_skull_stripped(volume):
        return BrainMask(brain_mask(volume), "none")
    warnings = [LOOK]
    for name, finder in (("deepbet", _deepbet_for(volume)), ("network", network if _shortest_mm(volume) >= NETWORK_MM else None)):
        if finder is None:
            continue
        try:
            found = BrainMask(finder(volume), name)
            if _plausible(found, volume) or (name == "network" and not covers_head(volume)):
                return found
            warnings.append(_implausible(found, volume))
        except InputError as error:
            warnings.append(str(error))
    return BrainMask(find_brain_in_head(volume), "classical", warnings)


def is_skull_stripped(volume: Volume) -> bool:
    """Whether the image is black around what it shows and intensities only rise from the surface inwards, as in a T1-like brain.

    Black is what is below a fiftieth of the brightest tissue: a mask's zeros, and what blur, interpolation and a little noise make of them.
    Fat under the skin is brighter than the brain and bone is darker than both: either tells a head whose background the scanner set
    to 0. Scans of another contrast may be taken for a head; say ``"none"`` for them.
    """
    if (volume.data <= BLACK * np.percentile(volume.data, 98)).mean() < BLACK_SHARE:
        return False
    coarse = Coarse.of(volume)
    outline = head_outline(coarse)
    # Noise around a head is grey. Few slices that cross no bone would otherwise look like a brain.
    if not outline.all() and (coarse.data[~outline] <= BLACK * np.percentile(volume.data, 98)).mean() < BLACK_AROUND:
        return False
    below = depth(outline, coarse.spacing)
    middle = coarse.data[below > 20]
    if middle.size == 0:
        return True
    rings = [coarse.data[(below > d) & (below <= d + 3)] for d in (1, 4, 7, 10, 13)]
    if not any(ring.size for ring in rings):
        return True
    profile = np.array([np.median(ring) for ring in rings if ring.size]) / max(float(np.median(middle)), 1e-12)
    fat = profile.max() > FAT
    bone = (profile < BONE * np.maximum.accumulate(profile)).any()
    return not (fat or bone)


def covers_head(volume: Volume) -> bool:
    """Whether the field of view holds a whole head along each axis."""
    return _shortest_mm(volume) >= WHOLE_HEAD_MM


def _shortest_mm(volume: Volume) -> float:
    return float(min(n * s for n, s in zip(volume.shape, volume.spacing, strict=True)))


def _deepbet_for(volume: Volume) -> Finder | None:
    """Deepbet where its weights are installed and it was made for such a scan: a whole head."""
    return deepbet.find_brain_by_deepbet if deepbet.weights() is not None and covers_head(volume) else None


def _given(volume: Volume, path: Path) -> BrainMask:
    if not path.exists():
        raise InputError(f"there is no mask {str(path)!r}; expected {', '.join(METHODS)} or an image file")
    inside = sample(load(path), native_grid(volume), order=0).data > 0.5
    if not inside.any():
        raise InputError(f"the mask {path} is empty on the scan; expected more than 0.5 in the brain; check its values and its affine")
    return BrainMask(inside, str(path))


def _plausible(found: BrainMask, volume: Volume) -> bool:
    return BRAIN_ML[0] <= found.millilitres(volume) <= BRAIN_ML[1]


def _implausible(found: BrainMask, volume: Volume) -> str:
    low, high = BRAIN_ML
    return f"{found.method} finds {found.millilitres(volume):.0f} ml of brain; expected {low:.0f} to {high:.0f} ml of a whole one"
