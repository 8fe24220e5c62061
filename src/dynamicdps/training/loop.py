"""One training loop for every network of the package: several processes, checkpoints, exact resume, averaged weights, a log."""

import csv
import hashlib
import json
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dynamicdps.atomic_file import atomic_write
from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import read_json, write_json
from dynamicdps.models.model_file import real_numbers
from dynamicdps.training.muon import Muon
from dynamicdps.training.processes import Processes

Batch = tuple[Tensor, ...]
# What a resumed training may change: its planned end, and what its steps do not depend on.
FREE_SETTINGS = ("steps", "max_minutes", "cooldown", "checkpoint_every", "accumulate")
OPTIMISERS = ("adamw", "muon")
# What AdamW remembers of a parameter, and Muon of a matrix.
SLOTS, MATRIX_SLOTS = ("step", "exp_avg", "exp_avg_sq"), ("momentum",)


class Objective(Protocol):
    """What is minimised: a loss that is a mean over the images of a batch, so that the batch can be shared out."""

    def draw(self, generator: torch.Generator) -> Batch:
        """A batch, all of its randomness from the generator: tensors of one length, one entry an image, on the CPU."""
        ...

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, or of a part of one, on the device that it is on."""
        ...


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
        batches: drawn for each step, whose loss is their mean.
        accumulate: parts of a process's share of a batch that pass the network one after another: the same step in less memory.
        optimiser: ``"adamw"`` or ``"muon"``, see `dynamicdps.training.muon`.

    Raises:
        ValueError: the optimiser is unknown.
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
    batches: int = 1
    accumulate: int = 1
    optimiser: str = "adamw"

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"the optimiser is {self.optimiser!r}; expected one of {', '.join(OPTIMISERS)}")

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


def training_card(
    kind: str, network: Describable, config: TrainingConfig, step: int, data_name: str, subjects: int, suffix: str = "T1w"
) -> dict[str, Any]:
    """What every model card says: the kind, what it fits, the network, the data and the training."""
    return {
        "kind": kind,
        "contrast": f"{suffix}, skull-stripped, axial",
        "spacing_mm": [1.0, 1.0, 1.0],
        "normalisation": "99th percentile inside the brain at 0.95, background 0",
        "network": network.to_json(),
        "data": data_name,
        "subjects": subjects,
        "steps": step,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "batches": config.batches,
    }


@dataclass
class TrainingState:
    """What a checkpoint holds.

    Attributes:
        network: the weights being trained.
        average: their running average: what is saved as the model.
        optimiser: AdamW or Muon with its moments.
        step: steps done.
    """

    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def start(cls, network: nn.Module, config: TrainingConfig) -> "TrainingState":
        optimiser: torch.optim.Optimizer
        if config.optimiser == "muon":
            optimiser = Muon(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        else:
            optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        return cls(network, {name: value.detach().clone() for name, value in network.state_dict().items()}, optimiser)

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file is complete or the old one stays."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in slots.items()}
        with atomic_write(path) as partial:
            save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial, {"step": str(self.step)})

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            InputError: the checkpoint is damaged or of another network.
        """
        try:
            with safe_open(path, framework="pt") as file:
                step = (file.metadata() or {}).get("step", "")
                if not step.isdecimal():
                    raise ValueError(f"its step is {step[:40]!r}")
                self.step = int(step)
                tensors = real_numbers({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dictionary)
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read ({reason_of(error)}); expected the checkpoint of a training; choose another folder"
            ) from error
        try:
            self.network.load_state_dict({n.removeprefix("network."): v for n, v in tensors.items() if n.startswith("network.")})
        except RuntimeError as error:
            raise InputError(f"{path} is of another network; expected the one that is trained; choose another folder") from error
        device = next(self.network.parameters()).device
        self.average = {n.removeprefix("average."): v.to(device) for n, v in tensors.items() if n.startswith("average.")}
        try:
            if _kinds(self.average) != _kinds(self.network.state_dict()):
                raise ValueError("its average does not fit its network")
            slots = self._slots(tensors)
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); expected the checkpoint of a training; choose another folder") from error
        state = self.optimiser.state_dict()
        self.optimiser.load_state_dict(state | {"state": slots})

    def _slots(self, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """The optimiser's moments of each parameter that a checkpoint holds some for.

        Raises:
            ValueError: they are not those of the network's parameters.
        """
        parameters = {str(index): parameter for index, parameter in enumerate(self.network.parameters())}
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, slot = name.split(".") if name.count(".") == 2 else ("", "", "")
                like = parameters.get(index)
                if like is None or slot not in self._slots_of(like) or value.shape != (() if slot == "step" else like.shape):
                    raise ValueError(f"{name[:40]!r} fits no parameter")
                # The fused AdamW walks through memory: moments must lie there in the order of their parameter (channels last).
                slots.setdefault(int(index), {})[slot] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        for number, found in slots.items():
            if len(found) < len(self._slots_of(parameters[str(number)])):
                raise ValueError(f"the optimiser holds only {', '.join(found)} of parameter {number}")
        return slots

    def _slots_of(self, parameter: Tensor) -> tuple[str, ...]:
        return MATRIX_SLOTS if isinstance(self.optimiser, Muon) and parameter.ndim > 1 else SLOTS


def train(
    network: nn.Module,
    objective: Objective,
    out: Path,
    config: TrainingConfig,
    *,
    clipped: Sequence[nn.Module] = (),
    resume: bool = False,
    processes: Processes = Processes(),
    on_step: Callable[[int, float], None] | None = None,
    on_checkpoint: Callable[[TrainingState], dict[str, float]] | None = None,
) -> TrainingState:
    """Minimise a loss.

    Every step's randomness comes from generators seeded by (seed, step), so that a resumed training is the uninterrupted one,
    bit by bit (same machine, same number of threads and processes), and that every number of processes takes the same steps, but for the
    order in which gradients are added.

    Args:
        network: trained in place, on the device of `processes`.
        objective: draws batches and says their loss.
        out: folder of ``checkpoint.safetensors``, ``training.json`` and ``log.csv``; several machines must see the same.
        config: how to train.
        clipped: parts of the network whose gradients are clipped each by their own norm; without them the whole.
        resume: continue from the folder's checkpoint, whatever number of processes wrote it; of the settings only `FREE_SETTINGS` may
            differ from those in ``training.json``.
        processes: that train together; the first alone writes and calls `on_checkpoint`.
        on_step: called with the step and its loss.
        on_checkpoint: called at every checkpoint; its numbers are logged.

    Raises:
        InputError: `resume` without a checkpoint or with other settings, or a checkpoint there without `resume`; or the loss or a
            gradient is not finite: in all processes alike, before the step is taken, so that the last checkpoint stays.
    """
    checkpoint = out / "checkpoint.safetensors"
    network.to(processes.device)
    state = TrainingState.start(network, config)
    if resume:
        if not checkpoint.exists():
            raise InputError(f"{out} has no checkpoint; expected the folder of an earlier training; leave --resume out to start one")
        _check_settings(out / "training.json", config)
        state.restore(checkpoint)
    elif checkpoint.exists():
        raise InputError(f"{out} holds a training already; expected an empty folder; add --resume to continue it")
    if processes.first:
        out.mkdir(parents=True, exist_ok=True)
        # In one move: the others may be reading the one before.
        write_json(out / "training.json", asdict(config))
    processes.take_from_first([*network.state_dict().values(), *state.average.values()])
    started = time.monotonic()
    recent: list[float] = []
    late = config.max_minutes <= 0
    with closing(_shares_of_steps(objective, config, processes, state.step)) as steps:
        while state.step < config.steps and not late:
            for group in state.optimiser.param_groups:
                group["lr"] = config.rate(state.step)
            network.train()
            value = torch.zeros((), device=processes.device)
            for share, weight in next(steps):
                batch = tuple(tensor.to(processes.device) for tensor in share)
                with torch.autocast(processes.device.type, dtype=torch.bfloat16, enabled=config.bfloat16):
                    part = objective(network, batch) * weight
                part.backward()  # type: ignore[no-untyped-call]
                value += part.detach()
            # The clock of the first counts: all must stop at the same step.
            over = torch.full_like(value, float(processes.first and time.monotonic() - started >= 60 * config.max_minutes))
            processes.add_up([value, over, *(p.grad for p in network.parameters() if p.grad is not None)])
            norms = [nn.utils.clip_grad_norm_(each.parameters(), 1.0).to(value) for each in clipped or (network,)]
            # Read together: each reading waits for the device. Sums over all processes, so that all leave here or none.
            loss, late, *lengths = torch.stack([value, over, *norms]).tolist()
            if not all(map(math.isfinite, (loss, *lengths))):
                raise InputError(
                    f"step {state.step + 1} has a loss of {loss:g} and a gradient of length {' and '.join(f'{x:g}' for x in lengths)}; "
                    "expected finite numbers; check the scans, or start anew in another folder with a lower --learning-rate or "
                    f"--no-bfloat16 ({out} keeps its last checkpoint and model)"
                )
            state.optimiser.step()
            state.optimiser.zero_grad(set_to_none=True)
            state.step += 1
            decay = config.average_decay(state.step)
            with torch.no_grad():
                new = network.state_dict()
                torch._foreach_lerp_([state.average[name] for name in new], list(new.values()), 1 - decay)
            recent.append(loss)
            if on_step is not None:
                on_step(state.step, recent[-1])
            if state.step % config.checkpoint_every == 0 or state.step >= config.steps or late:
                if processes.first:
                    _checkpoint(state, out, recent, on_checkpoint)
                recent = []
    return state


def _check_settings(path: Path, config: TrainingConfig) -> None:
    """See that a resumed training goes on as it began; a setting that the file lacks is free, and so are all without a file.

    Args:
        path: ``training.json``.
        config: of the resumed training.

    Raises:
        InputError: the file is damaged, or a setting other than `FREE_SETTINGS` has changed.
    """
    try:
        before = read_json(path) if path.exists() else {}
        if not isinstance(before, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({reason_of(error)}); expected the settings of a training; copy it again or remove it"
        ) from error
    changes = [
        f"{name} {json.dumps(before[name])[:40]}, now {json.dumps(value)}"
        for name, value in asdict(config).items()
        if name not in FREE_SETTINGS and name in before and before[name] != value
    ]
    if changes:
        raise InputError(
            f"the training in {path.parent} began with {'; '.join(changes)}; expected the same, since a resumed training is the "
            f"uninterrupted one but for {', '.join(FREE_SETTINGS)}; give the old settings, or start anew in another folder"
        )


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _shares_of_steps(
    objective: Objective, config: TrainingConfig, processes: Processes, step: int
) -> Generator[list[tuple[Batch, float]], None, None]:
    """What this process computes in each step from `step` on; the next step's is drawn while this one's is computed."""
    # Its first draw would else have another number of threads than the later ones, and a resumed training add in another order.
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
        ahead = pool.submit(shares_of, objective, config, processes, step)
        while True:
            shares = ahead.result()
            step += 1
            ahead = pool.submit(shares_of, objective, config, processes, step)
            yield shares


def shares_of(objective: Objective, config: TrainingConfig, processes: Processes, step: int) -> list[tuple[Batch, float]]:
    """Images of this process in a step, in the parts that pass the network, each with its weight in the step's mean loss.

    Where the batches can be dealt out whole, they are; else every process draws all of them and takes its images of each.
    """
    rank, count = processes.rank, processes.count
    whole = config.batches % count == 0
    shares = []
    for index in range(config.batches):
        if whole and index % count != rank:
            continue
        batch = objective.draw(_generator(config.seed, step, index))
        size = len(batch[0])
        start, stop = (0, size) if whole else (size * rank // count, size * (rank + 1) // count)
        if start == stop:
            # Fewer images than processes: one without weight gives gradients of 0 to every tensor that the others have some for.
            shares.append((tuple(tensor[:1] for tensor in batch), 0.0))
            continue
        parts = min(config.accumulate, stop - start)
        edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
        for first, last in pairwise(edges):
            shares.append((tuple(tensor[first:last] for tensor in batch), (last - first) / size / config.batches))
    return shares


def _generator(seed: int, step: int, index: int) -> torch.Generator:
    """Randomness of a step's batch; torch takes 32 bits of a seed."""
    number = seed * 1_000_003 + step
    if index:
        number = int.from_bytes(hashlib.sha256(f"{number}/{index}".encode()).digest()[:4], "big")
    return torch.Generator().manual_seed(number)


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
