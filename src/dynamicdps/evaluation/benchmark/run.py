"""Solvers side by side on good scans under simulated degradations."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynamicdps.errors import InputError
from dynamicdps.evaluation.benchmark.conditions import Condition
from dynamicdps.evaluation.benchmark.cut import Subject, chosen_slices, middle_slices, subject_name
from dynamicdps.evaluation.benchmark.rows import TRUTH, CellKey, Results
from dynamicdps.evaluation.benchmark.scene import Cell, Scene, Truths
from dynamicdps.operators import Operator
from dynamicdps.priors import Denoiser
from dynamicdps.solvers import make_config

SLAB = 10


@dataclass(frozen=True)
class Sampling:
    """Which slices of each scan are reconstructed.

    Attributes:
        slices_per_scan: of conditions of single slices.
        slab: neighbouring slices around the middle, of conditions that couple slices.
        neighbours: take all slices as neighbours around the middle, not evenly spaced.
    """

    slices_per_scan: int = 4
    slab: int = SLAB
    neighbours: bool = False

    def numbers(self, count: int, operator: Operator) -> list[int]:
        """Slice numbers of a scan of `count` slices."""
        if operator.couples_slices:
            return middle_slices(count, self.slab)
        return (middle_slices if self.neighbours else chosen_slices)(count, self.slices_per_scan)


@dataclass(frozen=True)
class Step:
    """How far a benchmark is.

    Attributes:
        done: cells, of an earlier run too.
        planned: all cells.
        last: the cell that was done last.
        seconds_left: estimate from the cells of this run.
    """

    done: int
    planned: int
    last: CellKey
    seconds_left: float


def variant(label: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[str, Any]:
    """Solver and configuration behind a label.

    Args:
        label: a solver's name, or any name whose settings say which solver they are for: ``{"one-sample": {"solver": "dynamicdps",
            "samples": 1}}``.
        settings: by label; see `dynamicdps.solvers.make_config`.

    Raises:
        InputError: there is no such solver or setting, or the label is that of the truth.
    """
    if label == TRUTH:
        raise InputError(f"a solver is called {label!r}; expected another name, that one is the truth's in the tables; rename it")
    values = dict(settings.get(label, {}))
    name = str(values.pop("solver", label))
    return name, make_config(name, values)


def run_benchmark(
    scans: Sequence[Path],
    conditions: Sequence[Condition],
    solvers: Sequence[str],
    denoiser: Denoiser,
    *,
    sampling: Sampling | None = None,
    lesions: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    contrast: str = "T1w",
    finished: Results | None = None,
    on_cell: Callable[[Cell], None] | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Results:
    """Degrade, reconstruct and measure.

    Each scan's slices are one batch; where a degradation couples slices they are one volume, a slab of neighbouring slices in the middle
    of the scan. Noise, samples and lesions depend on the seed and the subject's name only, so every solver sees the same measurements,
    whatever else is in the benchmark. Lesions have a pass of their own: another measurement, another initial image.

    Args:
        scans: skull-stripped scans that no model has seen, one a subject.
        conditions: what to reconstruct from what.
        solvers: names of `dynamicdps.solvers.available`, or labels of variants that `settings` describes.
        denoiser: the prior.
        sampling: which slices.
        lesions: to insert in each subject; 0 for no pass with lesions.
        settings: by solver or label, what differs from its defaults; see `variant`.
        seed: of noise, samples and lesions.
        contrast: of the scans: T1w, T2w or FLAIR.
        finished: rows of an earlier run; what they hold is not done again.
        on_cell: called with each cell as soon as it is there.
        progress: called after each cell.

    Returns:
        All rows, finished ones first.

    Raises:
        InputError: two scans have one subject name, or a scan or solver does not fit.
    """
    sampling = sampling or Sampling()
    chosen = {label: variant(label, settings or {}) for label in solvers}
    check_subjects(scans)
    results = Results()
    results.add(finished or Results())
    plan = _Plan([(subject_name(path), c.name, s) for path in scans for c in conditions for s in solvers], results.cells, progress)
    for path in scans:
        name = subject_name(path)
        missing = [(c, [s for s in solvers if (name, c.name, s) in plan.waiting]) for c in conditions]
        if not any(names for _, names in missing):
            continue
        subject = Subject.read(path, seed, contrast)
        cuts: dict[tuple[int, ...], Truths] = {}
        for condition, names in missing:
            if not names:
                continue
            numbers = sampling.numbers(len(subject.slices), condition.scanner.operator)
            if tuple(numbers) not in cuts:
                cuts[tuple(numbers)] = Truths.of(subject, numbers, lesions)
            scene = Scene.of(condition, cuts[tuple(numbers)])
            for solver in names:
                began = time.monotonic()
                with_truth = all((row.subject, row.condition) != (name, condition.name) for row in results.volumes)
                cell = scene.solve(solver, *chosen[solver], denoiser, with_truth)
                results.add(cell.results)
                if on_cell is not None:
                    on_cell(cell)
                plan.took(cell.key, time.monotonic() - began)
                plan.report(cell.key)
    return results


def check_subjects(scans: Sequence[Path]) -> None:
    """Refuse two scans of one subject name: their rows could not be told apart.

    Raises:
        InputError: there are such.
    """
    names: dict[str, Path] = {}
    for path in scans:
        other = names.setdefault(subject_name(path), path)
        if other is not path:
            raise InputError(
                f"{other} and {path} are both of subject {subject_name(path)!r}, by their names up to the first underscore; expected one "
                "scan a subject; leave one out or rename it"
            )


class _Plan:
    """What is done, what waits, and how long it will take."""

    def __init__(self, cells: Sequence[CellKey], done: set[CellKey], progress: Callable[[Step], None] | None) -> None:
        self.planned = len(cells)
        self.waiting = {cell: None for cell in cells if cell not in done}
        self.progress = progress
        self.seconds: dict[str, list[float]] = {}

    def took(self, cell: CellKey, seconds: float) -> None:
        """Note a finished cell."""
        del self.waiting[cell]
        self.seconds.setdefault(cell[2], []).append(seconds)

    def report(self, last: CellKey) -> None:
        if self.progress is not None:
            self.progress(Step(self.planned - len(self.waiting), self.planned, last, self._left()))

    def _left(self) -> float:
        """Each solver takes what it took so far; one that has not run yet, the mean of the others."""
        mean = {solver: sum(times) / len(times) for solver, times in self.seconds.items()}
        typical = sum(mean.values()) / len(mean)
        return sum(mean.get(solver, typical) for _, _, solver in self.waiting)
