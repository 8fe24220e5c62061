"""`dynamicdps train prior`, `dynamicdps train unet` and `dynamicdps train esrgan`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

from dynamicdps.cli.pictures import write_sheet
from dynamicdps.cli.progress import progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.conditional import RRDBConfig, train_esrgan, train_unet
from dynamicdps.diffusion import NetworkConfig, TrainingConfig, train_prior
from dynamicdps.diffusion.model_file import file_hash
from dynamicdps.errors import InputError

if TYPE_CHECKING:
    from dynamicdps.cli.commands import TrainESRGAN, TrainPrior, TrainUNet, _Training, _UNetTraining


def training_config(arguments: "_Training") -> TrainingConfig:
    """How to train, checked.

    Raises:
        InputError: there is no scan, or a number is out of its range.
    """
    if not arguments.scans:
        raise InputError("there is no scan to learn from; expected at least one SCAN; name skull-stripped T1w files")
    if arguments.steps < 1 or arguments.checkpoint_every < 1 or arguments.max_minutes <= 0:
        raise InputError("--steps, --checkpoint-every and --max-minutes must be greater than 0; expected positive numbers; change them")
    return TrainingConfig(
        steps=arguments.steps,
        max_minutes=arguments.max_minutes,
        learning_rate=arguments.learning_rate,
        cooldown=arguments.cooldown,
        checkpoint_every=arguments.checkpoint_every,
        seed=arguments.seed,
        bfloat16=arguments.bfloat16,
    )


def network_config(arguments: "_UNetTraining") -> NetworkConfig:
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


@contextmanager
def training_bar(label: str, steps: int) -> Iterator[Callable[[int, float], None]]:
    """A bar with the smoothed loss and the seconds a step."""
    with progress_bar(label, "steps") as bar:
        last, smooth, rate = time.monotonic(), float("nan"), float("nan")

        def update(step: int, loss: float) -> None:
            nonlocal last, smooth, rate
            now = time.monotonic()
            smooth = loss if smooth != smooth else 0.98 * smooth + 0.02 * loss
            rate = now - last if rate != rate else 0.9 * rate + 0.1 * (now - last)
            last = now
            bar(step, steps, f"loss {smooth:.4f}, {rate:.2f} s a step")

        yield update


def run_prior(arguments: "TrainPrior") -> None:
    config, network = training_config(arguments), network_config(arguments)

    def sheet(step: int, samples: Tensor) -> None:
        write_sheet(arguments.out / "samples.png", samples, f"{step} steps")

    with recorded(arguments.out, "train prior", arguments) as record, training_bar("prior", config.steps) as bar:
        model = train_prior(
            arguments.scans,
            arguments.out,
            validation_files=arguments.validation,
            network_config=network,
            config=config,
            resume=arguments.resume,
            weights=arguments.weights,
            data_name=arguments.data_name,
            on_step=bar,
            on_sheet=sheet,
        )
        record.facts["models"] = {"prior": file_hash(model)}
    say(f"{model}\n{model.with_suffix('.json')}\n{arguments.out / 'samples.png'}")


def run_unet(arguments: "TrainUNet") -> None:
    config, network = training_config(arguments), network_config(arguments)
    with recorded(arguments.out, "train unet", arguments) as record, training_bar("unet", config.steps) as bar:
        model = train_unet(
            arguments.scans,
            arguments.out,
            degradation=arguments.degradation,
            validation_files=arguments.validation,
            network_config=network,
            config=config,
            resume=arguments.resume,
            weights=arguments.weights,
            data_name=arguments.data_name,
            on_step=bar,
        )
        record.facts["models"] = {"conditional": file_hash(model)}
    say(f"{model}\n{model.with_suffix('.json')}")


def run_esrgan(arguments: "TrainESRGAN") -> None:
    config, network = training_config(arguments), RRDBConfig(arguments.channels, arguments.growth, arguments.blocks)
    with recorded(arguments.out, "train esrgan", arguments) as record, training_bar("esrgan", config.steps) as bar:
        model = train_esrgan(
            arguments.scans,
            arguments.out,
            degradation=arguments.degradation,
            validation_files=arguments.validation,
            network_config=network,
            adversarial_weight=arguments.adversarial_weight,
            pretrain_steps=arguments.pretrain_steps,
            config=config,
            resume=arguments.resume,
            weights=arguments.weights,
            data_name=arguments.data_name,
            on_step=bar,
        )
        record.facts["models"] = {"conditional": file_hash(model)}
    say(f"{model}\n{model.with_suffix('.json')}")
