"""A benchmark's folder: its tables, its conditions and one slice of each cell for pictures."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.atomic_file import atomic_write
from dynamicdps.errors import InputError
from dynamicdps.evaluation.benchmark.conditions import Condition
from dynamicdps.evaluation.benchmark.rows import HallucinationRow, LesionRow, Results, Row, VolumeRow, read_table, write_table
from dynamicdps.evaluation.benchmark.scene import Cell
from dynamicdps.json_file import write_json

RESULTS, VOLUMES, HALLUCINATION, LESIONS = "results.csv", "volumes.csv", "hallucination.csv", "lesions.csv"
CONDITIONS = "conditions.json"
SLICES = "slices"
# A solver that ran away: far outside of [0, 1], and within what float16 holds.
LIMIT = 1e4


def write_results(folder: Path, results: Results) -> None:
    """Write the tables; results.csv comes last, so that a cell in it is in all others."""
    if results.lesions:
        write_table(folder / LESIONS, results.lesions, LesionRow)
    if results.volumes:
        write_table(folder / HALLUCINATION, results.hallucination, HallucinationRow)
        write_table(folder / VOLUMES, results.volumes, VolumeRow)
    write_table(folder / RESULTS, results.rows, Row)


def read_results(folder: Path) -> Results:
    """Read the tables; folders of before there were more than results.csv give its rows alone.

    Raises:
        InputError: there is no results.csv, or a table is something else.
    """
    rows = read_table(folder / RESULTS, Row)
    if not (folder / VOLUMES).exists() and not (folder / HALLUCINATION).exists():
        return Results(rows)
    return Results(
        rows,
        read_table(folder / VOLUMES, VolumeRow),
        read_table(folder / HALLUCINATION, HallucinationRow),
        read_table(folder / LESIONS, LesionRow) if (folder / LESIONS).exists() else [],
    )


def read_finished(folder: Path) -> Results:
    """What a run that was stopped has finished, to continue it; nothing where there is no results.csv.

    Raises:
        InputError: the folder is of before there were volumes.csv and hallucination.csv, or a table is something else.
    """
    if not (folder / RESULTS).exists():
        return Results()
    missing = [name for name in (VOLUMES, HALLUCINATION) if not (folder / name).exists()]
    if missing:
        raise InputError(
            f"{folder} has {RESULTS} but no {' and no '.join(missing)}: an older version made it; expected all tables to continue; choose "
            "another --out"
        )
    return read_results(folder).complete()


def write_conditions(folder: Path, conditions: Iterable[Condition]) -> dict[str, Any]:
    """Note what each condition is, beside those that the folder has results of.

    Returns:
        All conditions of the folder, by name.

    Raises:
        InputError: one of that name was another before.
    """
    earlier = read_conditions(folder) if (folder / RESULTS).exists() else {}
    known = merge_conditions([earlier, {condition.name: condition.to_json() for condition in conditions}])
    write_json(folder / CONDITIONS, known)
    return known


def read_conditions(folder: Path) -> dict[str, Any]:
    """What `write_conditions` wrote; nothing where there is no such file.

    Raises:
        InputError: the file is something else.
    """
    path = folder / CONDITIONS
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; expected a benchmark's conditions; choose another folder") from error
    if not isinstance(values, dict) or not all(isinstance(each, dict) for each in values.values()):
        raise InputError(f"{path} holds something else; expected a benchmark's conditions; choose another folder")
    return values


def merge_conditions(each: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Conditions of several runs.

    Raises:
        InputError: two of one name differ.
    """
    known: dict[str, Any] = {}
    for values in each:
        for name, value in values.items():
            if known.setdefault(name, value) != value:
                raise InputError(
                    f"the condition {name} has another model or degradation than before; expected the same under one name; rename the "
                    "degradation or choose another --out"
                )
    return known


def write_slices(folder: Path, cell: Cell, solvers: Collection[str]) -> None:
    """Keep the middle slice of the truth, the measurement and those solvers that figures show, as float16."""
    subject, condition, solver = cell.key
    for name, picture in cell.pictures.items():
        path = slice_path(folder, subject, condition, name)
        if name == solver and solver not in solvers:
            continue
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, image=np.clip(picture, -LIMIT, LIMIT).astype(np.float16))


def read_slice(folder: Path, subject: str, condition: str, name: str) -> NDArray[np.float32] | None:
    """A slice ``(height, width)`` that `write_slices` kept; `None` where there is none."""
    path = slice_path(folder, subject, condition, name)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["image"], dtype=np.float32)


def slice_path(folder: Path, subject: str, condition: str, name: str) -> Path:
    return folder / SLICES / file_name(condition) / f"{subject}_{name}.npz"


def file_name(condition: str) -> str:
    """A condition's name as part of a file's."""
    return condition.strip("/").replace("/", "_")
