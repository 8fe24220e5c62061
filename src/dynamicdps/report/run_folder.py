"""An output folder of enhance or demo as a report."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamicdps.errors import InputError, reason_of
from dynamicdps.evaluation import StageMetrics
from dynamicdps.json_file import read_json
from dynamicdps.output_names import (
    BRAIN_MASK,
    ENHANCED,
    HALLUCINATION,
    INITIAL,
    MEASUREMENT,
    METRICS,
    RESIDUAL,
    RUN,
    SEGMENTATION,
    SEGMENTATION_TABLE,
    START_RULE,
    STARTS,
    STRUCTURES,
    TRACE,
    TRUTH,
    UNCERTAINTY,
)
from dynamicdps.report.colours import LabelColours
from dynamicdps.report.contents import Interval, Report, Stage
from dynamicdps.report.facts import facts_of, made_of, scan_name, steps_of
from dynamicdps.report.numbers import structures_table
from dynamicdps.report.trace import read_rows, read_table
from dynamicdps.solvers import StartLevelRule, read_start_level
from dynamicdps.volumes import IntensityScale, Volume, load

# An rms residual this many times the noise is more than a noise level that is a little off.
HIGH_MISFIT = 1.5


def read_report(folder: Path) -> Report:
    """Everything that the files of a folder tell: volumes, metrics.json, run.json, trace.csv, starts.csv and start-level.json.

    Only the enhanced image and run.json must be there.

    Args:
        folder: output of ``enhance`` or ``demo``.

    Raises:
        InputError: it holds no enhanced image or no run.json, or one of its files cannot be read.
    """
    for name in (ENHANCED, RUN):
        if not (folder / name).is_file():
            raise InputError(f"{folder} holds no {name}; expected the output folder of enhance or demo; name another folder")
    run, metrics = _read_json(folder / RUN), _read_json(folder / METRICS) if (folder / METRICS).is_file() else {}
    try:
        return _report(folder, run, metrics)
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{RUN}, {METRICS} or a table in {folder} holds something of another kind ({type(error).__name__}); expected what enhance "
            "writes; run enhance again"
        ) from error


def _report(folder: Path, run: Mapping[str, Any], metrics: Mapping[str, Any]) -> Report:
    warnings = [str(warning) for warning in run.get("warnings") or ()]
    volumes: dict[str, Volume] = {}
    for name in (MEASUREMENT, INITIAL, TRUTH, RESIDUAL, UNCERTAINTY, HALLUCINATION, BRAIN_MASK, SEGMENTATION):
        if not (folder / name).is_file():
            continue
        try:
            volumes[name] = load(folder / name)
        except InputError as error:
            # One map that is all 0 must not cost the page; the sentence names the file, not its folder.
            reason = str(error).partition(";")[0].replace(f"{folder}/", "").removeprefix(f"{name} ")
            warnings.append(f"{name} is not shown: it {reason}.")
    solver = str(run.get("solver") or "dynamicdps")
    stages = [
        *([_stage("interpolated", None, metrics, "measurement")] if "measurement" in metrics else []),
        *([_stage("initial image", volumes[INITIAL], metrics, "conditional")] if INITIAL in volumes else []),
        _stage("enhanced", load(folder / ENHANCED), metrics, solver),
    ]
    estimate, starts = stages[-1].metrics, read_rows(folder / STARTS)
    return Report(
        title=str(run.get("title") or f"Enhanced scan: {scan_name(run) or folder.resolve().name}"),
        stages=stages,
        # What run.json holds of them already is not said twice.
        warnings=list(dict.fromkeys([*_run_warnings(run, estimate), *warnings])),
        truth=volumes.get(TRUTH),
        measurement=volumes.get(MEASUREMENT),
        residual=volumes.get(RESIDUAL),
        uncertainty=volumes.get(UNCERTAINTY),
        hallucination=volumes.get(HALLUCINATION),
        labels=volumes.get(SEGMENTATION),
        label_names=_label_names(folder / SEGMENTATION_TABLE),
        brain_mask=volumes.get(BRAIN_MASK),
        structures=_structures(folder / STRUCTURES),
        trace=read_rows(folder / TRACE),
        starts=starts,
        start_rule=_read_rule(folder / START_RULE),
        made=made_of(run),
        steps=steps_of(run, estimate, starts, volumes.get(MEASUREMENT), TRUTH in volumes),
        facts=facts_of(run),
        command=command_of(run),
        scale=_brain_scale(run),
        slab=run.get("slab") is True,
    )


def _brain_scale(run: Mapping[str, Any]) -> IntensityScale | None:
    """The brain's intensity scale that the run found: the scalp around it is far brighter at low field, and must not set the window."""
    scale = run.get("intensity_scale")
    if not isinstance(scale, int | float) or not math.isfinite(scale) or scale <= 0:
        return None
    return IntensityScale(float(scale))


def command_of(run: Mapping[str, Any]) -> str:
    """The command that gives the same again, as one would type it."""
    name, words = str(run.get("command", "")), [str(word) for word in run.get("argv") or ()]
    # The paper's commands are fronts whose own arguments leave out the command's name.
    return shlex.join(["dynamicdps", *(words if words[:1] == [name] else [name, *words])])


def _run_warnings(run: Mapping[str, Any], estimate: StageMetrics | None) -> list[str]:
    found = []
    if run.get("exit", 0) != 0:
        found.append(f"The run did not end well (exit code {run['exit']}): what is shown may be of an earlier run.")
    return found + misfit_warnings(None if estimate is None else estimate.data_misfit)


def misfit_warnings(misfit: float | None) -> list[str]:
    """A sentence where an image explains the measurement badly.

    Args:
        misfit: of the image, in standard deviations of the noise; `None` where it is unknown.
    """
    if misfit is None or misfit <= HIGH_MISFIT:
        return []
    return [
        f"The enhanced image does not explain the measurement: what is left is {misfit:.1f} times the noise. "
        "The forward model or its noise level may be wrong for this scan."
    ]


def _stage(name: str, volume: Volume | None, metrics: Mapping[str, Any], key: str) -> Stage:
    values = metrics.get(key)
    if not isinstance(values, Mapping):
        return Stage(name, volume)
    return Stage(
        name,
        volume,
        StageMetrics.from_json(dict(values)),
        _intervals(values.get("range_over_slices")),
        _intervals(values.get("volumes_interval_mm3")),
    )


def _intervals(values: Any) -> dict[str, Interval]:
    """Intervals by name; what is none is left out."""
    pairs = values.items() if isinstance(values, Mapping) else ()
    return {
        str(name): (float(ends[0]), float(ends[1]))
        for name, ends in pairs
        if isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
    }


def _label_names(path: Path) -> dict[int, tuple[str, str]]:
    """Names and colours by number; that the viewer can draw them shows here, before the page is made."""
    found = {int(row["index"]): (row["name"], row["color"]) for row in read_table(path)}
    LabelColours(tuple(name for name, _ in found.values()), tuple(colour for _, colour in found.values())).entry()
    return found


def _structures(path: Path) -> list[dict[str, str]]:
    """The rows of structures.tsv; that they can be shown likewise."""
    rows = read_table(path)
    structures_table(rows)
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); expected JSON as enhance writes it; run enhance again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no object; expected JSON as enhance writes it; run enhance again")
    return values


def _read_rule(path: Path) -> StartLevelRule | None:
    rule = read_start_level(path) if path.is_file() else None
    return rule if isinstance(rule, StartLevelRule) else None
