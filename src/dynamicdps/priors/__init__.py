"""Noise levels, the prior on volumes and its domain, layouts, unconditional sampling."""

from dynamicdps.priors.denoiser import Denoiser, NetworkDenoiser, denoising_error
from dynamicdps.priors.layout import Layout, layout_beside, load_layout
from dynamicdps.priors.levels import cosine_levels, descending_levels, level_of_step
from dynamicdps.priors.prior import Domain, NeighbourPrior, Prior, SlicePrior, as_prior
from dynamicdps.priors.prior_file import known_contrasts, load_prior
from dynamicdps.priors.samples import draw_samples
from dynamicdps.priors.sampling import sample_ancestral, sample_heun

__all__ = [
    "Denoiser",
    "Domain",
    "Layout",
    "NeighbourPrior",
    "NetworkDenoiser",
    "Prior",
    "SlicePrior",
    "as_prior",
    "cosine_levels",
    "denoising_error",
    "descending_levels",
    "draw_samples",
    "known_contrasts",
    "layout_beside",
    "level_of_step",
    "load_layout",
    "load_prior",
    "sample_ancestral",
    "sample_heun",
]
