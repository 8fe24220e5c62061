"""Figures for publications: slices of every image and map side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynamicdps.report.colours import colour_limit
from dynamicdps.report.cut import MAX_SLICES, Cut
from dynamicdps.solvers import Result
from dynamicdps.volumes import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200
PANEL_INCHES, GAP, TITLE_INCHES, BAR_INCHES = 1.7, 0.06, 0.3, 0.42
TEXT_POINTS = 9


@dataclass(frozen=True)
class Panel:
    """A column of the figure: a volume with its colour map, range of values, and the label of its colour bar (empty for none)."""

    volume: Volume
    colours: str
    low: float
    high: float
    label: str = ""


def plot(result: Result, *, measurement: Volume | None = None, truth: Volume | None = None, slices: int = MAX_SLICES) -> "Figure":
    """A figure of a result: one row a slice, one column an image, all images under one window; then the uncertainty.

    Save it with ``figure.savefig("figure.pdf")``.

    Args:
        result: of `dynamicdps.solvers.solve`.
        measurement: the scan, to show it as a first column, voxel by voxel.
        truth: a good scan, to show it and the error; scanner units.
        slices: how many.

    Returns:
        A matplotlib figure, independent of pyplot.
    """
    scale = result.scale.scale
    images = {"measurement": measurement, "initial image": result.initial, "enhanced": result.volume, "truth": truth}
    panels = {name: Panel(volume, "gray", 0, scale) for name, volume in images.items() if volume is not None}
    if truth is not None and truth.shape == result.volume.shape:
        share = result.volume.with_data((result.volume.data - truth.data) / scale)
        high = colour_limit(share.data, 1e-3)
        panels["error"] = Panel(share, "RdBu_r", -high, high, "of the intensity range")
    if result.uncertainty is not None:
        share = result.uncertainty.with_data(result.uncertainty.data / scale)
        panels["uncertainty"] = Panel(share, "viridis", 0, colour_limit(share.data, 1e-3), "of the intensity range")
    return draw(panels, Cut.through(result.volume, scale, slices))


def draw(panels: Mapping[str, Panel], cut: Cut) -> "Figure":
    """Panels by title as the columns of a figure, slices as its rows; the front of the head is up, its left on the left."""
    from matplotlib.figure import Figure

    dx, dy, _ = cut.grid.spacing
    ratio = (cut.y.stop - cut.y.start) * dy / ((cut.x.stop - cut.x.start) * dx)
    tall = PANEL_INCHES * min(2.0, max(0.3, ratio))
    left = 0.3
    bottom = BAR_INCHES if any(panel.label for panel in panels.values()) else GAP
    width = left + len(panels) * (PANEL_INCHES + GAP)
    height = TITLE_INCHES + len(cut.slices) * (tall + GAP) + bottom
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    for column, (title, panel) in enumerate(panels.items()):
        x = left + column * (PANEL_INCHES + GAP)
        _text(figure, (x + PANEL_INCHES / 2) / width, 1 - TITLE_INCHES / 2 / height, title)
        drawn: Any = None
        for row, values in enumerate(cut.of(panel.volume)):
            y = height - TITLE_INCHES - (row + 1) * (tall + GAP) + GAP
            axes = figure.add_axes((x / width, y / height, PANEL_INCHES / width, tall / height))
            drawn = axes.imshow(
                values.T, origin="lower", cmap=panel.colours, vmin=panel.low, vmax=panel.high, interpolation="nearest", aspect=dy / dx
            )
            axes.set_axis_off()
            if column == 0:
                _text(figure, left / 2 / width, (y + tall / 2) / height, cut.labels[row], rotation=90)
        if panel.label:
            place = ((x + 0.15) / width, (bottom - 0.14) / height, (PANEL_INCHES - 0.3) / width, 0.08 / height)
            bar = figure.colorbar(drawn, cax=figure.add_axes(place), orientation="horizontal")
            bar.ax.tick_params(labelsize=TEXT_POINTS - 3, length=2, pad=1)
            bar.set_label(panel.label, fontsize=TEXT_POINTS - 2, labelpad=1)
    return figure


def _text(figure: Any, x: float, y: float, text: str, rotation: float = 0) -> None:
    # parse_math: a dollar sign in a name is no formula.
    figure.text(x, y, text, rotation=rotation, parse_math=False, fontsize=TEXT_POINTS, ha="center", va="center")
