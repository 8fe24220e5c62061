"""Volumes of cerebrospinal fluid, grey and white matter."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError

TISSUES = ("csf", "gm", "wm")
# From the darkest to the brightest in scans of each contrast.
RISING = {"T1w": TISSUES, "T2w": ("wm", "gm", "csf"), "FLAIR": ("csf", "wm", "gm")}
KMEANS_ITERATIONS = 100
TOLERANCE = 1e-4
CUT_OFF_SHARE = 0.1


def segment(data: NDArray[Any], mask: NDArray[np.bool_], n_classes: int = 3, *, beta: float = 0.1, max_iter: int = 40) -> NDArray[np.uint8]:
    """Tissue classes of a T1w brain by a hidden Markov random field (Zhang, Brady and Smith, IEEE TMI 2001).

    The observation model and the iterated conditional modes are dipy's, computed inside the mask only, which takes a quarter of
    the time. Its driver `TissueClassifierHMRF` is replaced for comparisons between images to be fair: the classes live inside the mask
    only (dipy adds a background class, which takes dark fluid), start from k-means of the image's own quantiles, draw no random
    numbers, and share one variance. Noise is the same in every tissue, and with a variance each, the grey matter's grows over
    partial volume and moves with the image's sharpness: noise or blur then shifts the volumes several times as much.

    The result does not change when the intensities are multiplied by a positive number or shifted. As with every classifier by
    intensity, bright deep grey matter (thalamus, pallidum) counts largely as white, and the brain's dark rim as CSF.

    Args:
        data: intensities ``(x, y, z)`` in any units.
        mask: brain voxels, same shape.
        n_classes: number of classes.
        beta: weight of the six neighbours; 0 classifies each voxel by itself.
        max_iter: limit of iterations.

    Returns:
        Labels ``(x, y, z)``: 0 outside the mask, then 1 to `n_classes` by rising mean (T1w: CSF, grey, white matter).

    Raises:
        InputError: the mask has another shape or is empty, or values inside it are not finite or fewer than `n_classes` differ.
    """
    if data.shape != mask.shape or data.ndim != 3:
        raise InputError(f"the brain mask has shape {mask.shape}; expected that of the image, {data.shape}; resample it to the image")
    if not mask.any():
        raise InputError("the brain mask is empty; expected brain voxels; check that the scan is skull-stripped and has signal")
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(mask))
    labels = np.zeros(mask.shape, dtype=np.uint8)
    labels[box] = _segment_box(data[box], mask[box], n_classes, beta, max_iter)
    return labels


def _segment_box(data: NDArray[Any], mask: NDArray[np.bool_], n_classes: int, beta: float, max_iter: int) -> NDArray[np.uint8]:
    values = data[mask].astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("the image has values that are not finite inside the brain; expected numbers; replace NaN and infinity first")
    values = (values - values.mean()) / max(float(values.std()), 1e-12)
    inside, means = _kmeans(values, n_classes)
    variance = max(float(np.mean((values - means[inside]) ** 2)), 1e-6)

    field = _Neighbours(mask, n_classes)
    last_changed = 1.0
    for _ in range(max_iter):
        attraction = 2 * beta * field.counts(inside)
        log_posterior = attraction - (values - means[:, None]) ** 2 / (2 * variance)
        posterior = np.exp(log_posterior - log_posterior.max(0))
        posterior /= posterior.sum(0)
        weight = posterior.sum(1)
        updated = np.where(weight > 1e-9, posterior @ values / np.maximum(weight, 1e-9), means)
        # A tiny floor keeps the likelihood finite for images of a few exact values.
        squares = (values - updated[:, None]) ** 2
        variance = max(float((posterior * squares).sum() / weight.sum()), 1e-6)
        moved = float(np.abs(updated - means).max())
        means = updated
        proposed = (attraction - squares / (2 * variance)).argmax(0)
        changed = float((proposed != inside).mean())
        inside = proposed
        # All voxels change at once, so that a few neighbours may swap for ever: their share then no longer falls.
        if moved < TOLERANCE and (changed < TOLERANCE or changed >= last_changed):
            break
        last_changed = changed
    labels = np.zeros(mask.shape, dtype=np.uint8)
    labels[mask] = (np.argsort(np.argsort(means)) + 1)[inside]
    return labels


class _Neighbours:
    """Classes of the six neighbours of the voxels inside a mask; those outside of it have none, so that the edge favours no class."""

    def __init__(self, mask: NDArray[np.bool_], n_classes: int) -> None:
        padded = np.pad(mask, 1)
        self._inside = np.flatnonzero(padded)
        self._labels = np.full(padded.size, n_classes, dtype=np.uint8)
        self._strides = [sign * stride for stride in (1, padded.shape[2], padded.shape[1] * padded.shape[2]) for sign in (-1, 1)]
        self._n_classes = n_classes

    def counts(self, classes: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Neighbours of each class, ``(classes, voxels)``, 0 to 6, from the voxels' own classes."""
        self._labels[self._inside] = classes
        found = np.zeros((self._n_classes, len(classes)), dtype=np.uint8)
        for stride in self._strides:
            neighbour = self._labels[self._inside + stride]
            for index, count in enumerate(found):
                count += neighbour == index
        return found


