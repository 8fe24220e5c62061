"""How much posterior samples differ, and whether two starts lead to the same image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.errors import InputError

FLOOR = 0.005


def sample_spread(samples: Tensor) -> Tensor:
    """Standard deviation over posterior samples, unbiased in its square.

    Args:
        samples: ``(samples, batch, 1, ...)``, at least 2.

    Returns:
        ``(batch, 1, ...)``, image intensities.

    Raises:
        InputError: there are fewer than two.
    """
    if len(samples) < 2:
        raise InputError(f"there are {len(samples)} samples; expected at least 2 for a spread; draw more")
    return samples.std(0)


@dataclass(frozen=True)
class RestartDisagreement:
    """How far the means of two starts are apart.

    Attributes:
        map: difference of the means over its standard error, ``(batch, 1, ...)``; 0 in the middle.
        rms: root of the mean squared difference over the mean squared standard error, ``(batch,)``; about 1 where both starts
            sample one posterior, more where the result depends on the start.
    """

    map: Tensor
    rms: Tensor


def restart_disagreement(first: Tensor, second: Tensor, *, mask: Tensor | None = None, floor: float = FLOOR) -> RestartDisagreement:
    """Do samples from two start levels agree, measured by their own spread?

    Where the prior fills in what the measurement does not show, a start nearer to the conditional image keeps more of it:
    disagreement beyond the spread marks structure that neither data nor prior decide. The standard error squared is
    ``s1^2 / n1 + s2^2 / n2`` with the samples' variances. The map has few degrees of freedom, so that single voxels of 2 or 3 mean
    nothing; the rms divides sums and has no such tail.

    Args:
        first: samples of one start ``(samples, batch, 1, ...)``, at least 2.
        second: of the other, their number may differ.
        mask: brain, booleans that broadcast to an image; for the rms.
        floor: least spread in the map, image intensities.

    Raises:
        InputError: one has fewer than two samples.
        ValueError: the images' shapes differ.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"samples have shapes {tuple(first.shape)} and {tuple(second.shape)}; expected the same images")
    variance = sum((sample_spread(s.double()).square() / len(s) for s in (first, second)), torch.zeros((), dtype=torch.float64))
    difference = first.double().mean(0) - second.double().mean(0)
    least = floor**2 * (1 / len(first) + 1 / len(second))
    inside = torch.ones_like(difference) if mask is None else mask.expand_as(difference).to(difference)
    sums = [(values * inside).flatten(1).sum(1) for values in (difference.square(), variance)]
    return RestartDisagreement(difference / variance.clamp_min(least).sqrt(), (sums[0] / sums[1]).sqrt())
