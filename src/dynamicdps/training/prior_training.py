"""Training the prior by score matching on windows of neighbouring slices (Karras et al. 2022)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynamicdps.models.model_file import read_model, write_model
from dynamicdps.networks.neighbour_unet import NeighbourConfig, NeighbourUNet
from dynamicdps.priors.denoiser import network_time, scalings
from dynamicdps.priors.prior import Domain, NeighbourPrior, Prior
from dynamicdps.priors.samples import draw_samples
from dynamicdps.training.layout_fit import fit_layout
from dynamicdps.training.loop import TrainingConfig, TrainingState, train, training_card
from dynamicdps.training.patches import split_held_out
from dynamicdps.training.processes import Processes
from dynamicdps.training.windows import SliceWindows, TrainingVolume, WindowDraw
from dynamicdps.volumes import IntensityScale, load

# Karras et al. train on data in [-1, 1] with log-normal levels; ours live in [0, 1], so the mean falls by log 2.
LOG_SIGMA_MEAN = -1.6 - 0.693
LOG_SIGMA_STD = 1.4
VALIDATION_LEVELS = (0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
# Levels at which the card says how alike the errors of neighbouring slices are: those that solvers use most.
CORRELATION_LEVELS = (0.06, 0.12, 0.2)
CORRELATED_SLICES = 7
# Slices of a validation scan that are denoised, from its middle.
VALIDATION_SLICES = 16
# Largest window, height and width, and windows of a batch.
WINDOW, WINDOWS = (176, 144), 8


@dataclass(frozen=True)
class WindowScoreMatching:
    """Loss of Karras et al. 2022, eq. 8, on windows of slices whose noise is independent and of one level.

    At every noise level the network's own target has unit variance, so all levels weigh alike. Slices that are missing are 0 for the
    network and do not count; every window counts alike.

    Attributes:
        windows: of clean slices.
        data_mean: their mean intensity.
        data_std: their standard deviation.
        slices_out: slices in the middle that the network returns.
    """

    windows: SliceWindows
    data_mean: float
    data_std: float
    slices_out: int

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What the windows show (`WindowDraw`), noise levels ``(batch,)`` and seeds of the noise ``(batch,)``."""
        drawn = self.windows.draw(generator)
        log_sigma = LOG_SIGMA_MEAN + LOG_SIGMA_STD * torch.randn(len(drawn.stack), generator=generator)
        return *drawn, log_sigma.exp(), torch.randint(2**62, (len(drawn.stack),), generator=generator)

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """See `dynamicdps.training.loop.Objective`."""
        *parts, sigma, seeds = batch
        drawn = WindowDraw(*parts)
        with torch.no_grad(), torch.autocast(sigma.device.type, enabled=False):
            clean, present = (part.to(sigma.device) for part in self.windows.gather(drawn))
            noise = torch.stack([_noise(int(seed), clean) for seed in seeds.tolist()])
            s = sigma.view(-1, 1, 1, 1)
            skip, out, in_ = scalings(s, self.data_std)
            centred = clean - self.data_mean
            noisy = centred + s * noise
            edge = (clean.shape[1] - self.slices_out) // 2
            middle = slice(edge, edge + self.slices_out)
            target = ((centred - skip * noisy) / out)[:, middle]
            seen = noisy * in_ * present[:, :, None, None]
            count = present[:, middle].to(target.dtype)
        found: Tensor = network(seen, network_time(sigma), present, drawn.contrast)
        error = (found.float() - target).square().mean((2, 3))
        return ((error * count).sum(1) / count.sum(1)).mean()


def _noise(seed: int, like: Tensor) -> Tensor:
    """Standard normal noise of one window, drawn on its device."""
    generator = torch.Generator(device=like.device).manual_seed(seed)
    return torch.randn(like.shape[1:], generator=generator, device=like.device)


def denoise_volumes(prior: Prior, volumes: Sequence[Tensor], level: float, seed: int = 0) -> list[Tensor]:
    """Volumes ``(depth, height, width)`` with noise of a level, denoised; each with noise of its own."""
    found = []
    for number, volume in enumerate(volumes):
        noise = torch.randn(volume.shape, generator=torch.Generator().manual_seed(seed * 1000 + number))
        noisy = (volume + level * noise)[None, None].to(prior.device)
        with torch.inference_mode():
            found.append(prior(noisy, torch.full((1,), level, device=prior.device))[0, 0].cpu())
    return found


def denoising_errors(
    prior: Prior, volumes: Sequence[Tensor], levels: Sequence[float] = VALIDATION_LEVELS, inner: int = 0, seed: int = 0
) -> dict[float, float]:
    """Root mean square error at each noise level over whole slices of volumes.

    Args:
        prior: of volumes.
        volumes: clean, ``(depth, height, width)`` each.
        levels: noise levels.
        inner: slices at both ends that do not count, where a volume has more than those.
        seed: of the noise.
    """
    errors = {}
    for level in levels:
        total, count = 0.0, 0
        for volume, found in zip(volumes, denoise_volumes(prior, volumes, level, seed), strict=True):
            margin = inner if len(volume) > 2 * inner else 0
            part = (found - volume)[margin : len(volume) - margin]
            total, count = total + float(part.double().square().sum()), count + part.numel()
        errors[level] = (total / count) ** 0.5
    return errors


