"""Training the prior by score matching (Karras et al. 2022)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynamicdps.diffusion.denoiser import NetworkDenoiser, network_time
from dynamicdps.diffusion.levels import descending_levels
from dynamicdps.diffusion.model_file import read_model, write_model
from dynamicdps.diffusion.network import NetworkConfig, SliceUNet
from dynamicdps.diffusion.patches import Patches, split_held_out
from dynamicdps.diffusion.processes import Processes
from dynamicdps.diffusion.sampling import image_generators, noise_like, sample_ancestral, sample_heun
from dynamicdps.diffusion.training import TrainingConfig, TrainingState, train, training_card

# Karras et al. train on data in [-1, 1] with log-normal levels; ours live in [0, 1], so the mean falls by log 2.
LOG_SIGMA_MEAN = -1.6 - 0.693
LOG_SIGMA_STD = 1.4
VALIDATION_LEVELS = (0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
SHEET_START = 10.0


@dataclass(frozen=True)
class ScoreMatching:
    """Loss of Karras et al. 2022, eq. 8: at every noise level the network's own target has unit variance, so weights are 1.

    Attributes:
        patches: of clean slices.
        data_mean: their mean intensity.
        data_std: their standard deviation.
    """

    patches: Patches
    data_mean: float
    data_std: float

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Clean images, noise levels ``(batch,)`` and standard normal noise."""
        clean = self.patches.batch(generator)
        log_sigma = LOG_SIGMA_MEAN + LOG_SIGMA_STD * torch.randn(len(clean), generator=generator)
        return clean, log_sigma.exp(), torch.randn(clean.shape, generator=generator)

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """See `dynamicdps.diffusion.training.Objective`."""
        clean, sigma, noise = batch
        s = sigma.view(-1, 1, 1, 1)
        total = (s**2 + self.data_std**2).sqrt()
        centred = clean - self.data_mean
        noisy = centred + s * noise
        target = (centred - (self.data_std / total) ** 2 * noisy) * total / (s * self.data_std)
        out: Tensor = network((noisy / total).to(memory_format=torch.channels_last), network_time(sigma))
        return (out.float() - target).square().mean()


def denoising_errors(
    denoiser: NetworkDenoiser, slices: Tensor, levels: Sequence[float] = VALIDATION_LEVELS, seed: int = 0
) -> dict[float, float]:
    """Root mean square error of the denoiser at each noise level, over whole slices ``(batch, 1, height, width)``."""
    errors = {}
    device = next(denoiser.parameters()).device
    for level in levels:
        generators = image_generators(torch.Generator().manual_seed(seed), len(slices))
        total = 0.0
        with torch.inference_mode():
            for start in range(0, len(slices), 8):
                clean = slices[start : start + 8]
                noisy = clean + level * noise_like(clean, generators[start : start + 8])
                image = denoiser(noisy.to(device), torch.full((len(clean),), level, device=device)).cpu()
                total += float((image - clean).square().sum())
        errors[level] = (total / slices.numel()) ** 0.5
    return errors


