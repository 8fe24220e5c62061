"""The tables and lines of numbers that commands print."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from dynamicdps.calibration.fit import OperatorFit
from dynamicdps.evaluation import StageMetrics
from dynamicdps.evaluation.benchmark.tables import cost
from dynamicdps.evaluation.contradictions import Contradiction
from dynamicdps.pipeline.structure_volumes import StructureVolume

UNITS = {"gamma": "", "blur": "image voxels", "slice_thickness": "mm", "noise_std": "of the intensity range"}
LEGEND = "misfit: rms of (y - A x) / noise, 1 is noise alone. CSF, GM, WM: error of the tissue volume. NFE: denoiser passes."
NAMES = {"csf": "CSF", "gm": "GM", "wm": "WM"}


def metrics_table(stages: Mapping[str, StageMetrics]) -> Table:
    """One row a stage; what was not measured is a dash."""
    table = Table()
    table.add_column("", no_wrap=True)
    for name in ("PSNR dB", "SSIM", "misfit", "CSF %", "GM %", "WM %", "NFE", "s"):
        table.add_column(name, justify="right")
    for name, m in stages.items():
        errors = m.volume_error or {}
        table.add_row(
            name,
            _number(m.psnr, 2),
            _number(m.ssim, 3),
            _number(m.data_misfit, 2),
            *(_number(100 * errors[tissue] if tissue in errors else None, 1, sign=True) for tissue in ("csf", "gm", "wm")),
            "-" if m.nfe is None else str(m.nfe),
            _number(m.seconds, 1),
        )
    return table


def benchmark_table(summary: dict[str, Any]) -> Table:
    """One row a condition and solver, at most 100 columns wide: means over subjects, changes against the conditional model.

    What does not fit is in table.md.
    """
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption="(in, out): of the conditional model's training; change: against conditional; "
        "null: error that the measurement cannot show; false: structures",
    )
    table.add_column("condition\n  solver", overflow="fold", max_width=32)
    for name in ("PSNR", "SSIM", "volume\nerror %", "\nchange", "null\nchange", "false\nmm3", "NFE+back", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for condition, solvers in summary["conditions"].items():
        training = summary["training"].get(condition)
        table.add_row(escape(f"{condition} ({training})" if training else condition))
        for solver, e in solvers.items():
            against = e.get("against_conditional", {})
            table.add_row(
                f"  {escape(solver)}",
                _mean(e, "psnr", 2),
                _mean(e, "ssim", 3),
                _mean(e, "abs_volume_error", 1, 100),
                _change(against.get("abs_volume_error")),
                _change(against.get("null_rms")),
                _mean(e, "false_mm3", 0),
                cost(e).replace(" ", ""),
                _mean(e, "seconds", 2),
            )
        table.add_section()
    return table


def fit_table(fit: OperatorFit) -> Table:
    """Parameters with their intervals, as the command line shows them."""
    table = Table("parameter", "value", "95 % interval", "from")
    inner = fit.scanner.to_json() | {"noise_std": fit.scan_operator.noise.std}
    for name, unit in UNITS.items():
        if inner.get(name) is None:
            continue
        low, high = fit.intervals.get(name, (None, None))
        interval = f"{low:.3g} to {high:.3g}" if low is not None else ""
        source = "the scan" if name in fit.intervals else "given" if name in fit.known else "default"
        table.add_row(name, f"{inner[name]:.3g} {unit}".strip(), interval, source)
    return table


def structures_table(measured: Sequence[StructureVolume]) -> Table:
    """Volumes of structures with their intervals and confidences, as the command line shows them."""
    table = Table("structure", "side")
    for name in ("ml", "95 % interval", "confidence", "Dice"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in measured:
        low, high = each.interval or (None, None)
        interval = "" if low is None or high is None else f"{low / 1000:.2f} to {high / 1000:.2f}"
        sure = f"{each.confidence:.2f}" if math.isfinite(each.confidence) else "-"
        known = "-" if math.isnan(each.dice) else f"{each.dice:.2f}" if each.reliable else f"{each.dice:.2f}, draft"
        table.add_row(each.structure.name, each.structure.side, f"{each.mm3 / 1000:.2f}", interval, sure, known)
    return table


def contradictions_table(regions: Sequence[Contradiction]) -> Table:
    """The regions of an image that its scan contradicts, as the command line shows them."""
    table = Table("image", "scan is")
    for name in ("right, front, up in mm", "mm3", "scan - image", "std"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in regions:
        place = ", ".join(f"{value:.0f}" for value in each.place_mm)
        table.add_row(each.image, each.scan_is, place, f"{each.mm3:.0f}", f"{each.difference:+.3g}", f"{each.strength:.1f}")
    return table


def volumes_line(volumes: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], slab: bool) -> str:
    """The volumes in one line; empty where there are none."""
    if not volumes:
        return ""
    parts = []
    for tissue, name in NAMES.items():
        ends = intervals.get(tissue)
        known = f" ({ends[0] / 1000:.1f} to {ends[1] / 1000:.1f})" if ends else ""
        parts.append(f"{name} {volumes[tissue] / 1000:.1f}{known}")
    of = "the slab that was scanned" if slab else "the enhanced brain"
    return f"tissue volumes of {of} in ml{' (95 % intervals)' if intervals else ''}: {', '.join(parts)}"


def _mean(entry: dict[str, Any], name: str, digits: int, factor: float = 1.0) -> str:
    return _number(factor * entry[name]["mean"] if name in entry else None, digits)


def _change(entry: dict[str, Any] | None) -> str:
    change = None if entry is None else entry["change_percent"]
    return "-" if change is None else f"{change:+.0f}%"


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
