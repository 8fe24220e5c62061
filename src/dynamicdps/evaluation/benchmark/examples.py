"""Example panels: what the numbers look like in one subject."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.evaluation.benchmark.folder import file_name, read_slice
from dynamicdps.evaluation.benchmark.plotting import WIDTH, new_figure, save
from dynamicdps.evaluation.benchmark.rows import TRUTH
from dynamicdps.evaluation.benchmark.scene import MEASUREMENT
from dynamicdps.evaluation.benchmark.summary import REFERENCES, Measured

MARGIN = 4
TITLE, LINE, GAP = 0.4, 0.3, 0.05


def example_figures(numbers: Measured, folders: Sequence[Path], out: Path) -> list[Path]:
    """One figure a condition: the middle slice of the median subject, and below each image its error, all on one scale.

    Args:
        numbers: of all subjects.
        folders: benchmark folders that may hold the slices (`write_slices`).
        out: where the figures go.
    """
    found = []
    for condition in numbers.conditions:
        subject = median_subject(numbers, condition)
        if subject is None:
            continue
        images = {}
        for name in (TRUTH, MEASUREMENT, *REFERENCES):
            image = next((each for folder in folders if (each := read_slice(folder, subject, condition, name)) is not None), None)
            if image is not None:
                images[name] = image
        if TRUTH in images and len(images) > 2:
            found.append(_panels(images, f"{condition}: {subject}, the median subject", out / f"example-{file_name(condition)}.png"))
    return found


def median_subject(numbers: Measured, condition: str) -> str | None:
    """The subject whose PSNR by DynamicDPS, or by the first other reference that ran, is the (lower) median."""
    for solver in reversed(REFERENCES):
        values = numbers.of(condition, solver, "psnr")
        if values:
            return sorted(values, key=lambda subject: (values[subject], subject))[(len(values) - 1) // 2]
    return None


def _panels(images: Mapping[str, NDArray[np.float32]], title: str, path: Path) -> Path:
    """Truth, measurement and reconstructions, front of the head up; below, the errors of the reconstructions."""
    rows, columns = np.nonzero(images[TRUTH] > 0.02)
    box = (
        tuple(slice(max(0, int(i.min()) - MARGIN), int(i.max()) + 1 + MARGIN) for i in (rows, columns)) if len(rows) else (slice(None),) * 2
    )
    truth = images[TRUTH][box]
    errors = {name: image[box] - truth for name, image in images.items() if name not in (TRUTH, MEASUREMENT)}
    high = max(float(np.nanpercentile(np.abs(error), 99)) for error in errors.values())
    wide = (WIDTH - GAP) / len(images)
    tall = (wide - GAP) * truth.shape[0] / truth.shape[1]
    height = TITLE + 2 * (LINE + tall) + GAP
    figure = new_figure(height, layout=None)
    figure.text(0.5, 1 - TITLE / 2 / height, title, ha="center", va="center", fontsize=12)

    def panel(column: int, bottom: float, title: str) -> Any:
        axes = figure.add_axes(((GAP + column * wide) / WIDTH, bottom / height, (wide - GAP) / WIDTH, tall / height))
        axes.set_title(title, fontsize=10, pad=4)
        axes.set_axis_off()
        return axes

    style: dict[str, Any] = {"origin": "lower", "interpolation": "nearest"}
    drawn: Any = None
    for column, (name, image) in enumerate(images.items()):
        panel(column, GAP + tall + LINE, name).imshow(image[box], cmap="gray", vmin=0, vmax=1, **style)
        if name in errors:
            decibel = -10 * np.log10(np.square(image - images[TRUTH]).mean())
            drawn = panel(column, GAP, f"error, {decibel:.1f} dB").imshow(errors[name], cmap="RdBu_r", vmin=-high, vmax=high, **style)
    # The errors' bar takes the empty places below truth and measurement.
    bar = figure.add_axes((0.12, (GAP + tall / 2) / height, 2 * wide / WIDTH - 0.2, 0.15 / height))
    figure.colorbar(drawn, cax=bar, orientation="horizontal", label="error, image intensity")
    return save(figure, path)
