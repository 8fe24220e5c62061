"""A whole benchmark on phantoms: the same every time, also when it was stopped in between."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.evaluation.benchmark import (
    REFERENCES,
    Cell,
    Condition,
    Interpolation,
    Results,
    Sampling,
    Step,
    read_finished,
    run_benchmark,
    variant,
    write_benchmark,
    write_conditions,
    write_results,
    write_slices,
)
from dynamicdps.evaluation.benchmark.run import _Plan
from dynamicdps.operators import LowField, ScanOperator
from tests.conftest import make_phantom
from tests.properties import input_error

CONDITIONS = [
    Condition("identity/sharp", Interpolation(), ScanOperator(LowField(gamma=0.5, in_plane_factor=2.0), 0.01), "untrained"),
    Condition("identity/thick", Interpolation(), ScanOperator(LowField(slice_thickness=3.0), 0.02), "untrained"),
]
SOLVERS = ("conditional", "data-step", "short")
SETTINGS = {"short": {"solver": "diffpir", "steps": 2, "samples": 2, "start_sigma": 0.1}}


class PowerError(Exception):
    """The power failed."""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scans")
    return [make_phantom((48, 56, 8), seed=i).save(folder / f"sub-{i}_T1w.nii.gz") for i in range(2)]


def smooth(x: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser that knows little."""
    del sigma
    return torch.nn.functional.avg_pool2d(x, 3, 1, 1)


def run(
    scans: Sequence[Path],
    out: Path,
    *,
    stop_after: int | None = None,
    solvers: Sequence[str] = SOLVERS,
    summarised: bool = False,
    **options: Any,
) -> Results:
    out.mkdir(exist_ok=True)
    done = read_finished(out)
    finished = Results()
    finished.add(done)
    known = write_conditions(out, CONDITIONS)
    count = 0

    def keep(cell: Cell) -> None:
        nonlocal count
        done.add(cell.results)
        write_slices(out, cell, REFERENCES)
        write_results(out, done)
        count += 1
        if count == stop_after:
            raise PowerError

    sampling = options.pop("sampling", Sampling(2, 5))
    results = run_benchmark(
        scans, CONDITIONS, solvers, smooth, sampling=sampling, settings=SETTINGS, finished=finished, on_cell=keep, **options
    )
    if summarised:
        write_benchmark(out, results, known)
    return results


def without_seconds(folder: Path) -> dict[str, Any]:
    """All files; of the tables and the summary what does not depend on the clock."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                found[name] = [{k: v for k, v in line.items() if k != "seconds"} for line in csv.DictReader(file)]
        elif path.name == "summary.json":
            values = json.loads(path.read_text())
            for solvers in values["conditions"].values():
                for entry in solvers.values():
                    del entry["seconds"]
            found[name] = values
        elif path.is_file() and path.name != "table.md":
            found[name] = path.read_bytes()
    return found


def test_a_stopped_run_goes_on_as_if_it_had_not_been(scans: list[Path], tmp_path: Path) -> None:
    """PowerError twice, the second time between two tables of one cell; every file is that of one uninterrupted run."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(scans, whole, lesions=2, summarised=True)
    expected = without_seconds(whole)
    assert {"results.csv", "volumes.csv", "hallucination.csv", "lesions.csv", "summary.json", "conditions.json"} <= set(expected)
    with pytest.raises(PowerError):
        run(scans, parts, lesions=2, stop_after=4)
    assert len(read_finished(parts).cells) == 4
    with pytest.raises(PowerError):
        run(scans, parts, lesions=2, stop_after=3)
    # Results.csv is the last to be written: take the last cell out of it.
    lines = (parts / "results.csv").read_text().splitlines(keepends=True)
    last = [line for line in lines if line.split(",")[:1] + line.split(",")[2:4] != ["sub-1", "identity/sharp", "conditional"]]
    assert len(last) == len(lines) - 2
    (parts / "results.csv").write_text("".join(last))
    run(scans, parts, lesions=2, summarised=True)
    found = without_seconds(parts)
    assert list(found) == list(expected)
    for name, content in expected.items():
        assert found[name] == content, name


