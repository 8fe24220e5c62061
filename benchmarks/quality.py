"""The demo's result against golden numbers, and how they are made anew.

    python benchmarks/quality.py            compare; exit code 1 where a number has left its tolerance
    python benchmarks/quality.py --write    make benchmarks/results/quality.json anew

Both enhance the bundled slab, whole with two samples and four slices of it with one sample, in float32 and bfloat16, with one and two
threads: some minutes on two cores. `tests/test_quality.py` repeats the four slices in float32 in the usual tests.

Write the numbers anew when a change of the solver, the operators or the models is meant to change results, and say in the
changelog which numbers moved and why; never to make a test pass that nobody expected to fail. The numbers are those of float32
and one thread; TOLERANCES leave room for the rest: rounding differs between precisions, numbers of threads, processors and versions of
torch, and a search may then stop one step sooner. ``--write`` keeps the largest difference that it measured beside and refuses where
one comes to more than half of its tolerance.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dynamicdps.conditional import load_unet
from dynamicdps.evaluation import evaluate_volume, segment
from dynamicdps.json_file import write_json
from dynamicdps.models import demo_scan
from dynamicdps.operators import preset, simulate
from dynamicdps.pipeline.demonstration import CONDITIONAL, DEGRADATION, PRIOR
from dynamicdps.priors import load_prior
from dynamicdps.solvers import DynamicDPSConfig, solve
from dynamicdps.solvers.initial import initial_from_model
from dynamicdps.volumes import IntensityScale, Volume, brain_mask, load
from dynamicdps.volumes.crop import crop

GOLDEN = Path(__file__).parent / "results" / "quality.json"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
THREADS = (1, 2)
# dB, one, one, standard deviations of the noise, share of the tissue's volume, image intensities, passes.
TOLERANCES = {"psnr": 0.02, "ssim": 0.0015, "nrmse": 0.0005, "data_misfit": 0.015, "volume_error": 0.005, "start_sigma": 0.002, "nfe": 0.0}


@dataclass(frozen=True)
class Case:
    """How much of the slab is enhanced: ``slices`` from ``first``, with so many samples."""

    first: int
    slices: int
    samples: int


CASES = {"four slices": Case(14, 4, 1), "slab": Case(0, 32, 2)}


def measure(case: Case, precision: str = "float32") -> dict[str, float]:
    """Numbers of the conditional model's image ("conditional psnr") and of DynamicDPS's, as `dynamicdps demo` measures them."""
    whole = load(demo_scan())
    truth: Volume = crop(whole, (slice(None), slice(None), slice(case.first, case.first + case.slices)))
    measurement, operator = simulate(truth, preset(DEGRADATION), seed=0)
    initial = initial_from_model(measurement, operator, load_unet(CONDITIONAL), CONDITIONAL).volume
    prior = load_prior(PRIOR, "cpu", PRECISIONS[precision])
    result = solve("dynamicdps", measurement, operator, prior, initial=initial, seed=0, config=DynamicDPSConfig(samples=case.samples))
    scale, labels = IntensityScale.robust(truth.data), segment(truth.data, brain_mask(truth))
    numbers: dict[str, float] = {"dynamicdps nfe": result.nfe, "dynamicdps start_sigma": result.start_sigma}
    for stage, volume in (("conditional", result.initial), ("dynamicdps", result.volume)):
        values = evaluate_volume(volume, truth, scale, measurement, operator, truth_labels=labels).to_json()
        numbers |= {f"{stage} {name}": values[name] for name in ("psnr", "ssim", "nrmse", "data_misfit")}
        numbers |= {f"{stage} volume_error {tissue}": error for tissue, error in values["volume_error"].items()}
    return numbers


def tolerance(name: str) -> float:
    """Of a number by its name: "dynamicdps psnr", "dynamicdps volume_error csf"."""
    return TOLERANCES[name.split()[1]]


def departures(numbers: dict[str, float], golden: dict[str, float], share: float = 1.0) -> list[str]:
    """One line for every number that is further from its golden one than a share of its tolerance."""
    if missing := sorted(golden.keys() ^ numbers.keys()):
        return [f"{name} is on one side alone" for name in missing]
    found = []
    for name, value in numbers.items():
        allowed = share * tolerance(name)
        if not abs(value - golden[name]) <= allowed:
            found.append(f"{name} is {value:.5g}; golden is {golden[name]:.5g} within {allowed:.3g}")
    return found


def golden_numbers() -> dict[str, dict[str, dict[str, float]]]:
    """By case: ``"values"`` and ``"apart"``, the largest difference between the settings."""
    numbers: dict[str, dict[str, dict[str, float]]] = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make the golden numbers anew")
    arguments = parser.parse_args()
    golden = {} if arguments.write else golden_numbers()
    cases: dict[str, dict[str, dict[str, float]]] = {}
    faults: list[str] = []
    for name, case in CASES.items():
        values: dict[str, float] = golden[name]["values"] if golden else {}
        apart: dict[str, float] = {}
        for precision in PRECISIONS:
            for threads in THREADS:
                torch.set_num_threads(threads)
                numbers = measure(case, precision)
                values = values or numbers
                apart = {key: max(apart.get(key, 0.0), abs(value - values[key])) for key, value in numbers.items()}
                found = departures(numbers, values, share=0.5 if arguments.write else 1.0)
                print(f"{name}, {precision}, {threads} threads: {'as it was' if not found else '; '.join(found)}", flush=True)
                faults += found
        cases[name] = {"values": rounded(values), "apart": rounded(apart)}
    if faults:
        print(
            "A number left its tolerance; see above. If results are meant to change, make them anew: python benchmarks/quality.py --write"
        )
        return 1
    if arguments.write:
        settings = {"precisions": list(PRECISIONS), "threads": list(THREADS), "torch": torch.__version__}
        about = {"cases": {name: asdict(case) for name, case in CASES.items()}, "tolerances": TOLERANCES, **settings}
        write_json(GOLDEN, {"about": about, "cases": cases})
    return 0


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main())
