"""Which network a prior should be: denoising error against the time of a pass, after short trainings of equal cost.

    python benchmarks/prior_frontier.py SCAN [...] --held-out SCAN [...] --out DIR [--minutes 5] [--only-speed]

Every network of `NETWORKS` is trained on the same scans (skull-stripped, 1 mm, slabs or whole heads) for the same CPU time, by Muon with
the rate falling to 0 over the last third, one thread. Its error is the root mean square over inner slices of the held-out scans, as the
model card has it. A pass is timed over a volume of 30 slices of 176 x 144, the best of three, on one thread; `--only-speed` times all
networks without training, for example with `--float32` and ATEN_CPU_CAPABILITY=avx2, ONEDNN_MAX_CPU_ISA=AVX2 in the environment. What
is trained is kept and not trained again. Printed as a table; written as `frontier.csv`. Short trainings favour small networks: they order
networks of about one size, and do not tell where each ends.
"""

import argparse
import csv
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from dynamicdps.models.model_file import read_model
from dynamicdps.networks import NeighbourConfig, NeighbourUNet
from dynamicdps.networks.precision import has_bfloat16
from dynamicdps.priors import load_prior
from dynamicdps.priors.prior import Domain, NeighbourPrior
from dynamicdps.training.loop import TrainingConfig
from dynamicdps.training.prior_training import denoising_errors, train_prior, validation_volume

BUNDLED = NeighbourConfig()
NETWORKS = {
    "as bundled: 7 slices in, 5 out": BUNDLED,
    "3 in, 1 out": replace(BUNDLED, slices_in=3, slices_out=1),
    "3 in, 3 out": replace(BUNDLED, slices_in=3, slices_out=3),
    "5 in, 3 out": replace(BUNDLED, slices_in=5, slices_out=3),
    "11 in, 9 out": replace(BUNDLED, slices_in=11, slices_out=9),
    "half the channels": replace(BUNDLED, channels=(32, 64, 96)),
    "1.5 times the channels": replace(BUNDLED, channels=(96, 192, 288)),
    "one block a level": replace(BUNDLED, residual_blocks=(1, 1, 1)),
    "squares of 4 pixels": replace(BUNDLED, unshuffle=4, channels=(128, 192), residual_blocks=(2, 2), attention=(False, False)),
}
LEVELS = (0.06, 0.12, 0.25)
SETTINGS = TrainingConfig(optimiser="muon", learning_rate=1e-3, warmup=20, decay_from=1_000_000, averaging=0.05)
# Steps whose cost says how many a training may take, and those before them that do not count.
TIMED_STEPS, FIRST_STEPS = 6, 2
FALLING = 1 / 3
SLICES, HEIGHT, WIDTH = 30, 176, 144


def train_for(config: NeighbourConfig, seconds: float, files: Sequence[Path], held_out: Sequence[Path], out: Path) -> Path:
    """A prior trained for so many CPU seconds of its steps."""
    settings = replace(SETTINGS, bfloat16=has_bfloat16())
    ends: list[float] = []

    def note(step: int, loss: float) -> None:
        ends.append(time.process_time())

    trial = replace(settings, steps=FIRST_STEPS + TIMED_STEPS, checkpoint_every=1000)
    with TemporaryDirectory() as folder:
        train_prior(files, Path(folder), validation_files=held_out[:1], network_config=config, config=trial, on_step=note)
    steps = max(TIMED_STEPS, round(seconds / ((ends[-1] - ends[FIRST_STEPS - 1]) / TIMED_STEPS)))
    whole = replace(settings, steps=steps, cooldown=round(FALLING * steps), checkpoint_every=steps)
    return train_prior(files, out, validation_files=held_out[:1], network_config=config, config=whole)


def milliseconds_a_slice(config: NeighbourConfig, precision: torch.dtype) -> float:
    """CPU time of a pass over a volume, for each slice."""
    torch.manual_seed(0)
    network = NeighbourUNet(config).eval().requires_grad_(False)
    prior = NeighbourPrior(network, 0.3, 0.3, Domain(), precision)
    volume, level = torch.rand(1, 1, SLICES, HEIGHT, WIDTH), torch.full((1,), 0.12)
    times = []
    with torch.inference_mode():
        for _ in range(4):
            began = time.process_time()
            prior(volume, level)
            times.append(time.process_time() - began)
    return 1000 * min(times[1:]) / SLICES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--held-out", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only-speed", action="store_true")
    parser.add_argument("--float32", action="store_true", help="time in float32 where the processor has bfloat16 too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    volumes = [validation_volume(file) for file in arguments.held_out]
    precision = torch.bfloat16 if has_bfloat16() and not arguments.float32 else torch.float32
    rows: list[dict[str, str | float]] = []
    for name, config in NETWORKS.items():
        folder = arguments.out / name.replace(":", "").replace(",", "").replace(" ", "-")
        model = folder / "prior.safetensors"
        if not model.exists() and not arguments.only_speed:
            # What an interrupted run left.
            shutil.rmtree(folder, ignore_errors=True)
            train_for(config, 60 * arguments.minutes, arguments.scans, arguments.held_out, folder)
        row: dict[str, str | float] = {"network": name}
        row["weights (million)"] = round(sum(p.numel() for p in NeighbourUNet(config).parameters()) / 1e6, 2)
        row["ms a slice"] = round(milliseconds_a_slice(config, precision), 1)
        if model.exists():
            prior = load_prior(model, "cpu", precision)
            errors = denoising_errors(prior, volumes, LEVELS, inner=1)
            row["steps"] = int(read_model(model, "prior").card["steps"])
            row |= {f"error at {level:g}": round(error, 4) for level, error in errors.items()}
        rows.append(row)
        print(row, flush=True)
    header = list(rows[0])
    with (arguments.out / "frontier.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(row.get(key, "")) for key in header) + " |")


if __name__ == "__main__":
    main()
