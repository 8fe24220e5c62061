"""Pictures of a report: axial slices and maps side by side, bars, curves; each one a PNG."""

import io
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.evaluation import TISSUES
from dynamicdps.volumes import Volume

MAX_SLICES = 3
BRAIN_THRESHOLD = 0.02
MIN_BRAIN_SHARE = 0.05
MARGIN_VOXELS = 4
DPI = 120
PAGE_INCHES = 8.8
MIN_PANEL_INCHES, MAX_PANEL_INCHES = 1.5, 2.3
TEXT_POINTS = 10
# Okabe and Ito's palette, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
TRUTH_COLOUR = "#555555"


@dataclass(frozen=True)
class ColourMap:
    """How values become colours.

    Attributes:
        name: matplotlib's colour map.
        low: value of its first colour.
        high: value of its last colour.
        label: what a colour bar says; empty for no bar.
    """

    name: str
    low: float
    high: float
    label: str = ""


@dataclass(frozen=True)
class Cut:
    """Which slices of which grid are shown, and which part of each.

    Attributes:
        grid: the volume on whose grid everything is shown.
        slices: indices along z.
        x: voxels along x.
        y: voxels along y.
    """

    grid: Volume
    slices: tuple[int, ...]
    x: slice
    y: slice

    @classmethod
    def through(cls, volume: Volume, scale: float) -> "Cut":
        """Up to three slices spread over those that hold signal, cropped to it."""
        signal = volume.data > BRAIN_THRESHOLD * scale
        occupied = np.flatnonzero(signal.mean((0, 1)) >= MIN_BRAIN_SHARE)
        if not len(occupied):
            return cls.whole(volume)
        chosen = np.unique(np.rint(np.quantile(occupied, np.linspace(0.2, 0.8, MAX_SLICES))).astype(int))
        x, y = (_extent(signal.any(axes)) for axes in ((1, 2), (0, 2)))
        return cls(volume, tuple(int(z) for z in chosen), x, y)

    @classmethod
    def whole(cls, volume: Volume) -> "Cut":
        """Up to three slices spread over the volume, uncropped."""
        chosen = np.unique(np.rint((volume.shape[2] - 1) * np.linspace(0.2, 0.8, MAX_SLICES)).astype(int))
        return cls(volume, tuple(int(z) for z in chosen), slice(0, volume.shape[0]), slice(0, volume.shape[1]))

    def of(self, volume: Volume) -> list[NDArray[np.float64]]:
        """The shown part of each slice of a volume, ``(x, y)``: its nearest voxels where it lies on another grid, 0 outside it."""
        return [np.nan_to_num(self._slice(volume, z)).astype(np.float64) for z in self.slices]

    def _slice(self, volume: Volume, z: int) -> NDArray[Any]:
        if volume.shape == self.grid.shape and np.allclose(volume.affine, self.grid.affine, atol=1e-3):
            return volume.data[self.x, self.y, z]
        x, y = np.meshgrid(np.arange(self.x.start, self.x.stop), np.arange(self.y.start, self.y.stop), indexing="ij")
        here = np.stack([x, y, np.full_like(x, z), np.ones_like(x)])
        index = np.einsum("ij,jxy->ixy", np.linalg.inv(volume.affine) @ self.grid.affine, here)[:3]
        size = np.array(volume.shape)[:, None, None]
        # A voxel reaches half its length beyond its centre.
        inside = ((index >= -0.5) & (index <= size - 0.5)).all(0)
        nearest = np.clip(np.rint(index).astype(int), 0, size - 1)
        return np.where(inside, volume.data[tuple(nearest)], 0)

    @property
    def row_labels(self) -> list[str]:
        """Height of each slice above the origin of the scan's coordinates."""
        centre = np.array([(n - 1) / 2 for n in self.grid.shape[:2]])
        heights = [round(float((self.grid.affine @ [*centre, z, 1.0])[2])) for z in self.slices]
        return [f"z = {height} mm".replace("-", "\N{MINUS SIGN}") for height in heights]


def _extent(occupied: Any) -> slice:
    index = np.flatnonzero(occupied)
    return slice(max(0, int(index[0]) - MARGIN_VOXELS), min(len(occupied), int(index[-1]) + 1 + MARGIN_VOXELS))


