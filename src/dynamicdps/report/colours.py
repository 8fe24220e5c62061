"""How the values of a map become colours over an image: the same in the viewer, its colour bar and the pre-rendered slices."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

LIMIT_PERCENTILE = 99.5

Stops = tuple[tuple[int, int, int], ...]

# From dark to light, so that they can be told apart in grey too.
HOT: Stops = ((150, 20, 10), (235, 85, 35), (255, 200, 120))
COLD: Stops = ((10, 60, 150), (45, 140, 235), (160, 225, 255))
# matplotlib's viridis in five stops.
VIRIDIS: Stops = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


@dataclass(frozen=True)
class MapColours:
    """Colours of a map that is drawn over an image.

    A value's colour follows its size from 0 to `high`. Below `low` the map fades out with ``(value / low)^2``, so that the image shows
    where there is nothing to see. This is what NiiVue calls translucent below the minimum.

    Attributes:
        low: size from which a value covers the image, greater than 0.
        high: size of the last colour, greater than `low`.
        positive: colours of values above 0, evenly spaced from 0 to `high`.
        negative: of values below 0; empty where there are none, then they are not drawn.
    """

    low: float
    high: float
    positive: Stops
    negative: Stops = ()
    names: ClassVar[tuple[str, ...]] = ()

    def rgba(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Colours of values, ``(..., 4)``, red, green, blue and opacity in [0, 1]."""
        values = np.nan_to_num(np.asarray(values, dtype=np.float64))
        size = np.abs(values)
        out = np.zeros((*values.shape, 4))
        for chosen, stops in ((values > 0, self.positive), (values < 0, self.negative)):
            if stops:
                places = np.linspace(0, self.high, len(stops))
                for channel in range(3):
                    out[..., channel] = np.where(chosen, np.interp(size, places, [s[channel] for s in stops]) / 255, out[..., channel])
                out[..., 3] = np.where(chosen, np.minimum(1, size / self.low) ** 2, out[..., 3])
        return out

    def on_black(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Colours over a black ground, ``(..., 3)``, 0 to 255."""
        colours = self.rgba(values)
        return np.rint(255 * colours[..., :3] * colours[..., 3:]).astype(np.uint8)

    def bar(self, count: int = 32) -> list[tuple[str, str]]:
        """Stops of a colour bar over black: share of its length and colour, from the lowest value to the highest."""
        places = np.linspace(-self.high if self.negative else 0.0, self.high, count)
        colours = self.on_black(places)
        shares = np.linspace(0, 100, count)
        return [(f"{share:.1f}%", "#{:02x}{:02x}{:02x}".format(*colour)) for share, colour in zip(shares, colours, strict=True)]

    def entry(self) -> dict[str, Any]:
        """What the viewer needs to draw the map."""
        return {
            "low": self.low,
            "high": self.high,
            "positive": self.table(self.positive),
            "negative": self.table(self.negative) if self.negative else None,
        }

    def table(self, stops: Stops) -> dict[str, list[int]]:
        """Stops as a colour map of NiiVue: R, G, B, A and the places I, 0 to 255.

        All but the first entry, which is 0 itself, are opaque: NiiVue does the fading by value.
        """
        colours = (stops[0], *stops)
        places = [0, 1, *np.rint(np.linspace(0, 255, len(stops))).astype(int).tolist()[1:]]
        red, green, blue = (list(channel) for channel in zip(*colours, strict=True))
        return {"R": red, "G": green, "B": blue, "A": [0] + [255] * len(stops), "I": places}


@dataclass(frozen=True)
class LabelColours:
    """Colours of labels that are drawn over an image: label k, from 1 on, has the value `k * STEP`; 0 is nothing.

    The viewer's table has 256 colours between which it interpolates: values that far apart have one each, whatever it rounds.

    Attributes:
        names: of the labels.
        colours: as ``#rrggbb``.

    Raises:
        ValueError: there are more than 31 labels.
    """

    STEP: ClassVar[int] = 8
    names: tuple[str, ...]
    colours: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colours) or len(self.names) * self.STEP > 252:
            raise ValueError(f"{len(self.names)} labels have {len(self.colours)} colours; expected as many, at most 31")

    def value(self, k: int) -> int:
        """The value of label k."""
        return k * self.STEP

    def on_black(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Colours over a black ground, ``(..., 3)``, 0 to 255."""
        table = np.array([(0, 0, 0), *map(_rgb, self.colours)], np.uint8)
        index = np.rint(np.nan_to_num(np.asarray(values, dtype=np.float64)) / self.STEP).astype(int)
        return np.asarray(table[np.clip(index, 0, len(self.colours))])

    def entry(self) -> dict[str, Any]:
        """What the viewer needs to draw the labels and to say their names."""
        half = self.STEP // 2
        places, colours = [0], [(0, 0, 0)]
        for k, colour in enumerate(self.colours, start=1):
            places += [self.value(k) - half + 1, self.value(k) + half]
            colours += [_rgb(colour)] * 2
        places, colours = [*places, 255], [*colours, colours[-1]]
        red, green, blue = (list(channel) for channel in zip(*colours, strict=True))
        table = {"R": red, "G": green, "B": blue, "A": [0] + [255] * (len(places) - 1), "I": places}
        names = {str(self.value(k)): name for k, name in enumerate(self.names, start=1)}
        return {"low": half, "high": 255, "positive": table, "negative": None, "names": names}

    def key(self) -> list[tuple[str, str]]:
        """Each colour with its name, that of a pair without its side."""
        found: dict[str, str] = {}
        for name, colour in zip(self.names, self.colours, strict=True):
            found.setdefault(colour, name.removeprefix("left ").removeprefix("right "))
        return [(name, colour) for colour, name in found.items()]


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def diverging(low: float, high: float) -> MapColours:
    """Red above 0, blue below."""
    return MapColours(low, high, HOT, COLD)


def rising(low: float, high: float) -> MapColours:
    """Dark violet to yellow above 0."""
    return MapColours(low, high, VIRIDIS)


def colour_limit(data: NDArray[Any], least: float) -> float:
    """The magnitude at which colours end: one that a few voxels do not decide, and not below `least`."""
    values = np.abs(data[np.isfinite(data)])
    return max(float(np.percentile(values, LIMIT_PERCENTILE)) if values.size else 0.0, least)
