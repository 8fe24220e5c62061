"""Noise levels, the prior and its training, unconditional sampling."""

from dynamicdps.diffusion.denoiser import Denoiser, NetworkDenoiser, denoising_error
from dynamicdps.diffusion.layout import Layout, fit_layout, layout_beside, load_layout
from dynamicdps.diffusion.levels import cosine_levels, descending_levels, level_of_step
from dynamicdps.diffusion.model_file import ModelFile, load_prior, read_model, write_model
from dynamicdps.diffusion.neighbour_network import NeighbourConfig, NeighbourUNet
from dynamicdps.diffusion.network import NetworkConfig, SliceUNet
from dynamicdps.diffusion.patches import Patches
from dynamicdps.diffusion.prior import Domain, NeighbourPrior, Prior, SlicePrior, as_prior
from dynamicdps.diffusion.prior_training import draw_samples, train_prior
from dynamicdps.diffusion.sampling import sample_ancestral, sample_heun
from dynamicdps.diffusion.training import TrainingConfig, TrainingState

__all__ = [
    "Denoiser",
    "Domain",
    "Layout",
    "ModelFile",
    "NeighbourConfig",
    "NeighbourPrior",
    "NeighbourUNet",
    "NetworkConfig",
    "NetworkDenoiser",
    "Patches",
    "Prior",
    "SlicePrior",
    "SliceUNet",
    "TrainingConfig",
    "TrainingState",
    "as_prior",
    "cosine_levels",
    "denoising_error",
    "descending_levels",
    "draw_samples",
    "fit_layout",
    "layout_beside",
    "level_of_step",
    "load_layout",
    "load_prior",
    "read_model",
    "sample_ancestral",
    "sample_heun",
    "train_prior",
    "write_model",
]
