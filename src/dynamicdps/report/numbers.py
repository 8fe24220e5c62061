"""The numbers of the stages as tables, and the tissue volumes as bars."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynamicdps.evaluation import TISSUES, StageMetrics
from dynamicdps.report.charts import Axis, Chart, bar_chart
from dynamicdps.report.contents import Interval, Stage

UNKNOWN, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
TISSUE_NAMES = {"csf": "CSF", "gm": "grey matter", "wm": "white matter"}
MM3_IN_CM3 = 1000.0


@dataclass(frozen=True)
class Measure:
    """A row of the table: its key, heading, unit, and how a value reads."""

    key: str
    heading: str
    unit: str
    digits: int
    sign: bool = False
    factor: float = 1.0

    def text(self, value: float | None) -> str:
        """A value as the table shows it; a dash where it is unknown."""
        if value is None or math.isnan(value):
            return UNKNOWN
        if math.isinf(value):
            return "∞" if value > 0 else f"{MINUS}∞"
        return f"{self.factor * value:{'+' if self.sign else ''}.{self.digits}f}".replace("-", MINUS)

    def interval(self, ends: Interval | None) -> str:
        """An interval as the table shows it; empty where it is unknown."""
        return "" if ends is None or not all(map(math.isfinite, ends)) else f"{self.text(ends[0])} to {self.text(ends[1])}"


@dataclass(frozen=True)
class Table:
    """Names of the images along the top; a row a measure with a cell an image, each a value and an interval."""

    images: list[str]
    rows: list[tuple[Measure, list[tuple[str, str]]]]


MEASURES = (
    Measure("psnr", "PSNR", "dB", 2),
    Measure("ssim", "SSIM", "", 3),
    Measure("nrmse", "NRMSE", "", 3),
    Measure("data_misfit", "Data misfit", "noise std", 2),
    Measure("csf", "CSF volume error", "%", 1, sign=True, factor=100),
    Measure("gm", "GM volume error", "%", 1, sign=True, factor=100),
    Measure("wm", "WM volume error", "%", 1, sign=True, factor=100),
    Measure("nfe", "Network passes", "an image", 0),
    Measure("seconds", "Time", "s", 1),
)


def metrics_table(stages: Sequence[Stage]) -> Table:
    """What is known of each stage that has numbers: the measures with at least one value."""
    known = [(stage, stage.metrics) for stage in stages if stage.metrics is not None]
    rows = []
    for measure in MEASURES:
        values = [_value(metrics, measure.key) for _, metrics in known]
        if any(value is not None for value in values):
            intervals = [measure.interval(stage.ranges.get(measure.key)) for stage, _ in known]
            rows.append((measure, list(zip(map(measure.text, values), intervals, strict=True))))
    return Table([stage.name for stage, _ in known], rows)


def _value(metrics: StageMetrics, key: str) -> float | None:
    if key in TISSUES:
        return metrics.volume_error.get(key)
    value: float | None = getattr(metrics, key)
    return value


def volumes_table(stages: Sequence[Stage]) -> Table | None:
    """Tissue volumes in cm3 of each stage that has them, and of the truth where the errors tell it; `None` without any."""
    measured = _volumes(stages)
    if not measured:
        return None
    intervals = {stage.name: stage.volume_intervals for stage in stages}
    rows = []
    for tissue, name in TISSUE_NAMES.items():
        measure = Measure(tissue, name, "cm³", 1)
        cells = [
            (measure.text(values.get(tissue)), measure.interval(_in_cm3(intervals.get(image, {}).get(tissue))))
            for image, values in measured.items()
        ]
        rows.append((measure, cells))
    return Table(list(measured), rows)


def structures_table(rows: Sequence[Mapping[str, str]]) -> Table | None:
    """Volumes of the reliable structures in cm3 by side, from the rows of structures.tsv; `None` without any."""
    rows = [row for row in rows if row.get("reliable") != "no"]
    sides = {"left": "left", "right": "right", "n/a": "whole"}
    images = [name for side, name in sides.items() if any(row["side"] == side for row in rows)]
    cells: dict[str, dict[str, tuple[str, str]]] = {}
    for row in rows:
        measure = Measure("", row["structure"], "cm³", 2)
        low, high = (None if row[end] == "n/a" else float(row[end]) for end in ("low", "high"))
        interval = measure.interval(_in_cm3((low, high))) if low is not None and high is not None else ""
        cells.setdefault(row["structure"], {})[sides[row["side"]]] = measure.text(float(row["mm3"]) / MM3_IN_CM3), interval
    if not cells:
        return None
    return Table(images, [(Measure("", name, "cm³", 2), [of.get(image, ("", "")) for image in images]) for name, of in cells.items()])


def volumes_chart(stages: Sequence[Stage], slab: bool = False) -> Chart | None:
    """The same as bars; `None` without any volume greater than 0.

    Args:
        stages: of the report.
        slab: whether they hold a part of the brain only.
    """
    measured = _volumes(stages)
    bars = {name: [values.get(tissue, math.nan) for tissue in TISSUES] for name, values in measured.items()}
    if not any(math.isfinite(v) and v > 0 for values in bars.values() for v in values):
        return None
    whiskers = {s.name: [_in_cm3(s.volume_intervals.get(t)) for t in TISSUES] for s in stages if s.name in bars and s.volume_intervals}
    return bar_chart(
        "CSF, grey and white matter",
        "Volumes of cerebrospinal fluid, grey and white matter inside the brain mask, classified in the same way for every image."
        + (" They are of the slab that was scanned, not of the whole brain." if slab else "")
        + (
            " Whiskers are 95 % intervals over posterior samples: what measurement and prior leave open, not the errors of prior, forward "
            "model or classification."
            if whiskers
            else ""
        ),
        f"Bars of the tissue volumes of: {', '.join(bars)}. The table below has the numbers.",
        Axis("volume in cm³"),
        list(TISSUE_NAMES.values()),
        bars,
        whiskers,
    )


def _volumes(stages: Sequence[Stage]) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    truth: dict[str, float] = {}
    for stage in stages:
        if stage.metrics is not None and stage.metrics.volume_mm3:
            out[stage.name] = {tissue: mm3 / MM3_IN_CM3 for tissue, mm3 in stage.metrics.volume_mm3.items()}
            truth = truth or {tissue: mm3 / MM3_IN_CM3 for tissue, mm3 in stage.metrics.truth_mm3.items()}
    return out | ({"truth": truth} if truth else {})


def _in_cm3(ends: Interval | None) -> Interval | None:
    return None if ends is None else (ends[0] / MM3_IN_CM3, ends[1] / MM3_IN_CM3)
