"""The conditional model: a U-Net from the measurement to the image, trained on simulated pairs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynamicdps.diffusion import ModelFile, NetworkConfig, Patches, SliceUNet, TrainingConfig, TrainingState, read_model, write_model
from dynamicdps.diffusion.patches import split_held_out
from dynamicdps.diffusion.training import train, training_card
from dynamicdps.errors import InputError
from dynamicdps.operators import LowField, Operator, add_noise, interpolate, preset

UNET_CONFIG = NetworkConfig(channels=(32, 64, 128), residual_blocks=(1, 2, 2), norm_groups=16)
CENTRE, SPREAD = 0.5, 0.3


class ConditionalUNet(nn.Module):
    """Maps measurements, interpolated on the image grid, to images: interpolation plus a learned correction."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, interpolated: Tensor) -> Tensor:
        """``(batch, 1, height, width)`` to the same shape, both in image intensities."""
        time = torch.zeros(len(interpolated), device=interpolated.device)
        inputs = ((interpolated - CENTRE) / SPREAD).to(memory_format=torch.channels_last)
        out: Tensor = interpolated + SPREAD * self.network(inputs, time).float()
        return out

    @torch.no_grad()
    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int], chunk: int = 8) -> Tensor:
        """Initial image of a measurement.

        Args:
            y: measurements, ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
            operator: only its voxel sizes are used.
            shape: shape of the image tensor.
            chunk: slices a network pass.
        """
        slices = interpolate(y, operator.voxel_factors(), shape).reshape(-1, 1, *shape[-2:])
        return torch.cat([self(part) for part in torch.split(slices, chunk)]).clamp_min(0).reshape(tuple(shape))


@dataclass(frozen=True)
class DegradationRange:
    """Degradations drawn at random for training: the limits of each parameter."""

    gamma: tuple[float, float] = (0.35, 1.3)
    in_plane_factor: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0)
    blur: tuple[float, float] = (0.0, 2.0)
    slice_thickness: tuple[float, ...] = (1.0, 3.0, 5.0)
    noise_std: tuple[float, float] = (0.001, 0.06)

    def draw(self, generator: torch.Generator) -> LowField:
        """One operator."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        def choice(values: tuple[float, ...]) -> float:
            return values[int(torch.randint(len(values), (), generator=generator))]

        thickness = choice(self.slice_thickness)
        return LowField(
            gamma=uniform(*self.gamma),
            in_plane_factor=choice(self.in_plane_factor),
            blur=uniform(*self.blur),
            slice_thickness=thickness if thickness > 1 else None,
            noise_std=self.noise_std[0] * (self.noise_std[1] / self.noise_std[0]) ** float(torch.rand((), generator=generator)),
        )


def draw_pair(patches: Patches, degradation: LowField | DegradationRange, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch of interpolated measurements and their true images, both ``(batch, 1, height, width)``."""
    if isinstance(degradation, DegradationRange):
        groups = [_stack_pair(patches.stack(generator), degradation.draw(generator), generator) for _ in range(4)]
        height, width = (min(truth.shape[axis] for _, truth in groups) for axis in (-2, -1))
        inputs, truths = (torch.cat([image[..., :height, :width] for image in images]) for images in zip(*groups, strict=True))
        return inputs, truths
    truth = patches.batch(generator)
    y = add_noise(degradation(truth), degradation.noise_std, [generator] * len(truth), degradation.noise)
    return interpolate(y, degradation.voxel_factors(), truth.shape), truth


def _stack_pair(stack: Tensor, operator: LowField, generator: torch.Generator, keep: int = 4) -> tuple[Tensor, Tensor]:
    """Degrade a stack of neighbouring slices as a volume; keep some of them."""
    volume = stack.movedim(0, 1)[None]
    y = add_noise(operator(volume), operator.noise_std, [generator], operator.noise)
    slices = interpolate(y, operator.voxel_factors(), volume.shape)[0].movedim(0, 1)
    chosen = torch.randperm(len(stack), generator=generator)[:keep]
    return slices[chosen], stack[chosen]


