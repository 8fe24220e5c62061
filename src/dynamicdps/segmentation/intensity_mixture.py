"""Finer chances: those of the network are the prior of a mixture of Gaussians that is fitted to the scan's own intensities.

The network works on voxels of 2 mm and sees no finer detail. The scan does: each class has a mean and a spread of its intensities, found
by expectation maximisation together with the shading, as in unified segmentation (Ashburner and Friston 2005, NeuroImage 26:839,
equations 6 to 24) and SAMSEG (Puonti, Iglesias and Van Leemput 2016, NeuroImage 143:235); the atlas of these is the network's answer here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.segmentation.class_chances import ClassChances
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import Grid, covered, sample

# Edge of a voxel in mm, and the edges that a scan's own voxels may have to be taken as they are.
FINE_MM, KEPT_MM = 1.0, (0.85, 1.25)
# Exponent of the network's chances, which know of these intensities already, and the share of its mean that each class has everywhere.
TEMPER, FLOOR = 0.7, 1e-3
# Least chance of what is none of the classes, and of all that is one of them. Its intensities are any: only the network knows its place.
LEAST_OUTSIDE = 1e-4
# Gaussians of what is none of the classes: air, bone, fat.
OTHERS = 3
# Least standard deviation, as a share of the brightest percent.
LEAST_STD = 0.02
# How far the variances of the classes are drawn to their common one: a class of wider spread would take the voxels that two classes share.
SHARED = 0.8
# Parameters are found from every so many voxels along each axis, in so many iterations.
EVERY, ITERATIONS = 2, 12
# Standard deviation of the Gaussian that the shading is smooth over, the edge of its voxels, and its range.
SHADING_MM, SHADING_EDGE_MM, SHADING = 20.0, 4.0, (0.2, 5.0)
# Voxels that are classified at once.
_CHUNK = 500_000


@dataclass(frozen=True)
class IntensityMixture:
    """Intensities of the classes, as shares of the scan's brightest percent.

    Attributes:
        mean: of each Gaussian, ``(gaussians,)``: first `OTHERS` for what is of no class, then one a class.
        variance: the same shape.
        weight: of each Gaussian in its class, the same shape.
    """

    mean: Tensor
    variance: Tensor
    weight: Tensor

    def log_likelihoods(self, intensities: Tensor) -> Tensor:
        """Of each Gaussian, without the constant that they share, ``(gaussians, voxels)``."""
        distance = (intensities - self.mean[:, None]).square() / self.variance[:, None]
        return self.weight.log()[:, None] - 0.5 * (distance + self.variance.log()[:, None])

    def posterior(self, log_prior: Tensor, intensities: Tensor) -> Tensor:
        """Chances of the Gaussians, ``(gaussians, voxels)``.

        Args:
            log_prior: of the classes, ``(classes, voxels)``.
            intensities: without shading, ``(voxels,)``.
        """
        return (_by_gaussian(log_prior) + self.log_likelihoods(intensities)).softmax(0)

    @classmethod
    def of(cls, share: Tensor, intensities: Tensor) -> "IntensityMixture":
        """The most likely one, if `share` ``(gaussians, voxels)`` is how much of each voxel is of each Gaussian."""
        count = share.sum(1) + 1e-3
        mean = share @ intensities / count
        variance = share @ intensities.square() / count - mean.square()
        pooled = (count * variance)[OTHERS:].sum() / count[OTHERS:].sum()
        variance[OTHERS:] += SHARED * (pooled - variance[OTHERS:])
        variance = variance.clamp_min(LEAST_STD**2)
        weight = torch.ones_like(mean)
        weight[:OTHERS] = count[:OTHERS] / count[:OTHERS].sum()
        return cls(mean, variance, weight)


def refine_chances(chances: ClassChances, volume: Volume, grid: Grid | None = None) -> ClassChances:
    """Chances on voxels of about 1 mm along the axes of the scan, the posterior of a mixture of Gaussians.

    The scan's scale of intensities and smooth shading do not matter. Where the chances do not count, all is of class 0. A scan whose voxels
    are as large as those of the chances, along every axis, has nothing to add: they come back as they are.

    Args:
        chances: of the network on the volume.
        volume: the scan.
        grid: of other voxels that are to stand for these, such as every second one; volumes need no more.
    """
    finer = FinerChances.fitted(chances, volume, grid)
    return chances if finer is None else finer.of(volume)


@dataclass(frozen=True)
class FinerChances:
    """A mixture that was fitted to one image, for it and for others on its grid, such as posterior samples.

    Attributes:
        grid: of the chances.
        near: where the network's chances count, on it.
        index: of the voxels that have intensities, ``(voxels, 3)``.
        log_prior: of the classes there, ``(classes, voxels)``.
        mixture: of the intensities.
        shading: their smooth factor at `index`, ``(voxels,)``.
        top: intensity that is 1 for the mixture.
    """

    grid: Grid
    near: NDArray[np.bool_]
    index: NDArray[np.int_]
    log_prior: Tensor
    mixture: IntensityMixture
    shading: Tensor
    top: float

    @classmethod
    def fitted(cls, chances: ClassChances, volume: Volume, grid: Grid | None = None) -> "FinerChances | None":
        """By expectation maximisation; arguments as of `refine_chances`, and `None` for a scan that has nothing to add, see there."""
        support = chances.support
        if not support.any() or (grid is None and not is_finer(volume, chances)):
            return None
        every = EVERY if grid is None else 1
        grid = grid or fine_grid(volume, chances)
        near = sample(Volume(support.astype(np.float32), chances.affine), grid, order=0).data > 0.5
        index = np.argwhere(near & covered(volume, grid))
        data = _intensities(volume, grid, index)
        top = float(np.percentile(data, 99)) if len(index) else 0.0
        if top <= 0:
            return None
        log_prior = _log_prior(chances.at(apply_affine(grid.affine, index)))
        chosen = (index % every == 0).all(1)
        shading = _Shading(grid, index[chosen])
        mixture = _fit(log_prior[:, chosen], data[chosen] / top, shading)
        return cls(grid, near, index, log_prior, mixture, shading.at(index), top)

    def of(self, volume: Volume) -> ClassChances:
        """Chances of an image on the grid of the one that was fitted."""
        data = _intensities(volume, self.grid, self.index) / self.top / self.shading
        values = np.zeros((len(CLASSES), *self.grid.shape), np.float32)
        values[0] = 1
        for start in range(0, len(self.index), _CHUNK):
            part = slice(start, start + _CHUNK)
            found = self.mixture.posterior(self.log_prior[:, part], data[part])
            values[(slice(None), *self.index[part].T)] = torch.cat([found[:OTHERS].sum(0, keepdim=True), found[OTHERS:]])
        return ClassChances(values, self.grid.affine, counted=self.near)


def _intensities(volume: Volume, grid: Grid, index: NDArray[np.int_]) -> Tensor:
    order = 1 if np.allclose(_edges(grid.affine), volume.spacing) else 3
    return torch.from_numpy(sample(volume, grid, order).data[tuple(index.T)].clip(0))


def _fit(log_prior: Tensor, data: Tensor, shading: "_Shading") -> IntensityMixture:
    """Expectation maximisation, from the intensities that the prior gives to the classes."""
    share = _by_gaussian(log_prior).exp()
    # What is of no class is parted by its intensities: dark, middle and bright.
    thirds = torch.bucketize(data, torch.quantile(data[:: max(1, len(data) // 100_000)], torch.linspace(0, 1, OTHERS + 1)[1:-1]))
    share[:OTHERS] *= thirds == torch.arange(OTHERS)[:, None]
    mixture = IntensityMixture.of(share, data)
    for _ in range(ITERATIONS):
        share = mixture.posterior(log_prior, data / shading.here)
        shading.update(share[OTHERS:], mixture.mean[OTHERS:], mixture.variance[OTHERS:], data)
        mixture = IntensityMixture.of(share, data / shading.here)
    return mixture


class _Shading:
    """A smooth factor of the intensities: weighted least squares of the voxels that have a class, over a Gaussian around each place.

    Args:
        grid: of the voxels.
        index: of those that it is found from, ``(voxels, 3)``.
    """

    def __init__(self, grid: Grid, index: NDArray[np.int_]) -> None:
        self._block = np.maximum(1, np.rint(SHADING_EDGE_MM / _edges(grid.affine))).astype(int)
        self._width = SHADING_MM / (self._block * _edges(grid.affine))
        self._shape = tuple(-(-np.array(grid.shape) // self._block))
        self._of = torch.from_numpy(np.ravel_multi_index(tuple((index // self._block).T), self._shape))
        self._field = np.ones(self._shape, np.float32)
        self._index = index
        self.here = torch.ones(len(index))

    def update(self, share: Tensor, mean: Tensor, variance: Tensor, data: Tensor) -> None:
        """Find it anew from Gaussians and how much of each voxel is of them."""
        from scipy import ndimage

        expected, weight = mean / variance @ share, mean.square() / variance @ share
        products, squares = (
            ndimage.gaussian_filter(
                torch.zeros(int(np.prod(self._shape))).index_add_(0, self._of, part).view(self._shape).numpy(), self._width
            )
            for part in (expected * data, weight)
        )
        self._field = (products / np.maximum(squares, 1e-6 * squares.max())).clip(*SHADING)
        self.here = self.at(self._index)

    def at(self, index: NDArray[np.int_]) -> Tensor:
        """The factor at voxels ``(voxels, 3)``."""
        from scipy import ndimage

        places = (index - (self._block - 1) / 2) / self._block
        return torch.from_numpy(ndimage.map_coordinates(self._field, places.T, order=1, mode="nearest", output=np.float32))


def _by_gaussian(of_class: Tensor) -> Tensor:
    return torch.cat([of_class[:1].expand(OTHERS, -1), of_class[1:]])


def _log_prior(chances: Tensor) -> Tensor:
    """Of the classes, tempered among each other; of what is none of them the network's chance stays."""
    tempered = chances[1:].clamp_min(0) ** TEMPER
    tempered = tempered + FLOOR * tempered.mean(1, keepdim=True) + 1e-12
    outside = chances[:1].clamp(LEAST_OUTSIDE, 1 - LEAST_OUTSIDE)
    return torch.cat([outside, (1 - outside) * tempered / tempered.sum(0)]).log()