def draw_slices(columns: Mapping[str, Volume], cut: Cut, colours: ColourMap) -> bytes:
    """One row a slice, one column a volume (a single volume: its slices in one row), the front of the head up and its left on the
    left; PNG.

    Args:
        columns: volumes in the values' units by title.
        cut: what to show of them.
        colours: one scale for all.
    """
    from matplotlib.figure import Figure

    cells = [cut.of(volume) for volume in columns.values()]
    titles, labels = [_wrap(title) for title in columns], cut.row_labels
    if len(cells) == 1:
        cells, titles, labels = [[values] for values in cells[0]], labels, [""]
    dx, dy, _ = cut.grid.spacing
    width_mm, height_mm = (cut.x.stop - cut.x.start) * dx, (cut.y.stop - cut.y.start) * dy
    panel = min(MAX_PANEL_INCHES, max(MIN_PANEL_INCHES, PAGE_INCHES / len(cells)))
    panel_height = panel * min(2.0, max(0.3, height_mm / width_mm))
    gap, top = 0.06, 0.46
    left, right = 0.34 if any(labels) else gap, 1.0 if colours.label else gap
    width = left + len(cells) * (panel + gap) - gap + right
    height = top + len(labels) * (panel_height + gap)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="black")
    image: Any = None
    for column, (title, slices) in enumerate(zip(titles, cells, strict=True)):
        x = left + column * (panel + gap)
        _text(figure, (x + panel / 2) / width, 1 - top / 2 / height, title)
        for row, (label, values) in enumerate(zip(labels, slices, strict=True)):
            y = height - top - (row + 1) * (panel_height + gap) + gap
            axes = figure.add_axes((x / width, y / height, panel / width, panel_height / height))
            image = axes.imshow(values.T, origin="lower", cmap=colours.name, vmin=colours.low, vmax=colours.high, aspect=dy / dx)
            axes.set_axis_off()
            if column == 0:
                _text(figure, left / 2 / width, (y + panel_height / 2) / height, label, rotation=90)
    if colours.label:
        # Not taller than one can take in beside the maps.
        bar_height = min(height - top - 2 * gap, 3.2)
        bottom = (gap + (height - top - gap - bar_height) / 2) / height
        bar = figure.colorbar(image, cax=figure.add_axes(((width - right + 0.1) / width, bottom, 0.14 / width, bar_height / height)))
        bar.set_label(colours.label, color="white", fontsize=TEXT_POINTS)
        bar.ax.tick_params(colors="white", labelsize=TEXT_POINTS - 1)
        bar.outline.set_edgecolor("white")
    return to_png(figure)


def draw_volumes(volumes: Mapping[str, Mapping[str, float]], truth: Mapping[str, float]) -> bytes:
    """Bars of tissue volumes in cm3; PNG.

    Args:
        volumes: mm3 by tissue, by stage.
        truth: mm3 by tissue, may be empty.
    """
    from matplotlib.figure import Figure

    groups = {**volumes, **({"truth": truth} if truth else {})}
    figure = Figure(figsize=(6.4, 3.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(groups)
    for index, (stage, values) in enumerate(groups.items()):
        centre = np.arange(len(TISSUES)) + (index - (len(groups) - 1) / 2) * width
        heights = [_finite(values.get(tissue)) / 1000 for tissue in TISSUES]
        colour = TRUTH_COLOUR if truth and index == len(groups) - 1 else COLOURS[index % len(COLOURS)]
        axes.bar(centre, heights, 0.9 * width, color=colour, label=_wrap(stage))
    axes.set_xticks(range(len(TISSUES)), ["CSF", "grey matter", "white matter"], fontsize=TEXT_POINTS)
    axes.set_ylabel("volume in cm³", fontsize=TEXT_POINTS)
    axes.set_ylim(bottom=0)
    _tidy(axes)
    legend = figure.legend(loc="outside upper center", ncols=min(4, len(groups)), frameon=False, fontsize=TEXT_POINTS)
    for entry in legend.get_texts():
        entry.set_parse_math(False)
    return to_png(figure)


def draw_trace(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Data misfit and noise level by step; PNG.

    Args:
        rows: ``step``, ``misfit``, ``sigma``; what is missing or not finite is left out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), dpi=DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, key, label, colour in ((upper, "misfit", "data misfit", COLOURS[0]), (lower, "sigma", "noise level", COLOURS[5])):
        points = [(row.get("step", index), row[key]) for index, row in enumerate(rows) if math.isfinite(_number(row.get(key)))]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=colour, marker="o", markersize=3.5)
            if min(values) > 0 and max(values) > 20 * min(values):
                axes.set_yscale("log")
        axes.set_ylabel(label, fontsize=TEXT_POINTS)
        _tidy(axes)
    upper.axhline(1, color=TRUTH_COLOUR, linestyle="--", linewidth=1, label="1: as large as the noise")
    upper.legend(frameon=False, fontsize=TEXT_POINTS - 1)
    lower.set_xlabel("step", fontsize=TEXT_POINTS)
    lower.xaxis.get_major_locator().set_params(integer=True)
    return to_png(figure)


def to_png(figure: Any) -> bytes:
    """A figure as PNG; draws it on its own canvas, without matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes here and in full in the page's text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _text(figure: Any, x: float, y: float, text: str, rotation: float = 0) -> None:
    # parse_math: a dollar sign in a name is no formula.
    style = {"color": "white", "fontsize": TEXT_POINTS, "ha": "center", "va": "center"}
    figure.text(x, y, text, rotation=rotation, parse_math=False, **style)


def _wrap(name: str) -> str:
    """At most two short lines."""
    printable = "".join(c if c.isprintable() else " " for c in name)
    lines = textwrap.wrap(printable, 21, max_lines=2, placeholder="…") or [" "]
    return "\n".join(lines)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT_POINTS - 1)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _finite(value: float | None) -> float:
    number = _number(value)
    return number if math.isfinite(number) else 0.0
