"""What the lesions of a benchmark say."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dynamicdps.evaluation.benchmark.rows import LesionRow, Results
from dynamicdps.evaluation.statistics import bootstrap_interval, by_subject, holm, paired_comparison

# A lesion of which less is shown counts as lost.
LOST = 0.5
REFERENCE = "conditional"
Number = Callable[[LesionRow], float]
_NUMBERS: dict[str, Number] = {
    "kept": lambda row: row.kept,
    "measured": lambda row: row.measured,
    "kept_of_measured": lambda row: row.kept / row.measured,
    "kept_error": lambda row: abs(row.kept - 1),
    "lost": lambda row: float(row.kept < LOST),
}


def summarise_lesions(results: Results, seed: int = 0) -> dict[str, dict[str, dict[str, Any]]]:
    """Lesions by condition and solver.

    `kept` is the share of the contrast that is shown, `measured` the share that the measurement holds (the rest lies in its null
    space), `kept_of_measured` the first over the second, `kept_error` the distance of `kept` from 1, `lost` the share of lesions of
    which less than half is shown, each for the resolvable lesions, as means over subjects with 95 % bootstrap intervals; `kept_dark`
    and `kept_bright` of those below and above their surroundings; `kept_unresolvable` of the others, which nothing can be asked of.
    `against_conditional` has the paired difference of `kept_error`; `p_holm` is adjusted for all solvers and conditions.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for condition, solver in dict.fromkeys((row.condition, row.solver) for row in results.lesions):
        rows = _rows(results, condition, solver)
        asked = [row for row in rows if row.resolvable]
        entry: dict[str, Any] = {"subjects": len({row.subject for row in rows}), "lesions": len(rows), "resolvable": len(asked)}
        groups = {
            **{name: (asked, number) for name, number in _NUMBERS.items()},
            "kept_dark": ([row for row in asked if row.contrast < 0], _NUMBERS["kept"]),
            "kept_bright": ([row for row in asked if row.contrast > 0], _NUMBERS["kept"]),
            "kept_unresolvable": ([row for row in rows if not row.resolvable], _NUMBERS["kept"]),
        }
        entry |= {name: found for name, (chosen, number) in groups.items() if (found := _estimate(chosen, number, seed))}
        table.setdefault(condition, {})[solver] = entry
    _compare(results, table, seed)
    return table


def _compare(results: Results, table: dict[str, dict[str, dict[str, Any]]], seed: int) -> None:
    found = {}
    for condition, solvers in table.items():
        theirs = _by_subject([row for row in _rows(results, condition, REFERENCE) if row.resolvable], _NUMBERS["kept_error"])
        for solver, entry in solvers.items():
            ours = _by_subject([row for row in _rows(results, condition, solver) if row.resolvable], _NUMBERS["kept_error"])
            if solver == REFERENCE or not set(ours) & set(theirs):
                continue
            compared = paired_comparison(ours, theirs, np.random.default_rng(seed))
            entry["against_conditional"] = {
                "mean": compared.difference.mean,
                "interval": [compared.difference.low, compared.difference.high],
                "subjects": compared.difference.subjects,
                "share_better": 1 - compared.share_larger,
                "p_value": compared.p_value,
            }
            found[condition, solver] = entry["against_conditional"]
    adjusted = holm({"/".join(names): entry["p_value"] for names, entry in found.items()})
    for names, entry in found.items():
        entry["p_holm"] = adjusted["/".join(names)]


def _rows(results: Results, condition: str, solver: str) -> list[LesionRow]:
    return [row for row in results.lesions if (row.condition, row.solver) == (condition, solver)]


def _by_subject(rows: Sequence[LesionRow], number: Number) -> dict[str, float]:
    return by_subject((row.subject, number(row)) for row in rows if math.isfinite(row.kept))


def _estimate(rows: Sequence[LesionRow], number: Number, seed: int) -> dict[str, Any] | None:
    values = _by_subject(rows, number)
    if not values:
        return None
    found = bootstrap_interval(list(values.values()), np.random.default_rng(seed))
    return {"mean": found.mean, "interval": [found.low, found.high], "subjects": found.subjects}