def train_unet(
    train_files: Sequence[str | Path],
    out: Path,
    *,
    degradation: str = "iqt-in",
    validation_files: Sequence[str | Path] = (),
    network_config: NetworkConfig = UNET_CONFIG,
    config: TrainingConfig = TrainingConfig(),
    resume: bool = False,
    weights: str | Path | None = None,
    data_name: str = "unnamed",
    on_step: Callable[[int, float], None] | None = None,
) -> Path:
    """Train a conditional model on simulated pairs and write ``unet.safetensors`` with its model card.

    Args:
        train_files: skull-stripped scans.
        out: folder of the training.
        degradation: the name of one degradation, or ``"range"`` for all of `DegradationRange`.
        validation_files: scans of other subjects; without them the last tenth of `train_files` is held out.
        network_config: size of the network.
        config: how to train.
        resume: continue from the checkpoint in `out`.
        weights: a U-Net, by bundled name or file, whose weights a new training starts from.
        data_name: what the model card says about the data.
        on_step: called with step and loss.

    Returns:
        The model file.

    Raises:
        InputError: the degradation couples slices (only ``"range"`` trains on stacks) or is unknown; otherwise as
            `dynamicdps.diffusion.training.train`.
    """
    model = DegradationRange() if degradation == "range" else preset(degradation)
    if isinstance(model, LowField) and model.couples_slices:
        raise InputError(f"{degradation} has thick slices; expected a degradation of single slices, or range; choose range")
    files, held_out = split_held_out(train_files, validation_files)
    patches = Patches.from_files(files)
    check = Patches.from_files(held_out) if held_out else None
    torch.manual_seed(config.seed)
    network = SliceUNet(network_config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if weights is not None:
        read_model(weights, "unet").load_into(network)
    path = out / "unet.safetensors"

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        inputs, truth = draw_pair(patches, model, generator)
        value: Tensor = 100 * (ConditionalUNet(network)(inputs) - truth).square().mean()
        return value

    def finish(state: TrainingState) -> dict[str, float]:
        average = SliceUNet(network_config)
        average.load_state_dict(state.average)
        psnr = _validation_psnr(ConditionalUNet(average.eval()), check, model) if check is not None else float("nan")
        write_model(path, state.average, _card(network_config, config, state.step, degradation, model, data_name, len(files), psnr))
        return {"psnr": psnr}

    train(network, loss, out, config, resume=resume, on_step=on_step, on_checkpoint=finish)
    return path


@torch.inference_mode()
def _validation_psnr(unet: ConditionalUNet, patches: Patches, model: LowField | DegradationRange, batches: int = 12) -> float:
    """PSNR in dB over the same patches every time."""
    total, count = 0.0, 0
    for index in range(batches):
        inputs, truth = draw_pair(patches, model, torch.Generator().manual_seed(index))
        total += float((unet(inputs) - truth).square().sum())
        count += truth.numel()
    return float(-10 * torch.tensor(total / count).log10())


def _card(
    network: NetworkConfig,
    config: TrainingConfig,
    step: int,
    degradation: str,
    model: LowField | DegradationRange,
    data_name: str,
    subjects: int,
    psnr: float,
) -> dict[str, Any]:
    parameters = model.to_json() if isinstance(model, LowField) else vars(replace(model))
    return training_card("unet", network, config, step, data_name, subjects) | {
        "degradation": degradation,
        "degradation_parameters": parameters,
        "validation_psnr": None if math.isnan(psnr) else round(psnr, 3),
    }


def load_unet(name: str | Path, device: str = "cpu") -> ConditionalUNet:
    """A conditional model by its bundled name or file, ready for inference.

    Raises:
        InputError: as `dynamicdps.diffusion.read_model`.
    """
    model: ModelFile = read_model(name, "unet")
    return ConditionalUNet(model.network()).to(device).eval()
