"""What the viewer shows: images under one window, maps with their colours, and the same as pre-rendered slices."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynamicdps.errors import InputError
from dynamicdps.report.colours import LabelColours, MapColours, colour_limit, diverging, rising
from dynamicdps.report.contents import Report
from dynamicdps.report.cut import BRAIN_THRESHOLD
from dynamicdps.report.embed import Box, Embedded, embed_all
from dynamicdps.report.slides import Layer, Slide, render_slides
from dynamicdps.volumes import IntensityScale, Volume, native_grid, sample

# Grey levels in the window of the images, and from 0 to the last colour of a map, whose colours the eye tells less well apart.
LEVELS = 200
MAP_LEVELS = 100
NOISE_LEVEL = 0.05
# Residuals from which a map covers the image, and that its colours reach at least, in noise standard deviations.
RESIDUAL_LOW, RESIDUAL_HIGH = 3.0, 5.0
FADED_SHARE = 0.25
OUTLINE = "brain outline"


@dataclass(frozen=True)
class Shown:
    """One volume of the viewer.

    Attributes:
        name: on its button.
        volume: its own grid and units.
        level: wanted grey level, in its units.
        caption: what it is.
        colours: of a map; `None` for an image.
        unit: of a map's values.
    """

    name: str
    volume: Volume
    level: float
    caption: str = ""
    colours: MapColours | LabelColours | None = None
    unit: str = ""

    @property
    def decimals(self) -> int:
        """Digits after the point that tell two grey levels apart."""
        return min(12, max(0, 1 - math.floor(math.log10(self.level))))


@dataclass(frozen=True)
class Viewer:
    """The viewer of a page.

    Attributes:
        images: what can be looked at, keys 1 to 9 in this order.
        maps: what can be laid over them.
        embedded: the volumes' text by name.
        slides: the same, pre-rendered.
        settings: what the script needs besides, plain values.
        thinned: how much was left out, in words; empty where nothing was.
    """

    images: list[Shown]
    maps: list[Shown]
    embedded: dict[str, Embedded]
    slides: list[Slide]
    settings: dict[str, Any]
    thinned: str


def make_viewer(report: Report) -> Viewer:
    """Crop, embed and pre-render the volumes of a report."""
    grid = report.truth or _last(report)
    scale = (report.scale or robust_scale(grid)).scale
    images, maps = list(_images(report, scale)), list(_maps(report, scale))
    signal = np.zeros(grid.shape, dtype=bool)
    for shown in images:
        if same_grid(shown.volume, grid):
            signal |= shown.volume.data > BRAIN_THRESHOLD * scale
    box = Box.around(grid, signal)
    if report.measurement is not None:
        # Of a head only the brain is measured; what the estimate's file holds around it is the scan as it was.
        box = box.within(report.measurement)
    cropped = {shown.name: (box.crop(shown.volume), shown.level) for shown in (*images, *maps)}
    embedded = embed_all(cropped)
    layers = [Layer(shown.name, shown.volume, (0.0, scale), shown.colours) for shown in (*images, *maps)]
    centre = [(axis.start + axis.stop - 1) // 2 for axis in (box.x, box.y, box.z)]
    first = _first(images)
    # The image that is shown first where it can be: then no other has to be unpacked for its grid.
    reference = next(i for i in (first, *range(len(images))) if same_grid(images[i].volume, grid))
    settings = {
        "images": [_entry(shown, index) for index, shown in enumerate(images)],
        "maps": [
            _entry(shown, len(images) + index) | ({} if shown.colours is None else shown.colours.entry())
            for index, shown in enumerate(maps)
        ],
        "outline": next((index for index, shown in enumerate(maps) if shown.name == OUTLINE), -1),
        "window": [0.0, scale],
        "reference": reference,
        "first": first,
        "crosshair": [float(v) for v in (grid.affine @ [*centre, 1])[:3]],
    }
    most = max(max(e.every) for e in embedded.values())
    thinned = (
        "" if most == 1 else f"To keep this page small, only every {_ordinal(most)} voxel along long axes is shown; the files hold all."
    )
    return Viewer(images, maps, embedded, render_slides(layers, grid, scale), settings, thinned)


def _images(report: Report, scale: float) -> Iterator[Shown]:
    level, taken = scale / LEVELS, set[str]()
    volumes = [("measurement", report.measurement), *((s.name, s.volume) for s in report.stages), ("truth", report.truth)]
    for name, volume in volumes:
        if volume is not None:
            yield Shown(_unique(name, taken), volume, level)


def _maps(report: Report, scale: float) -> Iterator[Shown]:
    if report.residual is not None:
        high = max(RESIDUAL_HIGH, colour_limit(report.residual.data, RESIDUAL_HIGH))
        yield Shown(
            "residual",
            report.residual,
            NOISE_LEVEL,
            "Measurement minus what the scanner would measure of the image, on the scanner's grid. Noise alone stays mostly within ±2; "
            "connected regions beyond ±3 are structure that the image lacks (red) or adds (blue).",
            diverging(RESIDUAL_LOW, high),
            "standard deviations of the noise",
        )
    if report.uncertainty is not None:
        yield _scaled_map("uncertainty", report.uncertainty, "Standard deviation over posterior samples.", scale)
    if report.hallucination is not None:
        caption = "What the measurement could not have shown (null space of the scanner's forward model): it comes from the models alone."
        yield _scaled_map("hallucination", report.hallucination, caption, scale)
    if report.correction is not None:
        caption = (
            "What one data step adds to the image so that it explains the measurement, as far as the scanner resolves it: red is brighter."
        )
        yield _scaled_map("correction", report.correction, caption, scale)
    last = _last(report)
    if report.truth is not None and same_grid(last, report.truth):
        error = last.with_data(last.data - report.truth.data)
        yield _scaled_map("error", error, "Enhanced image minus the truth: too bright is red, too dark blue.", scale)
    if report.labels is not None:
        yield _structures(report.labels, report.label_names)
    # Last: the numbers of the others are those of their menu.
    if report.brain_mask is not None:
        yield _outline(report.brain_mask, last)


def _structures(labels: Volume, known: Mapping[int, tuple[str, str]]) -> Shown:
    """The labels that there are, recoded for the viewer."""
    there = [number for number in known if (labels.data == number).any()]
    colours = LabelColours(*(tuple(known[number][i] for number in there) for i in (0, 1)))
    coded = np.zeros(labels.shape, np.float32)
    for k, number in enumerate(there, start=1):
        coded[labels.data == number] = colours.value(k)
    caption = "The likeliest structure of each voxel of the enhanced image, by a network trained on label maps."
    return Shown("structures", labels.with_data(coded), 1.0, caption, colours)


def _outline(mask: Volume, grid: Volume) -> Shown:
    """The rim of a brain mask, one voxel wide, on the grid of an image."""
    from scipy import ndimage

    inside = sample(mask.with_data(mask.data > 0.99), native_grid(grid)).data > 0.5
    colours = LabelColours(("brain mask",), ("#ffd926",))
    rim = colours.value(1) * (inside & ~ndimage.binary_erosion(inside))
    return Shown(OUTLINE, grid.with_data(rim), 1.0, "The rim of the brain mask: what is enhanced lies inside it.", colours)


def _scaled_map(name: str, volume: Volume, caption: str, scale: float) -> Shown:
    high = colour_limit(volume.data, 1e-3 * scale)
    signed = bool(np.nanmin(np.where(np.isfinite(volume.data), volume.data, 0)) < 0)
    colours = (diverging if signed else rising)(FADED_SHARE * high, high)
    return Shown(
        name,
        volume,
        high / MAP_LEVELS,
        f"{caption} The last colour is {high / scale:.1%} of the intensity range.",
        colours,
        "scanner units",
    )


def robust_scale(volume: Volume) -> IntensityScale:
    """The robust intensity scale; 1 of an image without signal, which still deserves its page."""
    try:
        return IntensityScale.robust(volume.data)
    except InputError:
        return IntensityScale(1.0)


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes share shape and affine."""
    return a.shape == b.shape and bool(np.allclose(a.affine, b.affine, atol=1e-3))


def _last(report: Report) -> Volume:
    return [stage.volume for stage in report.stages if stage.volume is not None][-1]


def _first(images: list[Shown]) -> int:
    """The estimate: the last image before the truth."""
    return max(index for index, shown in enumerate(images) if shown.name != "truth")


def _unique(name: str, taken: set[str]) -> str:
    """The name, numbered where another has it; taken from now on."""
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name} ({count})", count + 1
    taken.add(unique)
    return unique


def _entry(shown: Shown, index: int) -> dict[str, Any]:
    return {"id": f"volume-{index}", "name": shown.name, "decimals": shown.decimals}


def _ordinal(n: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(n, f"{n}th")
