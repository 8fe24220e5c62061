"""Unconditional samples of a prior."""

from collections.abc import Callable

import torch
from torch import Tensor

from dynamicdps.priors.layout import START, Layout
from dynamicdps.priors.levels import descending_levels
from dynamicdps.priors.prior import Prior
from dynamicdps.priors.sampling import image_generators, noise_like, sample_ancestral, sample_heun

SHEET_START = 10.0


def draw_samples(
    prior: Prior,
    count: int,
    height: int,
    width: int,
    *,
    depth: int = 1,
    steps: int = 24,
    seed: int = 0,
    ancestral: bool = False,
    layout: Layout | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Unconditional samples ``(count, 1, depth, height, width)``.

    Args:
        prior: to draw from.
        count: how many.
        height: voxels back to front.
        width: voxels left to right.
        depth: neighbouring slices of each.
        steps: noise levels.
        seed: of all randomness; a sample does not depend on how many are drawn after it.
        ancestral: ancestral sampling instead of the second-order solver.
        layout: what the samples start from; without it noise alone.
        progress: called with images done and planned.

    Raises:
        InputError: the layout has fewer slices than `depth`.
    """
    highest = SHEET_START if layout is None else START
    generators = image_generators(torch.Generator().manual_seed(seed), count)
    images = []
    at_once = max(1, 8 // depth)
    with torch.no_grad():
        for start in range(0, count, at_once):
            chunk = generators[start : start + at_once]
            blank = torch.full((len(chunk), 1, depth, height, width), prior.data_mean)
            smooth = blank if layout is None else layout.draw(chunk, (depth, height, width))
            x = smooth + highest * noise_like(smooth, chunk)
            levels = descending_levels(torch.full((len(chunk),), highest), steps, 0.005, rho=7.0)
            sampler = sample_ancestral if ancestral else sample_heun
            images.append(sampler(prior, x.to(prior.device), levels.to(prior.device), generators=chunk).cpu())
            if progress is not None:
                progress(start + len(chunk), count)
    return torch.cat(images)
