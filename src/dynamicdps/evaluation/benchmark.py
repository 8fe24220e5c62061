"""Solvers side by side on good scans under simulated degradations."""

import csv
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.conditional import ConditionalUNet
from dynamicdps.diffusion import Denoiser
from dynamicdps.diffusion.model_file import write_json
from dynamicdps.errors import InputError
from dynamicdps.evaluation.fidelity import nrmse, psnr, ssim
from dynamicdps.operators import LowField, add_noise
from dynamicdps.solvers import Reconstruction, make_config, solve_tensors
from dynamicdps.volumes import IntensityScale, load, to_slices

BOOTSTRAPS = 2000
SLAB = 10


@dataclass(frozen=True)
class Row:
    """One image under one condition and solver: a line of results.csv."""

    subject: str
    slice: int
    condition: str
    solver: str
    psnr: float
    ssim: float
    nrmse: float
    data_misfit: float
    nfe: int
    nbackward: int
    start_sigma: float
    seconds: float
    batch_size: int


@dataclass(frozen=True)
class Condition:
    """A conditional model on a degradation: ``MODEL/DEGRADATION``."""

    name: str
    model: ConditionalUNet
    operator: LowField


def subject_name(path: Path) -> str:
    """Subject of a file: its name up to the first underscore or dot."""
    return path.name.split("_")[0].split(".")[0]


