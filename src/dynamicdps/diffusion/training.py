"""One training loop for every network of the package: checkpoints, exact resume, averaged weights, a log."""

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dynamicdps.errors import InputError

Loss = Callable[[nn.Module, torch.Generator], Tensor]


class Describable(Protocol):
    """A network's size that a model card can hold."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        steps: stop after this many steps in all (resumed ones included).
        max_minutes: stop this session after so many minutes.
        learning_rate: peak of the schedule: linear warm-up, then constant to `decay_from` steps, then falling with the inverse
            square root (Karras et al. 2024), which needs no planned end.
        warmup: steps of the warm-up.
        decay_from: step from which the rate falls.
        cooldown: length of a last linear fall to zero before `steps`; 0 for none.
        averaging: width of the power-function average of weights, as a share of the training (Karras et al. 2024, "sigma_rel").
        weight_decay: of AdamW.
        checkpoint_every: steps between checkpoints.
        seed: all randomness follows from it and the step number.
        bfloat16: compute in bfloat16 autocast.
    """

    steps: int = 100_000
    max_minutes: float = float("inf")
    learning_rate: float = 4e-4
    warmup: int = 300
    decay_from: int = 4000
    cooldown: int = 0
    averaging: float = 0.10
    weight_decay: float = 1e-4
    checkpoint_every: int = 500
    seed: int = 0
    bfloat16: bool = True

    def rate(self, step: int) -> float:
        """Learning rate of a step (counted from 0)."""
        rate: float = self.learning_rate * min(1.0, (step + 1) / self.warmup) / max(1.0, step / self.decay_from) ** 0.5
        if self.cooldown:
            rate *= min(1.0, max(0.0, (self.steps - step) / self.cooldown))
        return rate

    def average_decay(self, step: int) -> float:
        """Weight of the old average at a step: ``(1 - 1 / (step + 1)) ** (gamma + 1)``, gamma from the relative width."""
        # sigma_rel = sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)); solved by bisection, a handful of operations a step.
        low, high = 0.0, 1000.0
        for _ in range(50):
            gamma = (low + high) / 2
            width = (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5)
            low, high = (gamma, high) if width > self.averaging else (low, gamma)
        return float((1 - 1 / (step + 1)) ** (low + 1))


def training_card(kind: str, network: Describable, config: TrainingConfig, step: int, data_name: str, subjects: int) -> dict[str, Any]:
    """What every model card says: the kind, what it fits, the network, the data and the training."""
    return {
        "kind": kind,
        "contrast": "T1w, skull-stripped, axial",
        "spacing_mm": [1.0, 1.0, 1.0],
        "normalisation": "99th percentile inside the brain at 0.95, background 0",
        "network": network.to_json(),
        "data": data_name,
        "subjects": subjects,
        "steps": step,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
    }


@dataclass
class TrainingState:
    """What a checkpoint holds.

    Attributes:
        network: the weights being trained.
        average: their running average: what is saved as the model.
        optimiser: AdamW with its moments.
        step: steps done.
    """

    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.AdamW
    step: int = 0

    @classmethod
    def start(cls, network: nn.Module, config: TrainingConfig) -> "TrainingState":
        optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        return cls(network, {name: value.detach().clone() for name, value in network.state_dict().items()}, optimiser)

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file is complete or the old one stays."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in slots.items()}
        partial = path.with_name(f".partial-{path.name}")
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial, {"step": str(self.step)})
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            InputError: the checkpoint is damaged or of another network.
        """
        try:
            with safe_open(path, framework="pt") as file:
                self.step = int(file.metadata()["step"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read; expected the checkpoint of a training; choose another folder") from error
        try:
            self.network.load_state_dict({n.removeprefix("network."): v for n, v in tensors.items() if n.startswith("network.")})
        except RuntimeError as error:
            raise InputError(f"{path} is of another network; expected the one that is trained; choose another folder") from error
        self.average = {n.removeprefix("average."): v for n, v in tensors.items() if n.startswith("average.")}
        parameters = list(self.network.parameters())
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, slot = name.split(".")
                like = parameters[int(index)]
                # The fused AdamW walks through memory: moments must lie there in the order of their parameter (channels last).
                slots.setdefault(int(index), {})[slot] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state = self.optimiser.state_dict()
        self.optimiser.load_state_dict(state | {"state": slots})


def train(
    network: nn.Module,
    loss: Loss,
    out: Path,
    config: TrainingConfig,
    *,
    clipped: Sequence[nn.Module] = (),
    resume: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    on_checkpoint: Callable[[TrainingState], dict[str, float]] | None = None,
) -> TrainingState:
    """Minimise a loss.

    Every step's randomness comes from a generator seeded by (seed, step), so that a resumed training is the uninterrupted one,
    bit by bit (same machine, same number of threads).

    Args:
        network: trained in place.
        loss: draws a batch from the generator and returns the mean loss.
        out: folder of ``checkpoint.safetensors``, ``training.json`` and ``log.csv``.
        config: how to train.
        clipped: parts of the network whose gradients are clipped each by their own norm; without them the whole.
        resume: continue from the folder's checkpoint.
        on_step: called with the step and its loss.
        on_checkpoint: called at every checkpoint; its numbers are logged.

    Raises:
        InputError: `resume` without a checkpoint, or a checkpoint there without `resume`.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.safetensors"
    state = TrainingState.start(network, config)
    if resume:
        if not checkpoint.exists():
            raise InputError(f"{out} has no checkpoint; expected the folder of an earlier training; leave --resume out to start one")
        state.restore(checkpoint)
    elif checkpoint.exists():
        raise InputError(f"{out} holds a training already; expected an empty folder; add --resume to continue it")
    (out / "training.json").write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")
    started = time.monotonic()
    recent: list[float] = []
    while state.step < config.steps and time.monotonic() - started < 60 * config.max_minutes:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        for group in state.optimiser.param_groups:
            group["lr"] = config.rate(state.step)
        network.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
            value = loss(network, generator)
        value.backward()  # type: ignore[no-untyped-call]
        for part in clipped or (network,):
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        state.optimiser.step()
        state.optimiser.zero_grad(set_to_none=True)
        state.step += 1
        decay = config.average_decay(state.step)
        with torch.no_grad():
            for name, new in network.state_dict().items():
                state.average[name].lerp_(new, 1 - decay)
        recent.append(value.item())
        if on_step is not None:
            on_step(state.step, recent[-1])
        if state.step % config.checkpoint_every == 0:
            _checkpoint(state, out, recent, on_checkpoint)
            recent = []
    if recent:
        _checkpoint(state, out, recent, on_checkpoint)
    return state


def _checkpoint(
    state: TrainingState, out: Path, recent: list[float], on_checkpoint: Callable[[TrainingState], dict[str, float]] | None
) -> None:
    state.save(out / "checkpoint.safetensors")
    row = {"step": float(state.step), "loss": sum(recent) / len(recent)} | (on_checkpoint(state) if on_checkpoint else {})
    log = out / "log.csv"
    fresh = not log.exists()
    with log.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if fresh:
            writer.writeheader()
        writer.writerow({name: f"{number:.6g}" for name, number in row.items()})
