"""One HTML page that shows a run: warnings, numbers, pictures, settings."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from dynamicdps import __version__
from dynamicdps.errors import InputError
from dynamicdps.evaluation import StageMetrics
from dynamicdps.report.panels import ColourMap, Cut, draw_slices, draw_trace, draw_volumes
from dynamicdps.volumes import IntensityScale, Volume

NAME = "report.html"
UNKNOWN, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
# Of a picture's natural size; smaller, its text would be under 11 CSS pixels high.
MIN_ZOOM = 0.65


@dataclass(frozen=True)
class Stage:
    """One image on the way.

    Attributes:
        name: what the page calls it.
        volume: scanner units.
        metrics: its numbers, where known.
    """

    name: str
    volume: Volume
    metrics: StageMetrics | None = None


@dataclass(frozen=True)
class Report:
    """What the page shows. What is not given is left out.

    Attributes:
        title: heading.
        stages: images in their order, at least one; the last one's grid is the page's where there is no truth.
        warnings: sentences, shown first.
        truth: scanner units.
        measurement: scanner units, scanner's grid.
        residual: ``(y - A(x)) / noise_std``, scanner's grid.
        uncertainty: standard deviation over samples, scanner units.
        trace: a row a step, ``step``, ``misfit``, ``sigma``, ``step_length``.
        settings: what was asked for.
        command: how to get the same again.
        scale: to image intensities, for every picture; by default robust, of the truth or else of the last stage.
    """

    title: str
    stages: Sequence[Stage]
    warnings: Sequence[str] = ()
    truth: Volume | None = None
    measurement: Volume | None = None
    residual: Volume | None = None
    uncertainty: Volume | None = None
    trace: Sequence[Mapping[str, float]] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    scale: IntensityScale | None = None


@dataclass(frozen=True)
class Picture:
    """A picture and its words.

    Attributes:
        heading: above it.
        caption: below it.
        alt: in its place, for those who cannot see it.
        png: base64.
        min_width: CSS pixels below which its text is too small to read; narrower windows scroll it.
        dark: whether its ground is black.
    """

    heading: str
    caption: str
    alt: str
    png: str
    min_width: int
    dark: bool = True


@dataclass(frozen=True)
class Column:
    """A column of the table: heading, unit, and how a stage's value reads."""

    heading: str
    unit: str
    digits: int
    sign: bool = False
    factor: float = 1.0


def write_report(folder: Path, report: Report) -> Path:
    """Write ``report.html``: one file that needs no other and asks no network.

    Args:
        folder: made if missing.
        report: what to show.

    Returns:
        The file.

    Raises:
        ValueError: there is no stage.
        InputError: no scale is given and none follows from the images.
    """
    if not report.stages:
        raise ValueError("the report has no stage; expected at least one image")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("dynamicdps.report").joinpath(f"{NAME}.j2").read_text(encoding="utf-8"))
    columns, rows = metrics_table(report.stages)
    page = template.render(report=report, columns=columns, rows=rows, pictures=pictures(report), version=__version__)
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / NAME, folder / f".partial-{NAME}"
    try:
        # "replace": a file name that is no valid text must not stop the page.
        partial.write_text(page, encoding="utf-8", errors="replace")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def metrics_table(stages: Sequence[Stage]) -> tuple[list[Column], list[tuple[str, list[str]]]]:
    """Columns with at least one value, and the stages' names with their cells."""
    tissues = {"csf": "CSF volume error", "gm": "GM volume error", "wm": "WM volume error"}
    known = [stage.metrics or StageMetrics() for stage in stages]
    columns: dict[Column, list[float | None]] = {
        Column("PSNR", "dB", 2): [m.psnr for m in known],
        Column("SSIM", "", 3): [m.ssim for m in known],
        Column("NRMSE", "", 3): [m.nrmse for m in known],
        Column("Data misfit", "noise std", 2): [m.data_misfit for m in known],
        **{Column(heading, "%", 1, sign=True, factor=100): [m.volume_error.get(key) for m in known] for key, heading in tissues.items()},
        Column("Network passes", "an image", 0): [m.nfe for m in known],
        Column("Time", "s", 1): [m.seconds for m in known],
    }
    shown = {column: values for column, values in columns.items() if any(value is not None for value in values)}
    cells = [[_cell(column, values[index]) for column, values in shown.items()] for index in range(len(stages))]
    return list(shown), [(stage.name, row) for stage, row in zip(stages, cells, strict=True) if stage.metrics is not None]