def chosen_slices(count: int, wanted: int) -> list[int]:
    """Evenly spaced slice numbers, away from the ends."""
    wanted = min(wanted, count)
    return [count * (2 * i + 1) // (2 * wanted) for i in range(wanted)]


def middle_slices(count: int, wanted: int) -> list[int]:
    """Neighbouring slice numbers around the middle."""
    wanted = min(wanted, count)
    first = (count - wanted) // 2
    return list(range(first, first + wanted))


def variant(label: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[str, Any]:
    """Solver and configuration behind a label.

    Args:
        label: a solver's name, or any name whose settings say which solver they are for: ``{"one-sample": {"solver": "dynamicdps",
            "samples": 1}}``.
        settings: by label; see `dynamicdps.solvers.make_config`.

    Raises:
        InputError: there is no such solver or setting.
    """
    values = dict(settings.get(label, {}))
    name = str(values.pop("solver", label))
    return name, make_config(name, values)


def run_benchmark(
    scans: Sequence[Path],
    conditions: Sequence[Condition],
    solvers: Sequence[str],
    denoiser: Denoiser,
    *,
    slices_per_scan: int = 4,
    slab: int = SLAB,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    finished: Sequence[Row] = (),
    on_cell: Callable[[Sequence[Row]], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Degrade, reconstruct and measure.

    Each scan's slices are one batch; where a degradation couples slices they are one volume, a slab of neighbouring slices in the middle
    of the scan. Noise and samples depend on the seed and the subject's name only, so every solver sees the same measurements, whatever
    else is in the benchmark.

    Args:
        scans: skull-stripped scans that no model has seen.
        conditions: what to reconstruct from what.
        solvers: names of `dynamicdps.solvers.available`, or labels of variants that `settings` describes.
        denoiser: the prior.
        slices_per_scan: evenly spaced slices of each scan.
        slab: slices of a slab.
        settings: by solver or label, what differs from its defaults; see `variant`.
        seed: of noise and samples.
        finished: rows of an earlier run; what they hold is not done again.
        on_cell: called with the rows of each scan, condition and solver as soon as they are there.
        progress: called with reconstructions done and planned.

    Returns:
        All rows, finished ones first.
    """
    chosen = {label: variant(label, settings or {}) for label in solvers}
    rows = list(finished)
    there = {(row.subject, row.condition, row.solver) for row in finished}
    planned, done = len(scans) * len(conditions) * len(solvers), 0
    for path in scans:
        subject = subject_name(path)
        missing = [(c, [s for s in solvers if (subject, c.name, s) not in there]) for c in conditions]
        done += len(conditions) * len(solvers) - sum(len(names) for _, names in missing)
        if not any(names for _, names in missing):
            continue
        own_seed = seed + zlib.crc32(subject.encode())
        volume = load(path)
        slices = to_slices(IntensityScale.robust(volume.data).apply(volume).data)
        for condition, names in missing:
            if not names:
                continue
            operator = condition.operator
            numbers = middle_slices(len(slices), slab) if operator.couples_slices else chosen_slices(len(slices), slices_per_scan)
            truth = slices[numbers]
            if operator.couples_slices:
                truth = truth.movedim(0, 1)[None]
            generators = [torch.Generator().manual_seed(own_seed + i) for i in range(len(truth))]
            y = add_noise(operator(truth), operator.noise_std, generators, operator.noise)
            initial = condition.model.enhance(y, operator, truth.shape)
            for solver in names:
                began = time.monotonic()
                name, config = chosen[solver]
                found = solve_tensors(
                    name,
                    y,
                    operator,
                    denoiser,
                    initial,
                    generator=torch.Generator().manual_seed(own_seed),
                    config=config,
                )
                seconds = (time.monotonic() - began) / len(numbers)
                cell = _rows(found, truth, subject, numbers, condition.name, solver, seconds)
                rows += cell
                if on_cell is not None:
                    on_cell(cell)
                done += 1
                if progress is not None:
                    progress(done, planned)
    return rows


def _rows(found: Reconstruction, truth: Tensor, subject: str, numbers: list[int], condition: str, solver: str, seconds: float) -> list[Row]:
    if truth.ndim == 5:
        # One volume: its slices share what was spent on it.
        found = replace(
            found,
            image=found.image[0].movedim(1, 0),
            **{name: getattr(found, name).expand(len(numbers)) for name in ("misfit", "nfe", "nbackward", "start_sigma")},
        )
        truth = truth[0].movedim(1, 0)
    measured = psnr(found.image, truth), ssim(found.image, truth), nrmse(found.image, truth)
    return [
        Row(
            subject=subject,
            slice=number,
            condition=condition,
            solver=solver,
            psnr=float(measured[0][i]),
            ssim=float(measured[1][i]),
            nrmse=float(measured[2][i]),
            data_misfit=float(found.misfit[i]),
            nfe=int(found.nfe[i]),
            nbackward=int(found.nbackward[i]),
            start_sigma=float(found.start_sigma[i]),
            seconds=seconds,
            batch_size=len(truth),
        )
        for i, number in enumerate(numbers)
    ]


def summarise(rows: Sequence[Row], seed: int = 0) -> dict[str, Any]:
    """Means over subjects with 95 % bootstrap intervals, and paired differences against conditional, data-step, dynamicdps.

    Slices of a subject are averaged first: subjects, not slices, are independent.
    """
    table: dict[str, Any] = {}
    for condition in dict.fromkeys(r.condition for r in rows):
        table[condition] = {}
        for solver in dict.fromkeys(r.solver for r in rows if r.condition == condition):
            entry: dict[str, Any] = {}
            for name in ("psnr", "ssim", "nrmse", "data_misfit", "nfe", "nbackward", "start_sigma", "seconds"):
                values = np.array(list(_by_subject(rows, condition, solver, name).values()))
                entry["subjects"] = len(values)
                entry[name] = {"mean": float(values.mean()), "interval": _interval(values, seed)}
            for reference in ("conditional", "data-step", "dynamicdps"):
                if solver != reference and any(r.solver == reference and r.condition == condition for r in rows):
                    entry[f"against_{reference}"] = {
                        name: _paired(rows, condition, solver, reference, name, seed) for name in ("psnr", "ssim")
                    }
            table[condition][solver] = entry
    return {"subjects": len({r.subject for r in rows}), "slices": len({(r.subject, r.slice) for r in rows}), "conditions": table}


def _by_subject(rows: Sequence[Row], condition: str, solver: str, name: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.condition == condition and row.solver == solver:
            values.setdefault(row.subject, []).append(float(getattr(row, name)))
    return {subject: float(np.mean(v)) for subject, v in values.items()}


def _interval(values: NDArray[np.float64], seed: int) -> list[float]:
    draws = np.random.default_rng(seed).integers(len(values), size=(BOOTSTRAPS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return [float(low), float(high)]


def _paired(rows: Sequence[Row], condition: str, solver: str, reference: str, name: str, seed: int) -> dict[str, Any]:
    ours, theirs = (_by_subject(rows, condition, which, name) for which in (solver, reference))
    difference = np.array([ours[subject] - theirs[subject] for subject in ours if subject in theirs])
    return {"mean": float(difference.mean()), "interval": _interval(difference, seed), "share_better": float((difference > 0).mean())}


def markdown_table(summary: dict[str, Any]) -> str:
    """The table of docs/results.md."""
    lines = [
        "| condition | solver | subjects | PSNR dB | SSIM | data misfit | PSNR against conditional | better (PSNR / SSIM) "
        "| PSNR against data-step | PSNR against dynamicdps | NFE | backward | start sigma | s a slice |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for condition, solvers in summary["conditions"].items():
        for solver, e in solvers.items():
            against, step, ours = (e.get(f"against_{name}") for name in ("conditional", "data-step", "dynamicdps"))
            better = f"{against['psnr']['share_better']:.0%} / {against['ssim']['share_better']:.0%}" if against else ""
            cells = [
                condition,
                solver,
                e["subjects"],
                f"{e['psnr']['mean']:.2f}",
                f"{e['ssim']['mean']:.4f}",
                f"{e['data_misfit']['mean']:.2f}",
            ]
            cells += [_difference(against), better, _difference(step), _difference(ours)]
            cells += [f"{e['nfe']['mean']:.0f}", f"{e['nbackward']['mean']:.0f}"]
            cells += [f"{e['start_sigma']['mean']:.3f}", f"{e['seconds']['mean']:.2f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _difference(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    low, high = entry["psnr"]["interval"]
    return f"{entry['psnr']['mean']:+.2f} ({low:+.2f} to {high:+.2f})"


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV; the file is complete or the old one stays."""
    partial = path.with_name(f".partial-{path.name}")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    partial.replace(path)


def read_rows(path: Path) -> list[Row]:
    """Rows that `write_rows` wrote.

    Raises:
        InputError: the file is something else.
    """
    kinds: dict[Any, Callable[[str], Any]] = {str: str, int: int, float: float}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [Row(**{f.name: kinds[f.type](line[f.name]) for f in fields(Row)}) for line in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read; expected the results of a benchmark; choose another folder for --out") from error


def write_benchmark(out: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """Write results.csv, summary.json and table.md into a folder."""
    write_rows(out / "results.csv", rows)
    summary = summarise(rows)
    write_json(out / "summary.json", summary)
    (out / "table.md").write_text(markdown_table(summary), encoding="utf-8")
    return summary
