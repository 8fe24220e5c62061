"""How the values of a map become colours over an image: the same in the viewer, its colour bar and the pre-rendered slices."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    def table(self, stops: Stops) -> dict[str, list[int]]:
        """Stops as a colour map of NiiVue: R, G, B, A and the places I, 0 to 255.

        All but the first entry, which is 0 itself, are opaque: NiiVue does the fading by value.
        """
        colours = (stops[0], *stops)
        places = [0, 1, *np.rint(np.linspace(0, 255, len(stops))).astype(int).tolist()[1:]]
        red, green, blue = (list(channel) for channel in zip(*colours, strict=True))
        return {"R": red, "G": green, "B": blue, "A": [0] + [255] * len(stops), "I": places}


def diverging(low: float, high: float) -> MapColours:
    """Red above 0, blue below."""
    return MapColours(low, high, HOT, COLD)


def rising(low: float, high: float) -> MapColours:
    """Dark violet to yellow above 0."""
    return MapColours(low, high, VIRIDIS)