def _cell(column: Column, value: float | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{column.factor * value:{'+' if column.sign else ''}.{column.digits}f}"
    return text.replace("-", MINUS)


def pictures(report: Report) -> list[Picture]:
    """Everything that the report's data allow, in the order of the page."""
    last = report.stages[-1].volume
    grid = report.truth or last
    scale = report.scale or _scale(grid)
    cut = Cut.through(grid, scale.scale)
    images = {"measurement": report.measurement} if report.measurement else {}
    images |= {_unique(stage.name, images): stage.volume for stage in report.stages}
    images |= {"truth": report.truth} if report.truth else {}
    names = ", ".join(images)
    out = [
        _picture(
            "Images",
            "Axial slices, all with the same grey scale; the front of the head is up, its left is on the left. The measurement is shown "
            "voxel by voxel, without interpolation."
            if report.measurement
            else "Axial slices, all with the same grey scale; the front of the head is up, its left is on the left.",
            f"Axial slices of: {names}.",
            draw_slices({name: scale.apply(volume) for name, volume in images.items()}, cut, ColourMap("gray", 0, 1)),
        )
    ]
    if report.truth:
        out.append(_errors(report, report.truth, cut, scale))
    if report.residual:
        limit = max(3.0, _high(report.residual.data))
        out.append(
            _picture(
                "What the measurement does not support",
                "Measurement minus what the scanner would measure of the image, in noise standard deviations, on the scanner's grid. "
                "Noise alone stays mostly within ±2; connected regions beyond ±3 are structure that the image adds (blue) or lacks (red).",
                "Map of the standardised residual between the measurement and the enhanced image.",
                draw_slices(
                    {"residual": report.residual},
                    Cut.whole(report.residual),
                    ColourMap("RdBu_r", -limit, limit, "noise standard deviations"),
                ),
            )
        )
    if report.uncertainty:
        spread = scale.apply(report.uncertainty)
        out.append(
            _picture(
                "Uncertainty",
                "Standard deviation over posterior samples, as a share of the intensity range.",
                "Map of the standard deviation over posterior samples.",
                draw_slices({"uncertainty": spread}, cut, ColourMap("viridis", 0, _high(spread.data), "share of intensity range")),
            )
        )
    known = [stage for stage in report.stages if stage.metrics is not None and stage.metrics.volume_mm3]
    if known:
        out.append(_volumes(known))
    if report.trace:
        out.append(
            _picture(
                "Steps of the solver",
                "Data misfit (root mean square of the residual in noise standard deviations) and noise level of the diffusion by step.",
                f"Curves of data misfit and noise level over {len(report.trace)} steps.",
                draw_trace(report.trace),
                dark=False,
            )
        )
    return out


def _errors(report: Report, truth: Volume, cut: Cut, scale: IntensityScale) -> Picture:
    maps: dict[str, Volume] = {}
    wanted, absolute = cut.of(scale.apply(truth)), 0.0
    for stage in report.stages:
        # Differences of the shown slices only, so that a stage on another grid needs no resampling of the whole volume.
        shown = np.zeros(cut.grid.shape, dtype=np.float32)
        for z, a, b in zip(cut.slices, cut.of(scale.apply(stage.volume)), wanted, strict=True):
            shown[cut.x, cut.y, z] = np.abs(a - b)
        absolute = max(absolute, _high(shown[..., list(cut.slices)]))
        maps[_unique(stage.name, maps)] = cut.grid.with_data(shown)
    return _picture(
        "Error",
        "Absolute difference from the truth, on one scale, as a share of the intensity range.",
        f"Maps of the absolute difference from the truth of: {', '.join(maps)}.",
        draw_slices(maps, cut, ColourMap("magma", 0, absolute, "share of intensity range")),
    )


def _volumes(stages: Sequence[Stage]) -> Picture:
    volumes: dict[str, Mapping[str, float]] = {}
    truth: dict[str, float] = {}
    for stage in stages:
        if stage.metrics is not None:
            volumes[_unique(stage.name, volumes)] = stage.metrics.volume_mm3
            truth = truth or stage.metrics.truth_mm3
    return _picture(
        "Tissue volumes",
        "Volumes of cerebrospinal fluid, grey and white matter inside the brain mask, classified in the same way for every image.",
        f"Bars of tissue volumes of: {', '.join(volumes)}{' and the truth' if truth else ''}.",
        draw_volumes(volumes, truth),
        dark=False,
    )


def _scale(volume: Volume) -> IntensityScale:
    try:
        return IntensityScale.robust(volume.data)
    except InputError:
        # An image without signal still deserves its page.
        return IntensityScale(1.0)


def _high(data: Any) -> float:
    """A limit for colours that a few voxels do not decide."""
    values = np.abs(data[np.isfinite(data)])
    return max(float(np.percentile(values, 99.5)) if values.size else 0.0, 1e-3)


def _unique(name: str, taken: Mapping[str, object]) -> str:
    """The name, numbered where another has it."""
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name} ({count})", count + 1
    return unique


def _picture(heading: str, caption: str, alt: str, png: bytes, *, dark: bool = True) -> Picture:
    # A PNG's width stands in bytes 16 to 20.
    min_width = round(MIN_ZOOM * int.from_bytes(png[16:20], "big"))
    return Picture(heading, caption, alt, base64.b64encode(png).decode("ascii"), min_width, dark)
