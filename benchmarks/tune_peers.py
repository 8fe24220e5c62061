"""Tune every peer on training subjects, each on a log grid of its own constant, and write the settings that the benchmark uses.

    python benchmarks/tune_peers.py SCAN... [--out benchmarks]

First the constant is chosen with a warm start at one level from the conditional image (the start that DynamicDPS gets), then the
start: that one or the algorithm's own. What counts is the mean PSNR over conditions and scans. Writes peer_tuning.csv (every run) and
peer_settings.json (the choice); finished runs are kept, so it can be stopped and started again.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch

from dynamicdps.conditional import load_unet
from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation.fidelity import psnr, ssim
from dynamicdps.operators import ScanOperator, preset
from dynamicdps.priors import load_prior
from dynamicdps.solvers import make_config, solve_tensors
from dynamicdps.solvers.calibrate import spread_slabs

WARM = 0.25
CONDITIONS = ("iqt-out", "blur-mismatch")
# As many network passes as DynamicDPS has (8 samples of 5 levels); backward passes come on top.
FIXED: dict[str, dict[str, Any]] = {
    "dps": {"steps": 40},
    "dps+": {"steps": 40},
    "mcg": {"steps": 40},
    "projection": {"steps": 40},
    "ccdf": {"steps": 40},
    "pigdm": {"steps": 40, "spread": "error"},
    "ddnm": {"steps": 40},
    "ddrm": {"steps": 40},
    "diffpir": {"steps": 40},
    "dds": {"steps": 40},
    "red-diff": {"steps": 40},
    "daps": {"steps": 10, "ode_steps": 4},
    "tv": {},
}
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "dps": ("step", (1.0, 3.0, 10.0, 30.0)),
    "dps+": ("step", (1.0, 3.0, 10.0, 30.0)),
    "mcg": ("step", (0.3, 1.0, 3.0, 10.0, 30.0)),
    "projection": ("weight", (0.03, 0.1, 0.3, 1.0)),
    "ccdf": ("weight", (0.03, 0.1, 0.3, 1.0)),
    "pigdm": ("noise_scale", (1.0, 3.0, 10.0, 30.0)),
    "ddnm": ("noise_scale", (3.0, 10.0, 30.0, 100.0, 300.0)),
    "ddrm": ("noise_scale", (1.0, 3.0, 10.0, 30.0)),
    "diffpir": ("weight", (0.1, 1.0, 10.0, 100.0)),
    "dds": ("weight", (10.0, 100.0, 1000.0, 10000.0, 100000.0)),
    "red-diff": ("weight", (0.003, 0.01, 0.03, 0.1, 0.3)),
    "daps": ("noise_scale", (1.0, 3.0, 10.0, 30.0)),
    "tv": ("weight", (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)),
}
FIELDS = ["solver", "condition", "settings", "psnr", "ssim", "nfe", "nbackward"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--prior", default="brain")
    parser.add_argument("--solvers", default=",".join(GRIDS))
    arguments = parser.parse_args()
    truth = spread_slabs(arguments.scans, 1)[:, :, 0]
    denoiser = load_prior(arguments.prior, "cpu", torch.bfloat16)
    problems = [measure(truth, name) for name in CONDITIONS]
    log = arguments.out / "peer_tuning.csv"
    done = read(log)
    chosen: dict[str, dict[str, Any]] = {}
    for solver in arguments.solvers.split(","):
        name, grid = GRIDS[solver]
        warm = {} if solver == "tv" else {"start_sigma": WARM}
        candidates = [FIXED[solver] | warm | {name: value} for value in grid]
        scores = [score(solver, settings, truth, problems, denoiser, log, done) for settings in candidates]
        best = max(range(len(grid)), key=lambda k: scores[k])
        chosen[solver] = candidates[best]
        if warm:
            cold = FIXED[solver] | {name: grid[best]} | ({"start_sigma": 1.0} if solver == "ccdf" else {})
            if score(solver, cold, truth, problems, denoiser, log, done) > scores[best]:
                chosen[solver] = cold
        print(solver, chosen[solver], flush=True)
    target = arguments.out / "peer_settings.json"
    old = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps(old | chosen, indent=2) + "\n")
    print(table(done, chosen))


def table(done: dict[tuple[str, str, str], float], chosen: dict[str, dict[str, Any]]) -> str:
    """Grid and choice of each solver in Markdown: mean PSNR over the conditions at each value, and with the other start."""
    lines = ["| solver | fixed | constant | grid: mean PSNR dB | own start | chosen |", "|---|---|---|---|---|---|"]
    for solver, choice in chosen.items():
        name, grid = GRIDS[solver]
        fixed = ", ".join(f"{key} {value}" for key, value in FIXED[solver].items())

        def mean(settings: dict[str, Any], solver: str = solver) -> float:
            return sum(done[solver, condition, json.dumps(settings)] for condition in CONDITIONS) / len(CONDITIONS)

        warm = {} if solver == "tv" else {"start_sigma": WARM}
        scores = {value: mean(FIXED[solver] | warm | {name: value}) for value in grid}
        cold = FIXED[solver] | {name: max(scores, key=lambda v: scores[v])} | ({"start_sigma": 1.0} if solver == "ccdf" else {})
        own = f"{mean(cold):.2f}" if warm else ""
        shown = ", ".join(f"{value:g}: {score:.2f}" for value, score in scores.items())
        start = choice.get("start_sigma")
        where = f", start {start:g}" if start else ""
        lines.append(f"| {solver} | {fixed} | {name} | {shown} | {own} | {choice[name]:g}{where} |")
    return "\n".join(lines)


def measure(truth: torch.Tensor, name: str) -> tuple[str, ScanOperator, torch.Tensor, torch.Tensor]:
    """A degradation of all slices, with the conditional model's images."""
    scanner = preset(name)
    generators = [torch.Generator().manual_seed(i) for i in range(len(truth))]
    y = scanner.noise.draw(scanner.operator(truth), generators)
    return name, scanner, y, load_unet("unet-iqt-in").enhance(y, scanner.operator, truth.shape)


def read(log: Path) -> dict[tuple[str, str, str], float]:
    if not log.exists():
        return {}
    with log.open(newline="") as file:
        return {(row["solver"], row["condition"], row["settings"]): float(row["psnr"]) for row in csv.DictReader(file)}


def score(
    solver: str,
    settings: dict[str, Any],
    truth: torch.Tensor,
    problems: list[tuple[str, ScanOperator, torch.Tensor, torch.Tensor]],
    denoiser: Any,
    log: Path,
    done: dict[tuple[str, str, str], float],
) -> float:
    """Mean PSNR over the conditions, measured or remembered."""
    total = 0.0
    for condition, scanner, y, initial in problems:
        key = solver, condition, json.dumps(settings)
        if key not in done:
            generator = torch.Generator().manual_seed(0)
            found = solve_tensors(
                solver,
                [DataTerm(y, scanner.operator, scanner.noise)],
                denoiser,
                initial,
                generator=generator,
                config=make_config(solver, settings),
            )
            image = found.image.nan_to_num(0.0)
            done[key] = float(psnr(image, truth).mean())
            row = [*key, f"{done[key]:.3f}", f"{float(ssim(image, truth).mean()):.4f}"]
            row += [str(int(found.nfe.max())), str(int(found.nbackward.max()))]
            fresh = not log.exists()
            with log.open("a", newline="") as file:
                writer = csv.writer(file)
                if fresh:
                    writer.writerow(FIELDS)
                writer.writerow(row)
            print(*row, flush=True)
        total += done[key] / len(problems)
    return total


if __name__ == "__main__":
    main()