def error_correlation(prior: Prior, volumes: Sequence[Tensor], levels: Sequence[float] = CORRELATION_LEVELS) -> list[float]:
    """How alike the errors of slices 0, 1, 2, ... apart are inside the brain, for noise that is independent in every voxel."""
    products: list[list[float]] = [[] for _ in range(CORRELATED_SLICES)]
    for level in levels:
        for volume, found in zip(volumes, denoise_volumes(prior, volumes, level), strict=True):
            error = torch.where(volume > 0, found - volume, 0.0)
            size = float(error.square().mean().clamp_min(1e-12))
            for apart in range(min(CORRELATED_SLICES, len(volume))):
                products[apart].append(float((error[apart:] * error[: len(error) - apart]).mean()) / size)
    return [sum(p) / len(p) for p in products if p]


def train_prior(
    train_files: Sequence[str | Path],
    out: Path,
    *,
    validation_files: Sequence[str | Path] = (),
    network_config: NeighbourConfig = NeighbourConfig(),
    config: TrainingConfig = TrainingConfig(),
    resume: bool = False,
    weights: str | Path | None = None,
    data_name: str = "unnamed",
    suffix: str = "T1w",
    processes: Processes = Processes(),
    on_step: Callable[[int, float], None] | None = None,
    on_sheet: Callable[[int, Tensor], None] | None = None,
) -> Path:
    """Train a prior on skull-stripped scans and write ``prior.safetensors`` with its model card.

    Where 16 scans or more have one shape, ``prior-layout.safetensors`` says where the large parts of a brain lie in them; see `Layout`.

    Args:
        train_files: scans to learn from.
        out: folder of the training; see `dynamicdps.training.loop.train`.
        validation_files: scans of other subjects, for the denoising error at each noise level; without them the last tenth of
            `train_files` (at least one) is held out.
        network_config: size of the network.
        config: how to train.
        resume: continue from the checkpoint in `out`.
        weights: a prior, by bundled name or file, whose weights a new training starts from.
        data_name: what the model card says about the data.
        suffix: BIDS suffix of the scans' contrast.
        processes: that train together.
        on_step: called with step and loss.
        on_sheet: called with step and 8 unconditional samples ``(8, 1, 1, height, width)`` at every checkpoint.

    Returns:
        The model file.
    """
    files, held_out = split_held_out(train_files, validation_files)
    volumes = [TrainingVolume.from_file(file, suffix) for file in files]
    multiple = network_config.multiple
    size = tuple(
        min(most, -(-max(v.data.shape[axis] for v in volumes) // multiple) * multiple) for axis, most in ((1, WINDOW[0]), (2, WINDOW[1]))
    )
    windows = SliceWindows(volumes, network_config.slices_in, (size[0], size[1]), WINDOWS).to(processes.device)
    data_mean, data_std = windows.statistics()
    check = [validation_volume(file) for file in held_out]
    layout = fit_layout(volumes, suffix)
    if layout is not None:
        layout.write(out / "prior-layout.safetensors", data_name)
    torch.manual_seed(config.seed)
    network = NeighbourUNet(network_config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if weights is not None:
        read_model(weights, "prior").load_into(network)
    model = out / "prior.safetensors"

    def finish(state: TrainingState) -> dict[str, float]:
        average = NeighbourUNet(network_config)
        average.load_state_dict(state.average)
        precision = torch.bfloat16 if config.bfloat16 else torch.float32
        average.to(processes.device).eval().requires_grad_(False)
        prior = NeighbourPrior(average, data_mean, data_std, Domain(suffix=suffix), precision)
        errors = denoising_errors(prior, check, inner=1) if check else {}
        card = training_card("prior", network_config, config, state.step, data_name, len(files), suffix) | prior_card(
            data_mean, data_std, errors
        )
        card |= {"suffix": suffix, "slices": windows.slice_count}
        if any(len(volume) > 1 for volume in check):
            card["error_correlation"] = [round(value, 4) for value in error_correlation(prior, check)]
        write_model(model, state.average, card)
        if on_sheet is not None:
            on_sheet(state.step, draw_samples(prior, 8, *size, layout=layout))
        return {f"rmse@{level:g}": error for level, error in errors.items()}

    objective = WindowScoreMatching(windows, data_mean, data_std, network_config.slices_out)
    train(network, objective, out, config, resume=resume, processes=processes, on_step=on_step, on_checkpoint=finish)
    return model


def validation_volume(file: str | Path, most: int = VALIDATION_SLICES) -> Tensor:
    """The middle slices of a scan in image intensities, ``(depth, height, width)``."""
    volume = load(file)
    data = torch.from_numpy(IntensityScale.robust(volume.data).apply(volume).data.transpose(2, 1, 0).copy()).float().clamp_min(0)
    first = max(0, (len(data) - most) // 2)
    return data[first : first + most]


def prior_card(data_mean: float, data_std: float, errors: dict[float, float]) -> dict[str, Any]:
    """What a prior's card says beyond other models'."""
    return {
        "data_mean": data_mean,
        "data_std": data_std,
        "noise_levels": {"distribution": "log-normal", "log_mean": LOG_SIGMA_MEAN, "log_std": LOG_SIGMA_STD},
        "denoising_rmse": {f"{level:g}": round(error, 6) for level, error in errors.items()},
    }
