"""One run on a GPU: which network is worth its time, and a long training of one. See README.md beside this file.

python benchmarks/gpu/run.py frontier --scans build/gpu/scans.npz --out OUT --steps 700
python benchmarks/gpu/run.py train --scans build/gpu/scans.npz --out OUT --minutes 8 --network slices_in=5,slices_out=3
python benchmarks/gpu/run.py speed --out OUT --network slices_in=5,slices_out=3
"""

import argparse
import io
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dynamicdps.models.model_file import read_model, write_model
from dynamicdps.networks.neighbour_unet import NeighbourConfig, NeighbourUNet
from dynamicdps.priors.prior import Domain, NeighbourPrior, Prior
from dynamicdps.training.loop import TrainingConfig, TrainingState, train
from dynamicdps.training.prior_training import WindowScoreMatching, denoising_errors, prior_card
from dynamicdps.training.processes import Processes
from dynamicdps.training.windows import SliceWindows, TrainingVolume

# Pieces of results that some machines give back are small.
PIECE = 15_000_000
CANDIDATES = (
    "slices_in=5,slices_out=3,channels=48-96-128,residual_blocks=1-1-1",
    "slices_in=5,slices_out=3,channels=64-128-192,residual_blocks=1-2-2",
    "slices_in=7,slices_out=5,channels=64-128-192-256,residual_blocks=1-1-1-1",
    "slices_in=7,slices_out=5,channels=48-96-128-192,residual_blocks=1-1-2-2",
    "slices_in=5,slices_out=3,channels=48-96-128-192,residual_blocks=1-1-2-2",
    "slices_in=5,slices_out=3,channels=48-96-128,residual_blocks=1-1-1,lr=2e-3",
    "slices_in=7,slices_out=5,channels=64-128-192,residual_blocks=1-2-2",
    "slices_in=9,slices_out=7,channels=64-128-192-256,residual_blocks=1-1-2-2",
    "slices_in=3,slices_out=1,channels=48-96-128,residual_blocks=1-1-1",
)


def network_config(text: str) -> NeighbourConfig:
    """``slices_in=5,channels=64-128-192``: numbers of a tuple with hyphens between them."""
    values: dict[str, Any] = {}
    for part in text.split(",") if text else []:
        name, _, value = part.partition("=")
        if name == "lr":
            continue
        values[name] = tuple(int(v) for v in value.split("-")) if name in ("channels", "residual_blocks") else int(value)
    if "channels" in values:
        values["attention"] = (False,) * len(values["channels"])
    return NeighbourConfig(**values)


def unpack(path: Path, limit: int = 10_000) -> tuple[list[TrainingVolume], list[Tensor]]:
    """Scans to learn from, and clean validation volumes."""
    training, validation = [], []
    with np.load(path) as file:
        cards = json.loads(file["cards"].tobytes())
        for card in [c for c in cards if not c["folder"].endswith("validation")][:limit] + [
            c for c in cards if c["folder"].endswith("validation")
        ]:
            data = np.array(Image.open(io.BytesIO(file[card["key"]].tobytes()))).reshape(card["shape"])
            if card["folder"].endswith("validation"):
                validation.append(torch.from_numpy(data).float() * card["scale"])
            else:
                training.append(TrainingVolume(np.ascontiguousarray(data), card["scale"], card["contrast"]))
    return training, validation