def _kmeans(values: NDArray[np.float64], n_classes: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Classes and rising means of numbers, from quantiles of the distinct ones where those of all of them coincide."""
    distinct = np.unique(values)
    if len(distinct) < n_classes:
        found = f"the image has {len(distinct)} different values inside the brain"
        raise InputError(f"{found}; expected contrast between {n_classes} tissues; check the image")
    quantiles = (np.arange(n_classes) + 0.5) / n_classes
    means = np.quantile(values, quantiles)
    if (np.diff(means) <= 0).any():
        means = np.quantile(distinct, quantiles)
    for _ in range(KMEANS_ITERATIONS):
        inside = np.digitize(values, (means[1:] + means[:-1]) / 2)
        counts = np.bincount(inside, minlength=n_classes)
        sums = np.bincount(inside, weights=values, minlength=n_classes)
        updated = np.where(counts > 0, sums / np.maximum(counts, 1), means)
        done = np.abs(updated - means).max() < TOLERANCE
        means = updated
        if done:
            break
    return inside, means


def tissue_volumes(labels: NDArray[np.uint8], spacing: tuple[float, float, float]) -> dict[str, float]:
    """Volumes in mm3 by tissue, ``csf``, ``gm``, ``wm``.

    Args:
        labels: of `segment` with three classes.
        spacing: voxel size in mm.
    """
    counts = np.bincount(labels.ravel(), minlength=len(TISSUES) + 1)
    voxel = float(np.prod(spacing))
    return {tissue: float(count) * voxel for tissue, count in zip(TISSUES, counts[1:], strict=True)}


def is_cut_off(mask: NDArray[np.bool_]) -> bool:
    """Whether the brain goes on beyond the grid: on one of its six faces it fills a tenth or more of its widest cut along that axis.

    A whole brain may touch a face, and leaves through the bottom with the brain stem, which is thinner.
    """
    areas = [mask.sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]
    return any(max(area[0], area[-1]) >= CUT_OFF_SHARE * area.max() > 0 for area in areas)


def volume_errors(reconstruction: dict[str, float], truth: dict[str, float]) -> dict[str, float]:
    """``(v - v_truth) / v_truth`` by tissue; NaN where the truth has none of it. Both are of `tissue_volumes`."""
    return {tissue: (reconstruction[tissue] - v) / v if v > 0 else float("nan") for tissue, v in truth.items()}


def dice(labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
    """Overlap ``2 |a and b| / (|a| + |b|)`` by tissue, from 0 to 1; NaN where neither has any. Both are of `segment`."""
    out = {}
    for index, tissue in enumerate(TISSUES, start=1):
        a, b = labels == index, truth == index
        size = int(a.sum()) + int(b.sum())
        out[tissue] = 2 * int((a & b).sum()) / size if size else float("nan")
    return out