def is_finer(volume: Volume, chances: ClassChances) -> bool:
    """Whether a scan's voxels are smaller than those of the chances along any axis."""
    return min(volume.spacing) <= 0.95 * float(_edges(chances.affine).min())


def fine_grid(volume: Volume, chances: ClassChances) -> Grid:
    """Voxels of about 1 mm along the scan's axes: its own where they are so, and only where the chances count, which must be somewhere."""
    own, support = np.array(volume.spacing), chances.support
    edges = np.where((own >= KEPT_MM[0]) & (own <= KEPT_MM[1]), own, FINE_MM)
    reached = [np.flatnonzero(support.any(axes))[[0, -1]] + (-1, 1) for axes in ((1, 2), (0, 2), (0, 1))]
    corners = np.stack(np.meshgrid(*reached, indexing="ij"), -1).reshape(-1, 3)
    scale = own / edges
    # From the scan's indices to those of finer voxels whose first face is the scan's.
    places = (apply_affine(np.linalg.inv(volume.affine) @ chances.affine, corners) + 0.5) * scale - 0.5
    last = np.ceil(np.array(volume.shape) * scale - 1e-3) - 1
    low, high = np.clip(np.floor(places.min(0)), 0, last), np.clip(np.ceil(places.max(0)), 0, last)
    x, y, z = (high - low + 1).astype(int).tolist()
    to_scan = np.diag([*(1 / scale), 1.0])
    to_scan[:3, 3] = (low + 0.5) / scale - 0.5
    return Grid((x, y, z), volume.affine @ to_scan)


def _edges(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))
