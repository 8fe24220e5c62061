"""CCDF (Chung, Sim, Ye, CVPR 2022): come closer, diffuse faster: a warm start at one fixed level, then projections."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.diffusion import Denoiser, Prior
from dynamicdps.solvers.projection import ProjectionConfig, solve_projection
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.registry import register


@dataclass(frozen=True)
class CCDFConfig(ProjectionConfig):
    """How to run CCDF: the projection method with another start.

    Attributes:
        start_sigma: level to which every initial image is noised.
    """

    steps: int = 20
    start_sigma: float | None = 0.3


@register("ccdf", config=CCDFConfig)
def solve_ccdf(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: CCDFConfig = CCDFConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Algorithm 1 of the paper: noise the initial image to a fixed level and sample with projections from there.

    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`.

    Raises:
        InputError: the operator is not linear.
    """
    return solve_projection(terms, prior, initial, generator=generator, config=config, progress=progress)