def draw_samples(
    denoiser: NetworkDenoiser,
    count: int,
    height: int,
    width: int,
    *,
    steps: int = 24,
    seed: int = 0,
    ancestral: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Unconditional samples ``(count, 1, height, width)``.

    Args:
        denoiser: the prior.
        count: how many.
        height: voxels back to front.
        width: voxels left to right.
        steps: noise levels.
        seed: of all randomness; a sample does not depend on how many are drawn after it.
        ancestral: ancestral sampling instead of the second-order solver.
        progress: called with images done and planned.
    """
    generators = image_generators(torch.Generator().manual_seed(seed), count)
    images = []
    with torch.no_grad():
        for start in range(0, count, 8):
            chunk = generators[start : start + 8]
            blank = torch.full((len(chunk), 1, height, width), denoiser.data_mean)
            x = blank + SHEET_START * noise_like(blank, chunk)
            levels = descending_levels(torch.full((len(chunk),), SHEET_START), steps, 0.005, rho=7.0)
            device = next(denoiser.parameters()).device
            sampler = sample_ancestral if ancestral else sample_heun
            images.append(sampler(denoiser, x.to(device), levels.to(device), generators=chunk).cpu())
            if progress is not None:
                progress(start + len(chunk), count)
    return torch.cat(images)


def train_prior(
    train_files: Sequence[str | Path],
    out: Path,
    *,
    validation_files: Sequence[str | Path] = (),
    network_config: NetworkConfig = NetworkConfig(),
    config: TrainingConfig = TrainingConfig(),
    resume: bool = False,
    weights: str | Path | None = None,
    data_name: str = "unnamed",
    processes: Processes = Processes(),
    on_step: Callable[[int, float], None] | None = None,
    on_sheet: Callable[[int, Tensor], None] | None = None,
) -> Path:
    """Train a prior on skull-stripped scans and write ``prior.safetensors`` with its model card.

    Args:
        train_files: scans to learn from.
        out: folder of the training; see `dynamicdps.diffusion.training.train`.
        validation_files: scans of other subjects, for the denoising error at each noise level; without them the last tenth of
            `train_files` (at least one) is held out.
        network_config: size of the network.
        config: how to train.
        resume: continue from the checkpoint in `out`.
        weights: a prior, by bundled name or file, whose weights a new training starts from.
        data_name: what the model card says about the data.
        processes: that train together.
        on_step: called with step and loss.
        on_sheet: called with step and 8 unconditional samples at every checkpoint.

    Returns:
        The model file.
    """
    files, held_out = split_held_out(train_files, validation_files)
    patches = Patches.from_files(files)
    data_mean, data_std = patches.statistics()
    check = _validation_slices(held_out) if held_out else None
    torch.manual_seed(config.seed)
    network = SliceUNet(network_config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if weights is not None:
        read_model(weights, "prior").load_into(network)
    model = out / "prior.safetensors"

    def finish(state: TrainingState) -> dict[str, float]:
        average = SliceUNet(network_config)
        average.load_state_dict(state.average)
        precision = torch.bfloat16 if config.bfloat16 else torch.float32
        denoiser = NetworkDenoiser(average.to(processes.device).eval().requires_grad_(False), data_mean, data_std, precision)
        errors = denoising_errors(denoiser, check) if check is not None else {}
        write_model(model, state.average, _card(network_config, config, state.step, data_name, len(files), patches, errors))
        if on_sheet is not None:
            height, width = patches.subjects[0].shape[-2:]
            on_sheet(state.step, draw_samples(denoiser, 8, height, width))
        return {f"rmse@{level:g}": error for level, error in errors.items()}

    objective = ScoreMatching(patches, data_mean, data_std)
    train(network, objective, out, config, resume=resume, processes=processes, on_step=on_step, on_checkpoint=finish)
    return model


def _validation_slices(files: Sequence[str | Path], per_scan: int = 2) -> Tensor:
    """Slices at one and two thirds of each scan, all of the first one's size."""
    stacks = Patches.from_files(files).subjects
    size = stacks[0].shape[-2:]
    chosen = [s[[len(s) * (i + 1) // (per_scan + 1) for i in range(per_scan)]] for s in stacks if s.shape[-2:] == size]
    return torch.cat(chosen)


def _card(
    network: NetworkConfig, config: TrainingConfig, step: int, data_name: str, subjects: int, patches: Patches, errors: dict[float, float]
) -> dict[str, Any]:
    data_mean, data_std = patches.statistics()
    return training_card("prior", network, config, step, data_name, subjects) | {
        "slices": sum(len(s) for s in patches.subjects),
        "data_mean": data_mean,
        "data_std": data_std,
        "noise_levels": {"distribution": "log-normal", "log_mean": LOG_SIGMA_MEAN, "log_std": LOG_SIGMA_STD},
        "denoising_rmse": {f"{level:g}": round(error, 6) for level, error in errors.items()},
    }
