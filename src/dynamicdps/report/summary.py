"""A result at a glance for a notebook: three planes and a table."""

import base64
from collections.abc import Mapping, Sequence

import numpy as np

from dynamicdps.evaluation import StageMetrics
from dynamicdps.report.contents import Interval, Stage
from dynamicdps.report.cut import BRAIN_THRESHOLD
from dynamicdps.report.numbers import metrics_table, volumes_table
from dynamicdps.report.page import environment
from dynamicdps.report.thumbnail import small_picture
from dynamicdps.volumes import Volume

PIXELS = 224


def summary_page(
    title: str,
    volume: Volume,
    scale: float,
    stages: Mapping[str, StageMetrics],
    intervals: Mapping[str, Interval],
    warnings: Sequence[str],
) -> str:
    """A piece of HTML that stands on its own: no script, no style of the page around it, no network.

    Args:
        title: its first line.
        volume: what is shown, units of the scan.
        scale: its units of one image-intensity unit.
        stages: numbers by image; the last one is the volume's.
        intervals: 95 %, of the volume's tissues in mm3.
        warnings: sentences.
    """
    names = list(stages)
    shown = [Stage(name, None, stages[name], volume_intervals=intervals if name == names[-1] else {}) for name in names]
    volumes = volumes_table(shown)
    return (
        environment()
        .get_template("summary.html.j2")
        .render(
            title=title,
            pictures=[(plane, base64.b64encode(picture).decode("ascii")) for plane, picture in planes(volume, scale).items()],
            images=names,
            rows=[*metrics_table(shown).rows, *(volumes.rows if volumes else [])],
            warnings=warnings,
        )
    )


def planes(volume: Volume, scale: float) -> dict[str, bytes]:
    """JPEG files of the axial, coronal and sagittal plane through the middle of what a volume shows, left, front and top as in life.

    Args:
        volume: units of the scan.
        scale: its units of one image-intensity unit.
    """
    signal = volume.data > BRAIN_THRESHOLD * scale
    inside = np.argwhere(signal) if signal.any() else np.argwhere(np.ones(volume.shape, bool))
    x, y, z = ((inside.min(0) + inside.max(0)) // 2).tolist()
    dx, dy, dz = volume.spacing
    data = volume.data / scale
    return {
        "axial": small_picture(data[:, :, z], dx, dy, PIXELS),
        "coronal": small_picture(data[:, y], dx, dz, PIXELS),
        "sagittal": small_picture(data[x], dy, dz, PIXELS),
    }
