"""A result inside a Jupyter notebook: a viewer where ipyniivue is installed, slices where it is not."""

import io
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dynamicdps.report.embed import pack
from dynamicdps.report.figure import plot
from dynamicdps.report.viewer import LEVELS
from dynamicdps.solvers import Result
from dynamicdps.volumes import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERLAY_OPACITY = 0.5


class Picture:
    """A figure that a notebook shows without pyplot.

    Attributes:
        figure: matplotlib's.
    """

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


def show(result: Result, *, measurement: Volume | None = None, truth: Volume | None = None) -> Any:
    """A result for the last line of a notebook's cell.

    Args:
        result: of `dynamicdps.solvers.solve`.
        measurement: the scan, to show it too.
        truth: a good scan, likewise.

    Returns:
        ipyniivue's widget (``pip install "dynamicdps[notebook]"``): the images in layers, the enhanced one on top, over it the
        uncertainty half transparent; ``widget.volumes[i].opacity`` changes what is seen. Without ipyniivue a `Picture` of `plot`.
    """
    if find_spec("ipyniivue") is None:
        return Picture(plot(result, measurement=measurement, truth=truth))
    from ipyniivue import NiiVue
    from ipyniivue import Volume as Layer

    scale = result.scale.scale
    images = {"measurement": measurement, "truth": truth, "initial": result.initial, "enhanced": result.volume}
    layers = [
        Layer(name=f"{name}.nii.gz", data=pack(volume, scale / LEVELS)[0], colormap="gray", cal_min=0.0, cal_max=scale)
        for name, volume in images.items()
        if volume is not None
    ]
    if result.uncertainty is not None:
        high = max(float(result.uncertainty.data.max()), 1e-3 * scale)
        data = pack(result.uncertainty, high / LEVELS)[0]
        layers.append(Layer(name="uncertainty.nii.gz", data=data, colormap="viridis", cal_min=0.0, cal_max=high, opacity=OVERLAY_OPACITY))
    widget = NiiVue()
    widget.load_volumes(layers)
    return widget
