"""Pre-rendered axial slices: what the page shows without JavaScript or WebGL, and on paper."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynamicdps.report.colours import LabelColours, MapColours
from dynamicdps.report.cut import Cut
from dynamicdps.volumes import Volume

MAX_SLIDES = 12
END_MARGIN = 0.06
MAX_PIXELS = 256
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A small picture: its name, the data of its JPEG file in base64, and its size in pixels."""

    name: str
    jpeg: str
    width: int
    height: int


@dataclass(frozen=True)
class Slide:
    """One slice of every volume: where it lies, and its pictures."""

    label: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Layer:
    """A volume to draw.

    Attributes:
        name: what the page calls it.
        volume: any grid.
        window: its values that are black and white, for an image.
        colours: of a map; `None` for an image.
    """

    name: str
    volume: Volume
    window: tuple[float, float]
    colours: MapColours | LabelColours | None = None


def render_slides(layers: Sequence[Layer], grid: Volume, scale: float) -> list[Slide]:
    """Up to twelve axial slices of all layers, on one grid, the front of the head up and its left on the left.

    Args:
        layers: images and maps; on another grid their nearest voxels are shown.
        grid: decides on the slices and the part that is shown.
        scale: its units of one image-intensity unit.
    """
    cut = Cut.through(grid, scale, MAX_SLIDES, END_MARGIN)
    dx, dy, _ = grid.spacing
    drawn = [[_picture(layer, values, dx, dy) for values in cut.of(layer.volume)] for layer in layers]
    return [Slide(label, [pictures[index] for pictures in drawn]) for index, label in enumerate(cut.labels)]


def _picture(layer: Layer, values: NDArray[np.float64], dx: float, dy: float) -> Picture:
    if layer.colours is not None:
        pixels = layer.colours.on_black(values)
    else:
        low, high = layer.window
        grey = np.rint(255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, axis=-1)
    upright = _square_pixels(pixels.transpose(1, 0, 2)[::-1], dx, dy)
    return Picture(layer.name, _jpeg(upright), upright.shape[1], upright.shape[0])


def _square_pixels(pixels: NDArray[np.uint8], dx: float, dy: float) -> NDArray[np.uint8]:
    """Rows along y and columns along x repeated or left out so that pixels are square, at most 256 along a side."""
    height, width = pixels.shape[0] * dy, pixels.shape[1] * dx
    pixel = max(min(dx, dy), max(height, width) / MAX_PIXELS)
    rows = _nearest(pixels.shape[0], dy / pixel)
    columns = _nearest(pixels.shape[1], dx / pixel)
    return np.ascontiguousarray(pixels[rows][:, columns])


def _nearest(count: int, stretch: float) -> NDArray[np.int64]:
    """Indices that draw `count` voxels on `stretch` times as many pixels."""
    places = (np.arange(max(1, round(count * stretch))) + 0.5) / stretch
    return np.minimum(places.astype(np.int64), count - 1)


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, pixels, format="jpeg", pil_kwargs={"quality": JPEG_QUALITY})
    return base64.b64encode(buffer.getvalue()).decode("ascii")
