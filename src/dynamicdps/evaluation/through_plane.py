"""Change from slice to slice: how much of it there is, and how much of it is real."""

import torch
from torch import Tensor


def through_plane_roughness(image: Tensor, truth: Tensor | None, mask: Tensor) -> Tensor:
    """Mean ``|x[z+1] - x[z]|`` of each volume inside the brain, over the truth's where there is one.

    Below 1 the image is smoother along z than the truth, above it is rougher. An estimate of low error is smoother: what the measurement
    does not show it cannot change with. Read it beside `through_plane_calibration`, which tells flicker from anatomy.

    Args:
        image: ``(batch, 1, depth, height, width)``, neighbouring slices along depth.
        truth: the same shape; `None` gives the mean itself, in units of the image.
        mask: brain, booleans of the same shape; a change counts where both slices are brain.

    Returns:
        ``(batch,)``, float64; NaN where no two neighbours are brain or the truth does not change.

    Raises:
        ValueError: the shapes differ or are not those of volumes.
    """
    inside = _both_brain(image, truth, mask)
    mean = _sum(_change(image).abs() * inside) / _sum(inside)
    if truth is None:
        return mean
    own = _sum(_change(truth).abs() * inside) / _sum(inside)
    return torch.where(own > 0, mean / own, torch.nan)


def through_plane_calibration(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Share of each volume's change along z that is the truth's: the slope of the truth's change on the image's.

    ``sum(dx dt) / sum(dx^2)`` with ``dx = x[z+1] - x[z]`` and ``dt`` of the truth. A posterior mean has 1 whatever it cannot show, because
    its error does not go along with it; below 1 the rest of the change is flicker; above 1 the image changes too little.

    Args:
        image: ``(batch, 1, depth, height, width)``, neighbouring slices along depth.
        truth: the same shape.
        mask: brain, booleans of the same shape; a change counts where both slices are brain.

    Returns:
        ``(batch,)``, float64; NaN where the image does not change along z or no two neighbours are brain.

    Raises:
        ValueError: the shapes differ or are not those of volumes.
    """
    inside = _both_brain(image, truth, mask)
    dx, dt = _change(image), _change(truth)
    return _sum(dx * dt * inside) / _sum(dx * dx * inside)


def _sum(x: Tensor) -> Tensor:
    return x.sum((1, 2, 3, 4))


def _change(x: Tensor) -> Tensor:
    return x.to(torch.float64).diff(dim=2)


def _both_brain(image: Tensor, truth: Tensor | None, mask: Tensor) -> Tensor:
    """1 where a voxel and its neighbour along z are brain, else 0."""
    if image.ndim != 5 or image.shape[1] != 1:
        raise ValueError(f"the image has shape {tuple(image.shape)}; expected (batch, 1, depth, height, width)")
    for name, other in (("truth", truth), ("mask", mask)):
        if other is not None and other.shape != image.shape:
            raise ValueError(f"the {name} has shape {tuple(other.shape)}; expected that of the image, {tuple(image.shape)}")
    brain = mask.bool()
    return (brain[:, :, 1:] & brain[:, :, :-1]).to(torch.float64)
