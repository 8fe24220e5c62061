"""The page of a benchmark: means of conditions and solvers, then subjects, those first whose result is worse than its start."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from dynamicdps.evaluation.benchmark import Results
from dynamicdps.evaluation.benchmark.folder import read_slice
from dynamicdps.evaluation.benchmark.summary import Measured, measured
from dynamicdps.report.index import MAX_PICTURES, MAX_ROWS, Cell, IndexColumn, write_index_page
from dynamicdps.report.thumbnail import small_picture

REFERENCE = "conditional"
COLUMNS = (
    IndexColumn("psnr", "PSNR", "dB"),
    IndexColumn("ssim", "SSIM", digits=3),
    IndexColumn("csf_error", "CSF error", "%", 100, 1, sign=True),
    IndexColumn("gm_error", "GM error", "%", 100, 1, sign=True),
    IndexColumn("wm_error", "WM error", "%", 100, 1, sign=True),
    IndexColumn("data_misfit", "Data misfit"),
    IndexColumn("nfe", "Network passes", digits=0),
    IndexColumn("seconds", "Time", "s an image"),
)
CHANGES = (
    IndexColumn("psnr", "PSNR", "dB"),
    IndexColumn("psnr_change", "change", "dB", sign=True),
    IndexColumn("ssim", "SSIM", digits=3),
    IndexColumn("ssim_change", "change", digits=3, sign=True),
    IndexColumn("abs_volume_error", "Volume error", "%", 100, 1),
    IndexColumn("abs_volume_error_change", "change", "%", 100, 1, sign=True),
    IndexColumn("data_misfit", "Data misfit"),
)
# Name, and whether a fall of it is worse.
WORSE = {"psnr": ("PSNR", True), "abs_volume_error": ("volumes", False)}
FLAT = 1e-9
BRAIN, MARGIN = 0.02, 4


@dataclass(frozen=True)
class MeanRow:
    """A condition and solver."""

    condition: str
    solver: str
    cells: list[Cell]


@dataclass(frozen=True)
class SubjectRow:
    """A subject's result: its picture (base64 of a JPEG) is empty where none was kept, `worse` names what it lost."""

    subject: str
    condition: str
    solver: str
    cells: list[Cell]
    worse: list[str]
    picture: str = ""


def write_benchmark_index(out: Path, results: Results, summary: Mapping[str, Any], files: Mapping[str, str]) -> Path:
    """Write ``index.html`` into a benchmark's folder: self-contained but for the links to its files, without network.

    Args:
        out: the folder, with the slices that `write_slices` keeps.
        results: all rows.
        summary: of `write_benchmark`.
        files: what each file below `out` holds, by its place; those that are there are linked, of a folder its pictures.
    """
    subjects = subject_rows(measured(results))
    shown = [
        SubjectRow(**{**vars(row), "picture": _picture(out, row) if index < MAX_PICTURES else ""})
        for index, row in enumerate(subjects[:MAX_ROWS])
    ]
    return write_index_page(
        out,
        "benchmark.html.j2",
        subjects=summary["subjects"],
        slices=summary["slices"],
        conditions=len(summary["conditions"]),
        means=mean_rows(summary),
        columns=COLUMNS,
        rows=shown,
        changes=CHANGES,
        total=len(subjects),
        worse=sum(bool(row.worse) for row in subjects),
        links=_links(out, files),
    )


def mean_rows(summary: Mapping[str, Any]) -> list[MeanRow]:
    """A row a condition and solver, in the summary's order, the intervals over subjects with it."""
    rows = []
    for condition, solvers in summary["conditions"].items():
        for solver, entry in solvers.items():
            numbers: dict[str, float] = {}
            for column in COLUMNS:
                if column.key not in entry:
                    continue
                known = entry[column.key]
                numbers[column.key] = known["mean"]
                # Of one subject the bootstrap knows only that one.
                if known["subjects"] > 1:
                    numbers |= {f"{column.key}_{end}": limit for end, limit in zip(("low", "high"), known["interval"], strict=True)}
            rows.append(MeanRow(condition, solver, [column.cell(numbers) for column in COLUMNS]))
    return rows


def subject_rows(numbers: Measured) -> list[SubjectRow]:
    """A row a subject, condition and solver but the conditional model itself: worse ones first, the largest loss of PSNR on top."""
    found = []
    for condition, solvers in numbers.conditions.items():
        for solver in solvers:
            if solver == REFERENCE:
                continue
            for subject in numbers.of(condition, solver, "psnr"):
                values = _numbers(numbers, condition, solver, subject)
                worse = [label for name, (label, falls) in WORSE.items() if (-1 if falls else 1) * values.get(f"{name}_change", 0.0) > FLAT]
                cells = [column.cell(values) for column in CHANGES]
                order = (not worse, values.get("psnr_change", 0.0), subject, condition, solver)
                found.append((order, SubjectRow(subject, condition, solver, cells, worse)))
    return [row for _, row in sorted(found, key=lambda each: each[0])]


def _numbers(numbers: Measured, condition: str, solver: str, subject: str) -> dict[str, float]:
    """What a subject's row shows, as far as it was measured."""
    values: dict[str, float] = {}
    for column in CHANGES:
        name = column.key.removesuffix("_change")
        ours, start = (numbers.of(condition, each, name).get(subject) for each in (solver, REFERENCE))
        if ours is not None:
            values[name] = ours
            if start is not None:
                values[f"{name}_change"] = ours - start
    return values


def _picture(out: Path, row: SubjectRow) -> str:
    image = read_slice(out, row.subject, row.condition, row.solver)
    return "" if image is None else base64.b64encode(small_picture(_brain(image).T)).decode("ascii")


def _brain(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part of a slice that holds signal."""
    rows, columns = np.nonzero(image > BRAIN)
    if not len(rows):
        return image
    return image[tuple(slice(max(0, int(i.min()) - MARGIN), int(i.max()) + 1 + MARGIN) for i in (rows, columns))]


def _links(out: Path, files: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """Address and words of each file that is there; of a folder, of each picture in it."""
    links = []
    for place, about in files.items():
        if (out / place).is_dir():
            links += [(quote(f"{place}/{path.name}"), f"{about}: {path.stem}") for path in sorted((out / place).glob("*.png"))]
        elif (out / place).is_file():
            links.append((quote(place), f"{place}: {about}"))
    return links
