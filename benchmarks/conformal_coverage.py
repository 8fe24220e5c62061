"""Do the expected-error maps hold on subjects that they were not calibrated on?

Every subject is left out once: the map is calibrated on all others and its coverage measured on the one. Printed are the mean over
subjects of the share of brain voxels whose error is inside the stated interval, with a bootstrap interval, for the rule with its full
guarantee and for the one whose loss is capped at 0.3 of a subject's voxels.

    python benchmarks/conformal_coverage.py SCAN... --out DIR

writes coverage.csv (a row a subject and condition). Skull-stripped T1w scans at 1 mm that no model has seen; about 10 s a scan and
condition on one core with bfloat16.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation import ConformalErrorMap, bootstrap_interval, covered_share, error_heuristic
from dynamicdps.evaluation.benchmark import find_condition
from dynamicdps.evaluation.benchmark.cut import Subject, chosen_slices
from dynamicdps.operators import PRESETS
from dynamicdps.priors import load_prior
from dynamicdps.solvers import solve_tensors

RULES = {"guaranteed": 1.0, "capped": 0.3}
CONDITIONS = ("unet/iqt-out", "unet/blur-mismatch", "unet/iqt-in")
COVERAGE = 0.9

Voxels = NDArray[np.float64]


def reconstruct(subject: Subject, condition: str, denoiser: torch.nn.Module, slices: int) -> tuple[Voxels, Voxels]:
    """Errors and heuristics in the brain's voxels."""
    chosen = find_condition(condition, PRESETS)
    cut = subject.cut(chosen_slices(len(subject.slices), slices))
    y = cut.measure(chosen.scanner)
    truth = cut.as_operand(cut.truth, chosen.scanner.operator)
    initial = chosen.model.enhance(y, chosen.scanner.operator, truth.shape)
    generator = torch.Generator().manual_seed(subject.seed)
    found = solve_tensors(
        "dynamicdps", [DataTerm(y, chosen.scanner.operator, chosen.scanner.noise)], denoiser, initial, generator=generator
    )
    assert found.uncertainty is not None
    inside = cut.mask.numpy()
    error = cut.as_slices(found.image - truth).numpy()[inside].astype(np.float64)
    return error, error_heuristic(cut.as_slices(found.uncertainty).numpy()[inside])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--slices", type=int, default=4)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    denoiser = load_prior("brain", "cpu", torch.bfloat16)
    rows = []
    for condition in CONDITIONS:
        names, found = [], []
        for path in arguments.scans:
            subject = Subject.read(path, 0)
            names.append(subject.name)
            found.append(reconstruct(subject, condition, denoiser, arguments.slices))
        for rule, most_lost in RULES.items():
            for i, name in enumerate(names):
                errors, heuristics = zip(*(pair for k, pair in enumerate(found) if k != i), strict=True)
                calibrated = ConformalErrorMap.fit(errors, heuristics, COVERAGE, most_lost)
                share = covered_share(found[i][0], calibrated.apply(found[i][1]))
                width = float(np.mean(calibrated.apply(found[i][1])))
                rows.append([condition, rule, name, f"{share:.6g}", f"{calibrated.factor:.6g}", f"{width:.6g}"])
            shares = np.array([float(row[3]) for row in rows if row[:2] == [condition, rule]])
            found_mean = bootstrap_interval(shares, np.random.default_rng(0))
            interval = f"{found_mean.low:.1%} to {found_mean.high:.1%}"
            print(f"| {condition} | {rule} | {len(shares)} | {found_mean.mean:.1%} | {interval} | {shares.min():.0%} |", flush=True)
    with (arguments.out / "coverage.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["condition", "rule", "subject", "covered", "factor", "mean_half_width"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
