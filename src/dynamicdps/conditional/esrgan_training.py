"""Training of the conditional ESRGAN: first the L1 error alone, then with the relativistic adversarial loss."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from dynamicdps.conditional.discriminator import UNetDiscriminator, relativistic_loss
from dynamicdps.conditional.esrgan import ConditionalESRGAN, RRDBConfig, RRDBNetwork
from dynamicdps.conditional.model import scaled
from dynamicdps.conditional.pairs import SimulatedPairs
from dynamicdps.errors import InputError
from dynamicdps.models.model_file import read_model, write_model
from dynamicdps.training import TrainingConfig, TrainingState
from dynamicdps.training.loop import train, training_card
from dynamicdps.training.processes import Processes

ADVERSARIAL_WEIGHT = 5e-3
PRETRAIN_STEPS = 3000
ESRGAN_TRAINING = TrainingConfig(learning_rate=2e-4)
# Texture is local: many small crops teach the discriminator more than few slices.
CROPS = ((96, 96, 8),)


class Adversaries(nn.Module):
    """Generator and discriminator, side by side in a checkpoint."""

    def __init__(self, generator: RRDBNetwork, discriminator: UNetDiscriminator) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """What is computed inside gives no gradient to the network's weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


@dataclass
class ESRGANLoss:
    """L1 + `weight` x relativistic adversarial loss of the generator, plus the discriminator's own loss.

    Their sum has the gradient of each for its own network alone: the discriminator sees the generator's images detached, and is frozen
    while it judges for the generator. Both use the weights from before the step, as ESRGAN's own training does.

    Attributes:
        pairs: what to learn from.
        weight: of the adversarial loss; `None` for L1 alone.
        recent: L1, adversarial and discriminator's loss of each step since they were last read.
    """

    pairs: SimulatedPairs
    weight: float | None
    recent: list[tuple[float, float, float]] = field(default_factory=list)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Interpolated measurements and true images."""
        return self.pairs.draw(generator, CROPS)

    def __call__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """See `dynamicdps.training.loop.Objective`; the adversarial loss is no mean over images, and wants the whole batch."""
        inputs, truth = batch
        adversaries = cast(Adversaries, network)
        image = ConditionalESRGAN(adversaries.generator)(inputs)
        l1: Tensor = (image - truth).abs().mean()
        if self.weight is None:
            self.recent.append((l1.item(), math.nan, math.nan))
            return l1
        # The discriminator sees what `enhance` returns: the background of a skull-stripped scan is exactly 0.
        fake, discriminator = image.clamp_min(0), adversaries.discriminator
        real, detached = discriminator(scaled(torch.cat([truth, fake.detach()]))).chunk(2)
        discrimination = relativistic_loss(real, detached)
        with frozen(discriminator):
            adversarial = relativistic_loss(discriminator(scaled(fake)), real.detach())
        self.recent.append((l1.item(), adversarial.item(), discrimination.item()))
        total: Tensor = l1 + self.weight * adversarial + discrimination
        return total

    def read(self) -> dict[str, float]:
        """Means of `recent`, which is emptied."""
        names = ("l1", "adversarial", "discriminator")
        means = {name: math.fsum(values) / len(values) for name, values in zip(names, zip(*self.recent, strict=True), strict=True)}
        self.recent.clear()
        return means


def train_esrgan(
    train_files: Sequence[str | Path],
    out: Path,
    *,
    degradation: str = "iqt-in",
    validation_files: Sequence[str | Path] = (),
    network_config: RRDBConfig = RRDBConfig(),
    adversarial_weight: float = ADVERSARIAL_WEIGHT,
    pretrain_steps: int = PRETRAIN_STEPS,
    config: TrainingConfig = ESRGAN_TRAINING,
    resume: bool = False,
    weights: str | Path | None = None,
    data_name: str = "unnamed",
    processes: Processes = Processes(),
    on_step: Callable[[int, float], None] | None = None,
) -> Path:
    """Train an ESRGAN on simulated pairs and write ``esrgan.safetensors`` (the generator alone) with its model card.

    There is no perceptual loss: networks that know photographs know nothing of MRI, and their weights are not ours to ship.

    Args:
        train_files: skull-stripped scans.
        out: folder of the training.
        degradation: the name of one degradation, or ``"range"`` for all of `DegradationRange`.
        validation_files: scans of other subjects; without them the last tenth of `train_files` is held out.
        network_config: size of the generator.
        adversarial_weight: of the adversarial loss beside an L1 loss of weight 1.
        pretrain_steps: steps of L1 alone before the discriminator comes in.
        config: how to train; its steps count both phases.
        resume: continue from the checkpoint in `out`.
        weights: an ESRGAN, by bundled name or file, whose generator a new training starts from.
        data_name: what the model card says about the data.
        processes: the one that trains, for its device.
        on_step: called with step and loss.

    Returns:
        The model file.

    Raises:
        InputError: a number is below 0; there are several processes or parts of a batch; the degradation couples slices (only
            ``"range"`` trains on stacks) or is unknown; otherwise as `dynamicdps.training.loop.train`.
    """
    if not 0 <= adversarial_weight < math.inf or pretrain_steps < 0:
        raise InputError(
            f"the adversarial weight is {adversarial_weight:g} after {pretrain_steps} steps without; expected numbers from 0; change them"
        )
    if processes.count > 1 or config.accumulate > 1:
        raise InputError(
            f"there are {processes.count} processes and {config.accumulate} parts of a batch; expected one of each, since the "
            "adversarial loss compares every image with the rest of its batch; start one process without --accumulate"
        )
    pairs = SimulatedPairs.from_files(train_files, validation_files, degradation)
    torch.manual_seed(config.seed)
    adversaries = Adversaries(RRDBNetwork(network_config), UNetDiscriminator()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if weights is not None:
        read_model(weights, "esrgan").load_into(adversaries.generator)
    path = out / "esrgan.safetensors"

    def run(loss: ESRGANLoss, config: TrainingConfig, resume: bool) -> TrainingState:
        def finish(state: TrainingState) -> dict[str, float]:
            average = {n.removeprefix("generator."): value for n, value in state.average.items() if n.startswith("generator.")}
            network = RRDBNetwork(network_config)
            network.load_state_dict(average)
            found = pairs.validate(ConditionalESRGAN(network.eval()))
            card = training_card("esrgan", network_config, config, state.step, data_name, pairs.files) | pairs.to_json()
            card |= {"adversarial_weight": adversarial_weight, "pretrain_steps": min(pretrain_steps, state.step)} | found.to_json()
            write_model(path, average, card)
            return {"psnr": found.psnr, "sharpness": found.sharpness} | loss.read()

        parts = (adversaries.generator, adversaries.discriminator)
        return train(
            adversaries, loss, out, config, clipped=parts, resume=resume, processes=processes, on_step=on_step, on_checkpoint=finish
        )

    started = time.monotonic()
    if pretrain_steps:
        first = replace(config, steps=min(pretrain_steps, config.steps), cooldown=0)
        state = run(ESRGANLoss(pairs, None), first, resume)
        if state.step < pretrain_steps:
            return path
        resume = True
    left = config.max_minutes - (time.monotonic() - started) / 60
    run(ESRGANLoss(pairs, adversarial_weight), replace(config, max_minutes=left), resume)
    return path