def test_lesions_change_nothing_else(scans: list[Path], tmp_path: Path) -> None:
    plain, lesioned = (without_seconds(tmp_path / name) for name in ("plain", "lesioned") if run_named(scans, tmp_path, name))
    for name in ("results.csv", "volumes.csv", "hallucination.csv"):
        assert plain[name] == lesioned[name]
    assert "lesions.csv" not in plain
    rows = lesioned["lesions.csv"]
    assert {(row["condition"], row["solver"]) for row in rows} == {("identity/sharp", "data-step"), ("identity/thick", "data-step")}
    assert {row["resolvable"] for row in rows} <= {"yes", "no"}


def run_named(scans: list[Path], folder: Path, name: str) -> Results:
    return run(scans[:1], folder / name, solvers=["data-step"], lesions=2 if name == "lesioned" else 0)


def test_rows_of_every_table(scans: list[Path], tmp_path: Path) -> None:
    steps: list[Step] = []
    results = run(scans, tmp_path / "out", progress=steps.append)
    assert [(step.done, step.planned) for step in steps] == [(i, 12) for i in range(1, 13)]
    assert steps[0].seconds_left > 0
    assert steps[-1].seconds_left == 0
    assert steps[-1].last == ("sub-1", "identity/thick", "short")
    # Two slices apart, and a slab of five.
    assert len(results.rows) == 2 * 3 * (2 + 5)
    assert {row.slice for row in results.rows if row.condition == "identity/sharp"} == {2, 6}
    assert {row.slice for row in results.rows if row.condition == "identity/thick"} == {1, 2, 3, 4, 5}
    assert [row.solver for row in results.volumes[:4]] == ["truth", *SOLVERS]
    assert sum(row.solver == "truth" for row in results.volumes) == 4
    assert len(results.hallucination) == 12
    spread = {row.solver: row.hallucination_index for row in results.hallucination}
    assert 0 < spread["short"] <= 1
    assert spread["conditional"] != spread["conditional"], "no samples, no index"
    conditional = {row.condition: row for row in results.hallucination if row.solver == "conditional"}
    assert conditional["identity/sharp"].residual_rms > 5, "its contrast is not undone"
    for row in results.rows:
        if row.solver == "conditional" and row.condition == "identity/thick":
            same = next(h for h in results.hallucination if (h.subject, h.condition, h.solver) == (row.subject, row.condition, row.solver))
            assert same.residual_rms == pytest.approx(row.data_misfit, rel=1e-5)


def test_neighbours(scans: list[Path], tmp_path: Path) -> None:
    results = run(scans[:1], tmp_path / "out", solvers=["conditional"], sampling=Sampling(3, 5, neighbours=True))
    assert [row.slice for row in results.rows if row.condition == "identity/sharp"] == [2, 3, 4]


def test_more_solvers_later(scans: list[Path], tmp_path: Path) -> None:
    """The truth's volumes are written once."""
    run(scans[:1], tmp_path / "out", solvers=["conditional"])
    results = run(scans[:1], tmp_path / "out", solvers=["conditional", "data-step"])
    assert [row.solver for row in results.volumes] == ["truth", "conditional", "truth", "conditional", "data-step", "data-step"]


def test_what_no_benchmark_can_be_made_of(scans: list[Path], tmp_path: Path) -> None:
    with input_error("both of subject 'sub-0'"):
        run([scans[0], tmp_path / "sub-0_T2w.nii.gz"], tmp_path / "out")
    with input_error("a solver is called 'truth'"):
        variant("truth", {"truth": {"solver": "tv"}})
    with input_error("no room for lesions"):
        run(scans, tmp_path / "thin", lesions=1, sampling=Sampling(2, 3))


def test_time_left() -> None:
    """What each solver took, for those of its cells that wait; for a solver that has not run, the mean of the others."""
    cells = [(subject, "c", solver) for subject in "abc" for solver in ("x", "y", "z")]
    steps: list[Step] = []
    plan = _Plan(cells, {("a", "c", "x")}, steps.append)
    for cell, seconds in ((cells[1], 2.0), (cells[3], 10.0), (cells[4], 4.0)):
        plan.took(cell, seconds)
        plan.report(cell)
    assert [(step.done, step.planned, step.last) for step in steps] == [
        (2, 9, cells[1]),
        (3, 9, cells[3]),
        (4, 9, cells[4]),
    ]
    assert [step.seconds_left for step in steps] == [7 * 2, 10 + 2 * 2 + 3 * 6, 10 + 3 + 3 * 6.5]
