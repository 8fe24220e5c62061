"""A solver's steps and starts as tables, and as the files trace.csv and starts.csv."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynamicdps.atomic_file import atomic_write
from dynamicdps.data_term import excess_misfit, pooled_residual, scan_term
from dynamicdps.errors import InputError, reason_of
from dynamicdps.operators import ScanOperator
from dynamicdps.solvers import Result, TraceStep
from dynamicdps.solvers.solve import measurement_scale
from dynamicdps.volumes import Volume, to_slices

# Ends of the band around a mean over images.
LOW, HIGH = 0.1, 0.9
MEASURES = ("sigma", "misfit", "step_length")

Rows = list[dict[str, float]]


def trace_rows(result: Result) -> Rows:
    """One row a step: ``step``, ``images``, and of noise level, data misfit and step length the mean over images with its 10th and 90th
    percentile (``misfit``, ``misfit_low``, ``misfit_high``).
    """
    return [_row(step) for step in result.trace]


def _row(step: TraceStep) -> dict[str, float]:
    row = {"step": float(step.step), "images": float(len(step.sigma))}
    for name in MEASURES:
        values = getattr(step, name).double().cpu().numpy()
        low, high = np.quantile(values, (LOW, HIGH))
        row |= {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
    return row


def start_rows(result: Result, pairs: Sequence[tuple[Volume, ScanOperator]]) -> Rows:
    """One row an image (a slice; a volume where slices were solved together): ``image``, ``excess_misfit`` of the initial image in image
    intensities, ``start_sigma``, and ``misfit`` and ``nfe`` of the estimate.

    Args:
        result: of a solver.
        pairs: its measurements with their forward models.
    """
    found = result.reconstruction
    whole = len(found.start_sigma) == 1
    x = to_slices(result.initial.data / result.scale.scale)
    scales = [result.scale.scale if len(pairs) == 1 else measurement_scale(*pair).scale for pair in pairs]
    terms = [scan_term(*pair, scale, whole=whole) for pair, scale in zip(pairs, scales, strict=True)]
    excess = excess_misfit(*pooled_residual(terms, x.movedim(0, 1)[None] if whole else x))
    columns: dict[str, Tensor] = {"excess_misfit": excess, "start_sigma": found.start_sigma, "misfit": found.misfit, "nfe": found.nfe}
    values = torch.stack([column.detach().double().cpu() for column in columns.values()], dim=1).tolist()
    return [{"image": float(index)} | dict(zip(columns, row, strict=True)) for index, row in enumerate(values)]


def write_rows(path: Path, rows: Sequence[Mapping[str, float | str]], columns: Sequence[str] = ()) -> None:
    """Write rows of the same keys, numbers or words, as a CSV file, or with tabs where its name ends in .tsv.

    Without rows the file has the columns alone, and where none are named it is removed.
    """
    columns = columns or list(rows[0] if rows else ())
    if not columns:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: value if isinstance(value, str) else f"{value:.6g}" for name, value in row.items()} for row in rows)


def read_rows(path: Path) -> Rows:
    """The inverse of `write_rows`, to six digits; no rows where there is no file.

    Raises:
        InputError: the file is not a table of numbers.
    """
    try:
        return [{name: float(value) for name, value in line.items()} for line in read_table(path)]
    except (ValueError, TypeError) as error:
        raise _unreadable(path, "numbers", error) from error


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of words, of a file that `write_rows` wrote; no rows where there is no file.

    Raises:
        InputError: the file is no table.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(path, "words", error) from error


def _unreadable(path: Path, kind: str, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read ({reason_of(error)}); expected a table of {kind} as enhance writes it; run enhance again")
