"""What a reconstruction costs, as ratios measured in one run.

    python benchmarks/speed.py [SCAN] [--out DIR]

1. Overhead: seconds of DynamicDPS over those of as many bare denoiser calls on the same batches.
2. Seconds a slice, and peak memory for 16 to 256 slices.
3. The paper's algorithm as it is usually written: the gradient through the network at every step, Wolfe's line search at every
   fifth, one slice at a time in float32, against DynamicDPS with one sample and with eight, on the same slices and prior, with PSNR.
4. bfloat16 against float32: seconds and difference of the results.

Without a SCAN the bundled slab of Colin 27 is taken. Pairs are timed alternately, so that a noisy machine disturbs both; take the
ratios, not the seconds. Prints Markdown and writes speed.json. About fifteen minutes on one core.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynamicdps.conditional import load_conditional
from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation import psnr
from dynamicdps.models import demo_scan
from dynamicdps.operators import preset
from dynamicdps.priors import load_prior
from dynamicdps.solvers import DynamicDPSConfig, solve_tensors
from dynamicdps.volumes import IntensityScale, load, to_slices

CONDITION = "blur-mismatch"
SCANNER = preset(CONDITION)
ROUNDS = 3
TIMED = ((1, 1), (8, 1), (32, 1), (8, 8))  # slices, samples
HELD = (16, 64, 256)


def problem(scan: Path, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Truth, measurement and initial images of slices around the middle, repeated until there are enough."""
    volume = load(scan)
    slices = to_slices(IntensityScale.robust(volume.data).apply(volume).data)
    middle = slices[len(slices) // 2 - min(count, len(slices)) // 2 :][:count]
    truth = middle.repeat(-(-count // len(middle)), 1, 1, 1)[:count]
    operator = SCANNER.operator
    y = SCANNER.noise.draw(operator(truth), [torch.Generator().manual_seed(i) for i in range(count)])
    return truth, y, load_conditional("unet-iqt-in").enhance(y, operator, truth.shape)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def overhead(scan: Path, prior: Any, count: int, samples: int) -> dict[str, float]:
    """Solver against bare passes: the same batch, chunk, levels and number of passes."""
    truth, y, initial = problem(scan, count)
    operator, config = SCANNER.operator, DynamicDPSConfig(samples=samples)
    sigma = torch.full((count,), 0.1)

    def solver() -> Any:
        return solve_tensors(
            "dynamicdps", [DataTerm(y, operator, SCANNER.noise)], prior, initial, generator=torch.Generator().manual_seed(0), config=config
        )

    def bare() -> None:
        for _ in range(config.steps * samples):
            prior(truth, sigma, config.chunk)

    passes = int(solver().nfe.max())
    assert passes == config.steps * samples
    bare()
    pairs = [(timed(solver)[0], timed(bare)[0]) for _ in range(ROUNDS)]
    ratios = [a / b for a, b in pairs]
    return {
        "slices": count,
        "samples": samples,
        "overhead": statistics.median(ratios) - 1,
        "seconds_a_slice": min(a for a, _ in pairs) / count,
    }


def against_paper(scan: Path, count: int) -> list[dict[str, Any]]:
    truth, y, initial = problem(scan, count)
    operator = SCANNER.operator
    plain, fast = load_prior("brain"), load_prior("brain", "cpu", torch.bfloat16)

    def one_by_one() -> Tensor:
        parts = [
            solve_tensors(
                "dynamicdps-paper",
                [DataTerm(y[[i]], operator, SCANNER.noise)],
                plain,
                initial[[i]],
                generator=torch.Generator().manual_seed(i),
            ).image
            for i in range(count)
        ]
        return torch.cat(parts)

    def ours(samples: int, prior: Any) -> Callable[[], Tensor]:
        config = DynamicDPSConfig(samples=samples)
        return lambda: (
            solve_tensors(
                "dynamicdps",
                [DataTerm(y, operator, SCANNER.noise)],
                prior,
                initial,
                generator=torch.Generator().manual_seed(0),
                config=config,
            ).image
        )

    runs: dict[str, Callable[[], Tensor]] = {
        "the paper's, one slice at a time, float32": one_by_one,
        "one sample, bfloat16": ours(1, fast),
        "one sample, float32": ours(1, plain),
        "eight samples, bfloat16": ours(8, fast),
    }
    rows: list[dict[str, Any]] = []
    for name, work in runs.items():
        seconds, image = timed(work)
        rows.append({"name": name, "seconds_a_slice": seconds / count, "psnr": float(psnr(image, truth).mean())})
    for row in rows:
        row["times_faster"] = rows[0]["seconds_a_slice"] / row["seconds_a_slice"]
    return rows


def precision(scan: Path, count: int) -> dict[str, float]:
    truth, y, initial = problem(scan, count)
    operator, config = SCANNER.operator, DynamicDPSConfig(samples=2)
    seconds, images = [], []
    for kind in (torch.float32, torch.bfloat16):
        prior = load_prior("brain", "cpu", kind)
        spent, found = timed(
            lambda prior=prior: solve_tensors(  # type: ignore[misc]
                "dynamicdps",
                [DataTerm(y, operator, SCANNER.noise)],
                prior,
                initial,
                generator=torch.Generator().manual_seed(0),
                config=config,
            )
        )
        seconds.append(spent)
        images.append(found.image)
    return {
        "times_faster": seconds[0] / seconds[1],
        "rms_difference": float((images[1] - images[0]).square().mean().sqrt()),
        "psnr_float32": float(psnr(images[0], truth).mean()),
        "psnr_bfloat16": float(psnr(images[1], truth).mean()),
    }


def peak(scan: Path, count: int) -> float:
    """Peak memory in GB of a process of its own that solves so many slices, 16 at a time as `solve` does."""
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[3]); from pathlib import Path; import speed; "
        "print(speed.one_run(Path(sys.argv[1]), int(sys.argv[2])))"
    )
    done = subprocess.run(  # noqa: S603 - this file itself
        [sys.executable, "-c", code, str(scan), str(count), str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def one_run(scan: Path, count: int) -> float:
    torch.set_grad_enabled(False)
    _, y, initial = problem(scan, count)
    prior = load_prior("brain", "cpu", torch.bfloat16)
    for first in range(0, count, 16):
        part = slice(first, first + 16)
        generator = torch.Generator().manual_seed(0)
        config = DynamicDPSConfig(samples=1, steps=1)
        solve_tensors(
            "dynamicdps", [DataTerm(y[part], SCANNER.operator, SCANNER.noise)], prior, initial[part], generator=generator, config=config
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", type=Path, default=demo_scan())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--paper-slices", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    fast = load_prior("brain", "cpu", torch.bfloat16)
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    print("| slices | samples | overhead over bare passes | seconds a slice |\n|---|---|---|---|", flush=True)
    found["overhead"] = []
    for count, samples in TIMED:
        row = overhead(arguments.scan, fast, count, samples)
        found["overhead"].append(row)
        print(f"| {count} | {samples} | {row['overhead']:+.1%} | {row['seconds_a_slice']:.3f} |", flush=True)
    found["peak_gb"] = {count: peak(arguments.scan, count) for count in HELD}
    print("\npeak memory: " + ", ".join(f"{gb:.2f} GB for {count} slices" for count, gb in found["peak_gb"].items()), flush=True)
    print("\n| | seconds a slice | times faster | PSNR dB |\n|---|---|---|---|", flush=True)
    found["against_paper"] = against_paper(arguments.scan, arguments.paper_slices)
    for row in found["against_paper"]:
        print(f"| {row['name']} | {row['seconds_a_slice']:.2f} | {row['times_faster']:.1f} | {row['psnr']:.2f} |")
    found["bfloat16"] = precision(arguments.scan, 8)
    print("\nbfloat16: " + ", ".join(f"{name} {value:.3g}" for name, value in found["bfloat16"].items()))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "speed.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
