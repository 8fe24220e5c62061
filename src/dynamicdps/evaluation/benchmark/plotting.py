"""What the figures share: colours, sizes and files."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dynamicdps.atomic_file import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
WIDTH = 10.0
LARGEST_BYTES = 200_000
# Okabe and Ito 2008 without the yellow that is too faint on white, and darker ones of Tol; blue and vermillion are taken below.
COLOURS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b4c9a", "#8c6d31", "#882255")
MARKERS = "osD^vP*X"
FIXED = {"conditional": ("#555555", "s"), "data-step": ("#0072b2", "^"), "dynamicdps": ("#d55e00", "o")}
CONDITIONS_A_FIGURE = 4


@dataclass(frozen=True)
class Look:
    """Colour and marker of a solver."""

    colour: str
    marker: str


def looks(solvers: Sequence[str]) -> dict[str, Look]:
    """One look a solver; those that every benchmark has always look the same."""
    others = [solver for solver in solvers if solver not in FIXED]
    # Of 7 colours and 8 markers all 56 pairs come once.
    found = {solver: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, solver in enumerate(others)}
    return {solver: Look(*FIXED[solver]) if solver in FIXED else found[solver] for solver in solvers}


def new_figure(height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """A white figure of 1000 pixels' width.

    Args:
        height: in inches of 100 pixels.
        layout: matplotlib's way to place axes; `None` where they are placed by hand.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout=layout)


def grid(figure: "Figure", panels: int, columns: int) -> Iterator[Any]:
    """Axes row by row, as many as panels."""
    rows = -(-panels // columns)
    for index in range(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        yield axes


def save(figure: "Figure", path: Path) -> Path:
    """Write a PNG below 200 kB: with at most 256 colours where it would be larger."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    with atomic_write(path) as partial:
        partial.write_bytes(buffer.getvalue())
        if buffer.tell() > LARGEST_BYTES:
            colours = Image.open(buffer).convert("RGB")
            colours.quantize(256, kmeans=1, dither=Image.Dither.NONE).save(partial, format="png", optimize=True)
    return path


def pages(conditions: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Conditions of one figure with the end of its file's name: empty, then -2, -3."""
    for page, first in enumerate(range(0, len(conditions), CONDITIONS_A_FIGURE), start=1):
        yield "" if page == 1 else f"-{page}", conditions[first : first + CONDITIONS_A_FIGURE]


def legend(figure: "Figure") -> None:
    """One legend below all panels, of the labels of all axes."""
    handles = {label: handle for each in figure.axes for handle, label in zip(*each.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=9, frameon=False)
