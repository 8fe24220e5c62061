"""Where a scan contradicts an image: connected regions of a residual that noise and a slightly wrong forward model do not leave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from dynamicdps.evaluation.misfit_causes import without_causes
from dynamicdps.volumes import Volume

Array = NDArray[np.float64]

# Chance that an image which is right shows any region.
FAMILY_WISE = 0.05
# Full widths at half maximum in mm of what is looked for; a lesion of 5 to 12 mm is near one of them.
WIDTHS_MM = (4.0, 8.0)
# Classes of edge strength whose spread is measured apart, and the fewest voxels of one.
CLASSES, FEWEST = 8, 200
# What a wrong forward model leaves has heavier tails than noise: it counts as if it were so many times as strong.
DISTRUST = 2.0
# Around a region, in mm, where its surroundings are read; and the share of a difference from which on scan or image alone has it.
RING_MM, CLEAR = 5.0, 0.6
# A filter ends at this many standard deviations.
REACH = 3.0
FWHM = 2.354820045
MAD_OF_NORMAL = 0.6744897501960817


@dataclass(frozen=True)
class Contradiction:
    """A region where the scan does not show what the image foretells.

    Attributes:
        place_mm: its centre, RAS.
        mm3: volume where the filtered residual is at least half of its peak; what is smaller than the scan's voxels looks as large as they.
        scan_is: ``"brighter"`` or ``"darker"`` than the image foretells.
        image: ``"lost"`` where the scan stands out from its surroundings there and the image does not, ``"invented"`` where the image
            does and the scan does not, ``"changed"`` where it is not clear which.
        difference: mean of ``y - A(x)`` over the region, in the units of `find_contradictions`' measurement.
        strength: peak of the filtered residual, in standard deviations of what is left elsewhere.
    """

    place_mm: tuple[float, float, float]
    mm3: float
    scan_is: str
    image: str
    difference: float
    strength: float


@dataclass(frozen=True)
class Contradictions:
    """What a residual shows.

    Attributes:
        regions: the strongest first.
        labels: number of the region of each voxel, from 1 on in their order; 0 elsewhere.
        threshold: of `Contradiction.strength`; an image that is right reaches it with a chance of 5 %.
        spread: root mean square over voxels of what the filtered residual is divided by: 1 for noise alone, more where the forward model
            does not fit, and so how much larger a contradiction must be to be told from that.
    """

    regions: tuple[Contradiction, ...]
    labels: NDArray[np.int32]
    threshold: float
    spread: float


def find_contradictions(residual: Volume, predicted: Array, measured: Array, axis: int = 2) -> Contradictions:
    """Regions where a residual is more than noise and an imperfect forward model leave.

    What follows the pattern of a wrong contrast, shading, blur or of motion is taken off (`without_causes`): it speaks against the forward
    model, not against the image. The rest is filtered by Gaussians of lesions' sizes, so that white noise would have a standard deviation
    of 1 everywhere in the mask. Where more is left, the voxels are divided by their robust spread, in classes of equal edge strength of the
    prediction, because a wrong forward model errs at edges (an empirical null, Efron, JASA 2004). The threshold is Bonferroni's over
    voxels, filters and signs.

    Args:
        residual: ``(y - A(x)) / noise_std`` on the scanner's grid; voxels that are exactly 0 do not count.
        predicted: ``A(x)`` on that grid, ``(x, y, z)``.
        measured: y likewise, in the same unit.
        axis: across the slices.

    Raises:
        ValueError: the three have different shapes.
    """
    from scipy import ndimage, stats

    r = np.nan_to_num(residual.data.astype(np.float64))
    if not r.shape == predicted.shape == measured.shape:
        raise ValueError(f"residual, prediction and measurement have shapes {r.shape}, {predicted.shape}, {measured.shape}; expected one")
    counted = r != 0
    count = int(np.count_nonzero(counted))
    none = Contradictions((), np.zeros(r.shape, np.int32), np.inf, 1.0)
    if not count:
        return none
    r = without_causes(residual, predicted, axis)
    edges = _edge_strength(np.where(counted, predicted, 0.0), counted)
    classes = _classes(edges[counted])
    threshold = float(stats.norm.isf(FAMILY_WISE / (2 * count * len(WIDTHS_MM))))
    z, spreads = np.zeros(r.shape), []
    for width in WIDTHS_MM:
        own, spread = _standardised(r, counted, [width / FWHM / edge for edge in residual.spacing], classes)
        spreads.append(np.sqrt(np.mean(spread**2)))
        z = np.where(np.abs(own) > np.abs(z), own, z)
    labels = _regions(z, threshold)
    voxel = float(np.prod(residual.spacing))
    near = _ball(residual.spacing, RING_MM)
    found = []
    for number in range(1, int(labels.max()) + 1):
        inside = labels == number
        peak = float(z[inside][np.argmax(np.abs(z[inside]))])
        weight = np.abs(z) * inside
        centre = [float((weight.sum(tuple(b for b in range(3) if b != a)) * np.arange(r.shape[a])).sum() / weight.sum()) for a in range(3)]
        x, y, up = apply_affine(residual.affine, centre).tolist()
        ring = ndimage.binary_dilation(inside, near) & counted & (labels == 0)
        difference = float((measured - predicted)[inside].mean())
        kind = _kind(measured, predicted, inside, ring) if ring.any() else "changed"
        found.append(
            Contradiction((x, y, up), voxel * int(inside.sum()), "brighter" if peak > 0 else "darker", kind, difference, abs(peak))
        )
    return Contradictions(tuple(found), labels, threshold, float(np.sqrt(np.mean(np.square(spreads)))))


def _kind(measured: Array, predicted: Array, inside: NDArray[np.bool_], ring: NDArray[np.bool_]) -> str:
    """Which of scan and image stands out from its surroundings."""
    shown, foretold = (float(image[inside].mean() - np.median(image[ring])) for image in (measured, predicted))
    # Of their difference, what the scan shows; the image's part is one less.
    share = shown / (shown - foretold) if shown != foretold else 0.5
    return "lost" if share > CLEAR else "invented" if share < 1 - CLEAR else "changed"


def _standardised(
    r: Array, counted: NDArray[np.bool_], widths: Sequence[float], classes: NDArray[np.int_]
) -> tuple[Array, NDArray[np.float64]]:
    """The residual behind a filter in standard deviations of what it leaves elsewhere, and these by counted voxel."""
    kernels = [_kernel(width) for width in widths]
    total, square = np.where(counted, r, 0.0), counted.astype(np.float64)
    total, square = _filtered(total, kernels), _filtered(square, [kernel**2 for kernel in kernels])
    filtered = np.where(counted, total / np.sqrt(np.maximum(square, 1e-12)), 0.0)
    values = filtered[counted]
    spread = np.ones(len(values))
    for each in np.unique(classes):
        own = classes == each
        excess = max(0.0, (float(np.median(np.abs(values[own]))) / MAD_OF_NORMAL) ** 2 - 1)
        spread[own] = np.sqrt(1 + DISTRUST**2 * excess)
    filtered[counted] = values / spread
    return filtered, spread


def _kernel(width: float) -> NDArray[np.float64]:
    """A Gaussian of a standard deviation in voxels."""
    reach = max(1, int(np.ceil(REACH * width)))
    return np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(width, 1e-3)) ** 2)


def _filtered(values: Array, kernels: Sequence[NDArray[np.float64]]) -> Array:
    from scipy import ndimage

    for axis, kernel in enumerate(kernels):
        values = ndimage.correlate1d(values, kernel, axis=axis, mode="constant")
    return values


def _edge_strength(predicted: Array, counted: NDArray[np.bool_]) -> Array:
    """How much the prediction changes to the farthest of its neighbours; those that do not count say nothing."""
    strength = np.zeros_like(predicted)
    for axis in range(3):
        if predicted.shape[axis] < 2:
            continue
        low, high = (tuple(part if a == axis else slice(None) for a in range(3)) for part in (slice(None, -1), slice(1, None)))
        step = np.where(counted[low] & counted[high], np.abs(predicted[high] - predicted[low]), 0.0)
        for side in (low, high):
            strength[side] = np.maximum(strength[side], step)
    return strength


def _classes(strength: NDArray[np.float64]) -> NDArray[np.int_]:
    """Classes alike in number, from the weakest edges to the strongest."""
    number = max(1, min(CLASSES, len(strength) // FEWEST))
    limits = np.quantile(strength, np.linspace(0, 1, number + 1)[1:-1])
    return np.searchsorted(limits, strength, side="right")


def _regions(z: Array, threshold: float) -> NDArray[np.int32]:
    """Regions around peaks beyond a threshold, each as far as it stays beyond half of its own peak; the strongest peak comes first."""
    from scipy import ndimage

    labels = np.zeros(z.shape, np.int32)
    left = np.abs(z)
    number = 0
    while (peak := float(left.max())) >= threshold:
        place = np.unravel_index(int(left.argmax()), z.shape)
        near, _ = ndimage.label((left >= peak / 2) & (np.sign(z) == np.sign(z[place])))
        inside = near == near[place]
        number += 1
        labels[inside] = number
        # What hangs on this region and is weaker is its rim.
        rim, _ = ndimage.label((np.abs(z) >= threshold / 2) & (np.sign(z) == np.sign(z[place])))
        left[(rim == rim[place]) & ((np.abs(z) < peak / 2) | inside)] = 0
    return labels


def _ball(spacing: tuple[float, float, float], radius_mm: float) -> NDArray[np.bool_]:
    reach = [max(1, int(radius_mm / edge)) for edge in spacing]
    steps = np.meshgrid(*[np.arange(-n, n + 1) * edge for n, edge in zip(reach, spacing, strict=True)], indexing="ij")
    inside = sum(step**2 for step in steps) <= radius_mm**2
    # At least the neighbours along each axis.
    one = np.sum([step != 0 for step in steps], axis=0) <= 1
    return np.asarray(inside | (one & (np.max([np.abs(s) / e for s, e in zip(steps, spacing, strict=True)], axis=0) <= 1)))
