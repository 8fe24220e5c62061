"""What the GPU trainings of volume networks share: options, what they start from, and minutes whose last share has a falling rate."""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet, grow
from dynamicdps.models.model_file import read_model
from dynamicdps.training.loop import TrainingConfig, TrainingState, train
from dynamicdps.training.processes import Processes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that do not depend on what is trained."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weights", type=Path, help="a model of the same kind, no larger than the network")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--cooldown", type=float, default=0.3, help="share of the time with a falling learning rate")


def settings_of(arguments: argparse.Namespace) -> TrainingConfig:
    """How a training of unknown length learns."""
    return TrainingConfig(
        learning_rate=arguments.learning_rate, warmup=100, decay_from=10**9, averaging=0.05, optimiser="muon", checkpoint_every=10**9
    )


def network_of(arguments: argparse.Namespace, config: VolumeConfig, kind: str) -> VolumeUNet:
    """The network with fresh weights, or with the function of the model that `--weights` names."""
    torch.manual_seed(0)
    network = VolumeUNet(config)
    if arguments.weights is not None:
        model = read_model(arguments.weights, kind)
        grow(network, model.build(lambda values: VolumeUNet(VolumeConfig.from_json(values))))
    return network


def train_for_minutes(
    arguments: argparse.Namespace, network: VolumeUNet, loss: Any, finish: Callable[[TrainingState], dict[str, float]], every: int
) -> None:
    """Train for `--minutes`, the last share of them with a falling rate, and leave ``log.csv`` and ``training.json`` in `--out`.

    Args:
        arguments: with the options of `add_options`.
        network: to be trained.
        loss: of a batch, with its draws.
        finish: validates and writes the model, after either part.
        every: steps between two lines of progress.
    """
    settings, began = settings_of(arguments), time.monotonic()
    share, processes = arguments.cooldown, Processes(device=torch.device(arguments.device))

    def on_step(step: int, value: float) -> None:
        if step % every == 0:
            print(f"{step} steps, {time.monotonic() - began:.0f} s, loss {value:.4f}", flush=True)

    with TemporaryDirectory() as folder:
        first = replace(settings, max_minutes=arguments.minutes * (1 - share))
        state = train(network, loss, Path(folder), first, processes=processes, on_step=on_step, on_checkpoint=finish)
        rest = max(1, int(state.step * share / (1 - share)))
        last = replace(settings, steps=state.step + rest, cooldown=rest, max_minutes=arguments.minutes * share * 1.15)
        train(network, loss, Path(folder), last, resume=True, processes=processes, on_step=on_step, on_checkpoint=finish)
        for name in ("log.csv", "training.json"):
            (arguments.out / name).write_bytes((Path(folder) / name).read_bytes())
    print(json.dumps({"seconds": round(time.monotonic() - began, 1)}))