def fit(
    config: NeighbourConfig,
    training: list[TrainingVolume],
    validation: list[Tensor],
    out: Path,
    settings: TrainingConfig,
    *,
    device: str,
    count: int,
    minutes: float,
    compiled: bool,
    weights: Path | None = None,
    cooldown: float = 0.3,
    checkpoint_every: int = 10**9,
    size: tuple[int, int] = (176, 144),
) -> dict[str, Any]:
    """Train for some minutes, the last share of them with a falling learning rate; write the model after it."""
    torch.manual_seed(settings.seed)
    network = NeighbourUNet(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if weights is not None:
        read_model(weights, "prior").load_into(network)
    network.to(device)
    windows = SliceWindows(training, config.slices_in, size, count).to(device)
    mean, std = windows.statistics()
    objective = WindowScoreMatching(windows, mean, std, config.slices_out)
    if compiled:
        network.compile()
    began = time.monotonic()
    losses: list[float] = []

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 200 == 0:
            print(f"{step} steps, {time.monotonic() - began:.0f} s, loss {np.mean(losses[-200:]):.4f}", flush=True)

    def on_checkpoint(state: TrainingState) -> dict[str, float]:
        average = NeighbourUNet(config)
        average.load_state_dict(state.average)
        prior = NeighbourPrior(average.to(device).eval().requires_grad_(False), mean, std, Domain(suffix="T1w"))
        errors = denoising_errors(prior, validation, inner=1)
        single = [slice_[None] for volume in validation[:3] for slice_ in volume]
        alone = denoising_errors(prior, single, (0.12,))[0.12]
        print(f"{state.step} steps, errors { ({k: round(v, 5) for k, v in errors.items()}) }; alone at 0.12 {alone:.5f}", flush=True)
        card = {"kind": "prior", "network": config.to_json(), "steps": state.step, "windows_a_step": count}
        card |= {"learning_rate": settings.learning_rate, "optimiser": settings.optimiser} | prior_card(mean, std, errors)
        write_model(out / "prior.safetensors", state.average, card)
        return {f"rmse@{level:g}": error for level, error in errors.items()} | {"alone@0.12": alone}

    processes = Processes(device=torch.device(device))
    if math.isinf(minutes):
        state = train(network, objective, out, settings, processes=processes, on_step=on_step, on_checkpoint=on_checkpoint)
    else:
        began = time.monotonic()
        first = replace(settings, max_minutes=minutes * (1 - cooldown), checkpoint_every=checkpoint_every)
        state = train(network, objective, out, first, processes=processes, on_step=on_step, on_checkpoint=on_checkpoint)
        # As many steps as the rest of the time holds, by the pace of the first part after its first tenth.
        pace = state.step / (60 * minutes * (1 - cooldown))
        rest = max(1, int(pace * 60 * minutes * cooldown))
        last = replace(
            settings, steps=state.step + rest, cooldown=rest, max_minutes=minutes * cooldown * 1.15, checkpoint_every=checkpoint_every
        )
        state = train(network, objective, out, last, resume=True, processes=processes, on_step=on_step, on_checkpoint=on_checkpoint)
    seconds = time.monotonic() - began
    card = json.loads((out / "prior.json").read_text())
    return {"steps": state.step, "seconds": round(seconds, 1), "loss": float(np.mean(losses[-200:])), "errors": card["denoising_rmse"]}


def speed(config: NeighbourConfig, device: str, shape: tuple[int, int, int] = (150, 208, 176)) -> dict[str, float]:
    """Slices a second of a whole head, in float32 and bfloat16."""
    network = NeighbourUNet(config).to(device).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, sigma = torch.rand((1, 1, *shape), device=device), torch.full((1,), 0.1, device=device)
    found = {}
    for precision in (torch.float32, torch.bfloat16):
        prior: Prior = NeighbourPrior(network, 0.3, 0.3, Domain(suffix="T1w"), precision)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            with torch.inference_mode():
                prior(x, sigma).sum().item()
            times.append(time.perf_counter() - start)
        found[str(precision).removeprefix("torch.")] = shape[0] / min(times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("frontier", "train", "speed"))
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", default="", help="settings of the network, or for a frontier several with spaces between them")
    parser.add_argument("--steps", type=int, default=700, help="of each candidate of a frontier")
    parser.add_argument("--minutes", type=float, default=8.0, help="of a training, its validation not counted")
    parser.add_argument("--windows", type=int, default=32, help="of a batch")
    parser.add_argument("--size", type=int, nargs=2, default=(176, 144), help="height and width of a window")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--optimiser", default="adamw", help="several with commas between them are compared on the second candidate")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--limit", type=int, default=10_000, help="scans")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cooldown", type=float, default=0.3, help="share of a training with a falling learning rate")
    parser.add_argument("--checkpoint-every", type=int, default=10**9, help="steps between checkpoints")
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    work = out / "work"
    if arguments.what == "speed":
        print(json.dumps(speed(network_config(arguments.network), arguments.device)))
        return
    began = time.monotonic()
    training, validation = unpack(arguments.scans, arguments.limit)
    print(f"{len(training)} scans, {len(validation)} for validation; read in {time.monotonic() - began:.0f} s", flush=True)
    shared: dict[str, Any] = {
        "device": arguments.device,
        "count": arguments.windows,
        "compiled": arguments.compile,
        "size": tuple(arguments.size),
        "cooldown": arguments.cooldown,
        "checkpoint_every": arguments.checkpoint_every,
    }
    settings = TrainingConfig(learning_rate=arguments.learning_rate, warmup=200, decay_from=10**9, averaging=0.05, bfloat16=True)
    if arguments.what == "train":
        settings = replace(settings, optimiser=arguments.optimiser)
        found = fit(
            network_config(arguments.network),
            training,
            validation,
            work,
            settings,
            minutes=arguments.minutes,
            weights=arguments.weights,
            **shared,
        )
        print(json.dumps(found), flush=True)
        weights = (work / "prior.safetensors").read_bytes()
        for number in range(-(-len(weights) // PIECE)):
            (out / f"prior.safetensors.{number}").write_bytes(weights[number * PIECE : (number + 1) * PIECE])
        for name in ("prior.json", "log.csv", "training.json"):
            (out / name).write_bytes((work / name).read_bytes())
        return
    candidates = arguments.network.split() or list(CANDIDATES)
    optimisers = arguments.optimiser.split(",")
    rows = []
    for number, text in enumerate(candidates):
        for optimiser in optimisers if number == min(1, len(candidates) - 1) else optimisers[-1:]:
            short = replace(
                settings,
                steps=arguments.steps,
                cooldown=arguments.steps // 3,
                warmup=max(1, arguments.steps // 10),
                optimiser=optimiser,
                checkpoint_every=10**9,
            )
            if ",lr=" in text:
                short = replace(short, learning_rate=float(text.rpartition("=")[2]))
            folder = work / f"{number}-{optimiser}"
            row = {"network": text, "optimiser": optimiser}
            row |= fit(network_config(text), training, validation, folder, short, minutes=math.inf, **shared)
            rows.append(row)
            print(json.dumps(row), flush=True)
            (out / "frontier.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
