"""The conditional U-Net: from the measurement to the image of least squared error, trained on simulated pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dynamicdps.conditional.model import ConditionalModel
from dynamicdps.conditional.pairs import DegradationRange, SimulatedPairs, draw_pair
from dynamicdps.models.model_file import ModelFile, read_model, write_model
from dynamicdps.networks import NetworkConfig, SliceUNet
from dynamicdps.training import TrainingConfig, TrainingState
from dynamicdps.training.loop import train, training_card
from dynamicdps.training.processes import Processes

__all__ = ["UNET_CONFIG", "ConditionalUNet", "DegradationRange", "draw_pair", "load_unet", "train_unet", "unet_of"]

UNET_CONFIG = NetworkConfig(channels=(32, 64, 128), residual_blocks=(1, 2, 2), norm_groups=16)


class ConditionalUNet(ConditionalModel):
    """A `SliceUNet` as a conditional model."""

    def correction(self, inputs: Tensor) -> Tensor:
        """See `ConditionalModel`; the network's time is always 0."""
        out: Tensor = self.network(inputs, torch.zeros(len(inputs), device=inputs.device))
        return out


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error of a U-Net's images of simulated pairs, times 100, so that losses and gradients are of order 1."""

    pairs: SimulatedPairs

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Interpolated measurements and true images."""
        return self.pairs.draw(generator)

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """See `dynamicdps.training.loop.Objective`."""
        inputs, truth = batch
        value: Tensor = 100 * (ConditionalUNet(network)(inputs) - truth).square().mean()
        return value


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
    processes: Processes = Processes(),
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
        processes: that train together.
        on_step: called with step and loss.

    Returns:
        The model file.

    Raises:
        InputError: the degradation couples slices (only ``"range"`` trains on stacks) or is unknown; otherwise as
            `dynamicdps.training.loop.train`.
    """
    pairs = SimulatedPairs.from_files(train_files, validation_files, degradation)
    torch.manual_seed(config.seed)
    network = SliceUNet(network_config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if weights is not None:
        read_model(weights, "unet").load_into(network)
    path = out / "unet.safetensors"

    def finish(state: TrainingState) -> dict[str, float]:
        average = SliceUNet(network_config)
        average.load_state_dict(state.average)
        found = pairs.validate(ConditionalUNet(average.eval()))
        card = training_card("unet", network_config, config, state.step, data_name, pairs.files) | pairs.to_json() | found.to_json()
        write_model(path, state.average, card)
        return {"psnr": found.psnr}

    train(network, SquaredError(pairs), out, config, resume=resume, processes=processes, on_step=on_step, on_checkpoint=finish)
    return path


def load_unet(name: str | Path, device: str = "cpu") -> ConditionalUNet:
    """A conditional U-Net by its bundled name or file, ready for inference.

    Raises:
        InputError: as `dynamicdps.models.model_file.read_model`.
    """
    return unet_of(read_model(name, "unet"), device)


def unet_of(model: ModelFile, device: str = "cpu") -> ConditionalUNet:
    """The conditional U-Net that a model file holds, ready for inference."""
    return ConditionalUNet(model.build(SliceUNet.from_json)).to(device).eval()
