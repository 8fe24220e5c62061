"""What the tables of a benchmark say: means over subjects, and paired differences between solvers."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynamicdps.evaluation.benchmark.rows import TRUTH, HallucinationRow, Results, Row, VolumeRow, key
from dynamicdps.evaluation.statistics import RESAMPLES, Estimate, bootstrap_interval, by_subject, holm, paired_comparison
from dynamicdps.evaluation.tissue import TISSUES

REFERENCES = ("conditional", "data-step", "dynamicdps")
FIDELITY = ("psnr", "ssim", "nrmse", "data_misfit", "nfe", "nbackward", "start_sigma", "seconds")
# Of what is compared, whether more is better.
COMPARED = {
    "psnr": True,
    "ssim": True,
    **{f"abs_{tissue}_error": False for tissue in TISSUES},
    "abs_volume_error": False,
    "null_rms": False,
    "false_mm3": False,
}
Values = dict[str, float]
By = Mapping[tuple[str, str], Mapping[str, Values]]


@dataclass(frozen=True)
class Measured:
    """Every number of a benchmark, one a subject, by condition and solver and then by name; only finite ones.

    Attributes:
        values: by condition and solver, by name of the measure, by subject.
        subjects: how many there are.
        slices: how many slices of how many subjects.
    """

    values: By
    subjects: int
    slices: int

    @property
    def conditions(self) -> dict[str, list[str]]:
        """Solvers by condition, both in the order in which they first come."""
        found: dict[str, list[str]] = {}
        for condition, solver in self.values:
            found.setdefault(condition, []).append(solver)
        return found

    def of(self, condition: str, solver: str, name: str) -> Values:
        """A measure by subject; empty where it was not measured."""
        return dict(self.values.get((condition, solver), {}).get(name, {}))


def measured(results: Results) -> Measured:
    """Means over each subject's slices; the tissues' absolute errors, and their mean, from volumes.csv."""
    found: dict[tuple[str, str], dict[str, list[tuple[str, float]]]] = {}

    def add(row: Row | VolumeRow | HallucinationRow, numbers: Mapping[str, float]) -> None:
        subject, condition, solver = key(row)
        cell = found.setdefault((condition, solver), {})
        for name, value in numbers.items():
            if math.isfinite(value):
                cell.setdefault(name, []).append((subject, float(value)))

    for row in results.rows:
        add(row, {name: getattr(row, name) for name in FIDELITY})
    for volume in results.volumes:
        if volume.solver != TRUTH:
            add(volume, _volume_numbers(volume))
    for other in results.hallucination:
        add(other, {name: value for name, value in vars(other).items() if isinstance(value, float)})
    values = {cell: {name: by_subject(pairs) for name, pairs in each.items()} for cell, each in found.items()}
    return Measured(values, len({r.subject for r in results.rows}), len({(r.subject, r.slice) for r in results.rows}))


def _volume_numbers(row: VolumeRow) -> dict[str, float]:
    signed = {f"{tissue}_error": float(getattr(row, f"{tissue}_error")) for tissue in TISSUES}
    absolute = {f"abs_{name}": abs(value) for name, value in signed.items()}
    return {**signed, **absolute, "abs_volume_error": float(np.mean(list(absolute.values()))), "dice": row.dice}


def summarise(results: Results, conditions: Mapping[str, Any] | None = None, seed: int = 0) -> dict[str, Any]:
    """Means over subjects with 95 % bootstrap intervals, and paired differences against conditional, data-step and dynamicdps.

    A subject's slices are averaged first: subjects, not slices, are independent. A difference is that of the solver to the reference over
    the subjects that both have a finite number for; `share_better` counts ties half; `p_value` is Wilcoxon's. `p_holm` is adjusted for
    the family of all solvers and conditions of one measure against one reference.

    Args:
        results: the tables.
        conditions: what `write_conditions` notes; gives `training`.
        seed: of the bootstrap.
    """
    numbers = measured(results)
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for condition, solvers in numbers.conditions.items():
        table[condition] = {}
        for solver in solvers:
            known = numbers.values[condition, solver]
            entry: dict[str, Any] = {"subjects": max(map(len, known.values()), default=0)}
            entry |= {name: _estimate(bootstrap_interval(list(v.values()), _generator(seed))) for name, v in known.items()}
            for reference in REFERENCES:
                if solver != reference and reference in solvers:
                    entry[f"against_{reference}"] = {
                        name: compared
                        for name in COMPARED
                        if (compared := compare(numbers.of(condition, solver, name), numbers.of(condition, reference, name), name, seed))
                    }
            table[condition][solver] = entry
    for reference in REFERENCES:
        for name in COMPARED:
            _adjust(entry.get(f"against_{reference}", {}).get(name) for solvers in table.values() for entry in solvers.values())
    return {
        "subjects": numbers.subjects,
        "slices": numbers.slices,
        "training": {name: values["training"] for name, values in (conditions or {}).items() if name in table},
        "conditions": table,
    }


def compare(ours: Values, theirs: Values, name: str, seed: int = 0) -> dict[str, Any] | None:
    """Paired difference of a measure, and for errors the change of its mean in percent of the reference's.

    Args:
        ours: by subject.
        theirs: of the reference.
        name: one of `COMPARED`.
        seed: of the bootstrap.

    Returns:
        What summary.json holds; `None` where no subject has both.
    """
    shared = [subject for subject in ours if subject in theirs]
    if not shared:
        return None
    found = paired_comparison(ours, theirs, _generator(seed))
    larger_is_better = COMPARED[name]
    entry = _estimate(found.difference) | {
        "share_better": found.share_larger if larger_is_better else 1 - found.share_larger,
        "p_value": found.p_value,
    }
    if not larger_is_better:
        entry |= relative_change(np.array([ours[s] for s in shared]), np.array([theirs[s] for s in shared]), _generator(seed))
    return entry


def relative_change(ours: Any, theirs: Any, generator: np.random.Generator) -> dict[str, Any]:
    """Change of a mean over subjects in percent, with its 95 % percentile bootstrap interval; `None` where the reference's mean is 0.

    Args:
        ours: one number a subject, at least 0.
        theirs: of the same subjects.
        generator: draws subjects with replacement.
    """
    if theirs.mean() <= 0:
        return {"change_percent": None, "change_percent_interval": None}
    draws = generator.integers(len(ours), size=(RESAMPLES, len(ours)))
    below = theirs[draws].mean(1)
    # Of few subjects all drawn ones may have 0: that draw says nothing of a ratio.
    changes = 100 * (ours[draws].mean(1)[below > 0] / below[below > 0] - 1)
    low, high = np.percentile(changes, [2.5, 97.5])
    return {
        "change_percent": float(100 * (ours.mean() / theirs.mean() - 1)),
        "change_percent_interval": [float(low), float(high)],
    }


def _adjust(family: Iterable[dict[str, Any] | None]) -> None:
    entries = {str(i): entry for i, entry in enumerate(family) if entry is not None}
    for i, p in holm({i: entry["p_value"] for i, entry in entries.items()}).items():
        entries[i]["p_holm"] = p


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "interval": [found.low, found.high], "subjects": found.subjects}


def _generator(seed: int) -> np.random.Generator:
    """Draws of subjects from one seed, so that every interval of equally many subjects is made of the same ones."""
    return np.random.default_rng(seed)
