"""`dynamicdps train prior`, `dynamicdps train unet` and `dynamicdps train esrgan`."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dynamicdps.cli.commands import TrainESRGAN, TrainPrior, TrainSegmenter, TrainUNet, _Training, _UNetTraining
from dynamicdps.cli.pictures import write_sheet
from dynamicdps.cli.progress import progress_bar, say
from dynamicdps.cli.record import Record, recorded
from dynamicdps.conditional import RRDBConfig, VolumeConfig, train_esrgan, train_unet, train_volume_unet
from dynamicdps.errors import InputError
from dynamicdps.models.model_file import file_hash
from dynamicdps.networks import NeighbourConfig, NetworkConfig
from dynamicdps.networks.precision import has_bfloat16
from dynamicdps.pipeline.checks import check_device
from dynamicdps.segmentation import train_segmenter
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.training import TrainingConfig, train_prior
from dynamicdps.training.processes import Processes, join
from dynamicdps.volumes.contrast import CONTRASTS


def training_config(arguments: _Training) -> TrainingConfig:
    """How to train, checked.

    Raises:
        InputError: there is no scan, or a number is out of its range.
    """
    if not arguments.scans:
        raise InputError("there is no scan to learn from; expected at least one SCAN; name skull-stripped T1w files")
    if min(arguments.steps, arguments.checkpoint_every, arguments.max_minutes, arguments.batches, arguments.accumulate) <= 0:
        raise InputError(
            "--steps, --checkpoint-every, --max-minutes, --batches and --accumulate must be greater than 0; expected positive numbers; "
            "change them"
        )
    return TrainingConfig(
        steps=arguments.steps,
        max_minutes=arguments.max_minutes,
        learning_rate=arguments.learning_rate,
        cooldown=arguments.cooldown,
        checkpoint_every=arguments.checkpoint_every,
        seed=arguments.seed,
        bfloat16=arguments.bfloat16 and has_bfloat16(check_device(arguments.device)),
        batches=arguments.batches,
        accumulate=arguments.accumulate,
        optimiser=arguments.optimiser,
    )


def network_config(arguments: _UNetTraining) -> NetworkConfig:
    """The network's size, checked.

    Raises:
        InputError: the lists do not fit each other.
    """
    channels, blocks = arguments.channels, arguments.residual_blocks
    if not channels or len(channels) != len(blocks) or any(c % 16 or c < 16 for c in channels) or min(blocks) < 1:
        raise InputError(
            f"channels {channels} and residual blocks {blocks} do not fit; expected as many of both and channels that 16 divides"
        )
    return NetworkConfig(channels=channels, residual_blocks=blocks, attention=(False,) * len(channels))


def prior_config(arguments: TrainPrior) -> NeighbourConfig:
    """The prior's network, checked.

    Raises:
        InputError: the lists do not fit each other, the slices have no middle, or the contrast is unknown.
    """
    levels = network_config(arguments)
    if arguments.contrast not in CONTRASTS:
        raise InputError(f"--contrast is {arguments.contrast!r}; expected one of {', '.join(CONTRASTS)}")
    return NeighbourConfig(arguments.slices_in, arguments.slices_out, levels.channels, levels.residual_blocks, levels.attention)


RATE_STEPS = 20


@contextmanager
def training_bar(label: str, steps: int) -> Iterator[Callable[[int, float], None]]:
    """A bar with the smoothed loss and the seconds a step."""
    with progress_bar(label, "steps") as bar:
        # Of the steps since the first, which has the start-up in it; at most as many as say how fast it is now.
        ends: deque[float] = deque(maxlen=RATE_STEPS + 1)
        smooth = float("nan")

        def update(step: int, loss: float) -> None:
            nonlocal smooth
            ends.append(time.monotonic())
            smooth = loss if smooth != smooth else 0.98 * smooth + 0.02 * loss
            rate = f", {(ends[-1] - ends[0]) / (len(ends) - 1):.2f} s a step" if len(ends) > 1 else ""
            bar(step, steps, f"loss {smooth:.4f}{rate}")

        yield update


@dataclass(frozen=True)
class Session:
    """A training that has begun.

    Attributes:
        processes: that train together.
        record: of run.json; of the first process alone it is written.
        on_step: shows progress; `None` in the other processes.
        files: that it has written, to be named.
    """

    processes: Processes
    record: Record
    on_step: Callable[[int, float], None] | None
    files: list[Path] = field(default_factory=list)

    def options(self, arguments: _Training) -> dict[str, Any]:
        """What every training function takes."""
        return {
            "validation_files": arguments.validation,
            "resume": arguments.resume,
            "weights": arguments.weights,
            "data_name": arguments.data_name,
            "processes": self.processes,
            "on_step": self.on_step,
        }

    def end(self, kind: str, model: Path, *others: Path) -> None:
        """What it has come to: the model of a kind, and other files."""
        self.record.facts["models"] = {kind: file_hash(model)} if self.processes.first else {}
        self.files.extend([model, model.with_suffix(".json"), *others])


@contextmanager
def session(arguments: _Training, name: str) -> Iterator[Session]:
    """Meet the other processes; the first one records the training, shows its progress and names the files at the end."""
    with join(check_device(arguments.device)) as processes:
        if not processes.first:
            yield Session(processes, Record(), None)
            return
        with recorded(arguments.out, f"train {name}", arguments) as record, training_bar(name, arguments.steps) as bar:
            record.facts["processes"] = processes.count
            training = Session(processes, record, bar)
            yield training
        say("\n".join(map(str, training.files)))


def run_prior(arguments: TrainPrior) -> None:
    config = training_config(arguments)
    network = prior_config(arguments)
    sheet = arguments.out / "samples.png"

    def draw_sheet(step: int, samples: Tensor) -> None:
        write_sheet(sheet, samples[:, :, 0], f"{step} steps")

    with session(arguments, "prior") as training:
        model = train_prior(
            arguments.scans,
            arguments.out,
            network_config=network,
            config=config,
            suffix=arguments.contrast,
            on_sheet=draw_sheet,
            **training.options(arguments),
        )
        training.end("prior", model, sheet)


def run_unet(arguments: TrainUNet) -> None:
    config, network = training_config(arguments), network_config(arguments)
    with session(arguments, "unet") as training:
        shared = training.options(arguments)
        if arguments.degradation == "scanners":
            volumes = VolumeConfig(network.channels, network.residual_blocks)
            model = train_volume_unet(arguments.scans, arguments.out, network_config=volumes, config=config, **shared)
        else:
            named = arguments.degradation
            model = train_unet(arguments.scans, arguments.out, degradation=named, network_config=network, config=config, **shared)
        training.end("conditional", model)


def run_segmenter(arguments: TrainSegmenter) -> None:
    config = training_config(arguments)
    network = VolumeConfig(arguments.channels, arguments.residual_blocks, planes=0, outputs=len(CLASSES))
    with session(arguments, "segmenter") as training:
        model = train_segmenter(arguments.scans, arguments.out, network_config=network, config=config, **training.options(arguments))
        training.end("segmenter", model)


def run_esrgan(arguments: TrainESRGAN) -> None:
    config, network = training_config(arguments), RRDBConfig(arguments.channels, arguments.growth, arguments.blocks)
    with session(arguments, "esrgan") as training:
        model = train_esrgan(
            arguments.scans,
            arguments.out,
            degradation=arguments.degradation,
            network_config=network,
            adversarial_weight=arguments.adversarial_weight,
            pretrain_steps=arguments.pretrain_steps,
            config=config,
            **training.options(arguments),
        )
        training.end("conditional", model)
