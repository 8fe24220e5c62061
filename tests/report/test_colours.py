"""Colours of maps, and whether the page's own can be told apart."""

import re
from importlib.resources import files

import numpy as np
import pytest

from dynamicdps.report.colours import diverging, rising


def test_a_map_fades_towards_zero_and_covers_from_its_low_value() -> None:
    colours = diverging(2.0, 5.0)
    np.testing.assert_allclose(
        colours.rgba(np.array([-5.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 5.0, 50.0]))[:, 3], [1, 1, 0.25, 0, 0.0625, 0.25, 1, 1, 1]
    )
    above, below = colours.rgba(np.array([4.0, -4.0]))
    assert above[0] > above[2]
    assert below[2] > below[0]
    assert (colours.rgba(np.array([5.0])) == colours.rgba(np.array([99.0]))).all()


def test_a_rising_map_has_no_colour_below_zero_or_where_nothing_is_known() -> None:
    np.testing.assert_array_equal(rising(1.0, 4.0).rgba(np.array([-3.0, np.nan]))[:, 3], [0, 0])


def test_the_bar_shows_the_colours_of_the_map() -> None:
    colours = diverging(2.0, 5.0)
    bar = colours.bar(11)
    assert [place for place, _ in bar][::5] == ["0.0%", "50.0%", "100.0%"]
    assert bar[5][1] == "#000000"
    red, green, blue = colours.on_black(np.array([5.0]))[0]
    assert bar[-1][1] == f"#{red:02x}{green:02x}{blue:02x}"


def test_the_viewer_gets_the_same_stops() -> None:
    colours = rising(1.0, 4.0)
    table = colours.table(colours.positive)
    assert table["I"] == [0, 1, 64, 128, 191, 255]
    assert table["A"] == [0, 255, 255, 255, 255, 255]
    for index, place in enumerate(table["I"][1:], 1):
        shown = 255 * colours.rgba(np.array([4.0 * place / 255]))[0, :3]
        np.testing.assert_allclose(shown, [table[channel][index] for channel in "RGB"], atol=1.5)


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes() -> list[dict[str, str]]:
    text = (files("dynamicdps.report") / "static" / "report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks[:2]]


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(theme: dict[str, str]) -> None:
    """4.5 for text, 3 for what is drawn and for the borders of controls."""
    for text, ground in [("ink", "ground"), ("soft", "ground"), ("ink", "panel"), ("soft", "panel"), ("ink", "warn"), ("link", "ground")]:
        assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
    assert contrast(theme["on-pressed"], theme["pressed"]) >= 4.5
    for drawn in ("edge", "link", "warn-line", *(f"series-{i}" for i in range(7))):
        for ground in ("ground", "panel"):
            assert contrast(theme[drawn], theme[ground]) >= 3, drawn
