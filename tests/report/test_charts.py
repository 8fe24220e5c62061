"""Charts put values where they belong."""

import math
import re

import pytest

from dynamicdps.report.charts import BOTTOM, LEFT, RIGHT, TOP, Axis, Series, bar_chart, line_chart, linear_ticks, log_ticks


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]?(-?[\d.]+) (-?[\d.]+)", path)]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (0, 0.3, [0, 0.1, 0.2, 0.3]), (3, 3.4, [3, 3.1, 3.2, 3.3, 3.4])],
)
def test_linear_ticks_are_round_and_inside(low: float, high: float, wanted: list[float]) -> None:
    assert linear_ticks(low, high) == pytest.approx(wanted)


def test_whole_ticks_are_whole() -> None:
    assert linear_ticks(0, 3, whole=True) == [0, 1, 2, 3]


def test_log_ticks() -> None:
    assert log_ticks(0.01, 1) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1])
    assert log_ticks(1, 1e6) == pytest.approx([1, 10, 100, 1e3, 1e4, 1e5, 1e6])


def test_a_line_runs_from_corner_to_corner() -> None:
    chart = line_chart("h", "c", "a", Axis("x", low=0, high=2), Axis("y", low=0, high=10), [Series("s", [0, 1, 2], [0, 5, 10])])
    line = next(mark for mark in chart.marks if mark.kind == "line")
    assert points(line.path) == [(LEFT, BOTTOM), (pytest.approx((LEFT + RIGHT) / 2), pytest.approx((TOP + BOTTOM) / 2)), (RIGHT, TOP)]
    assert chart.y_ticks[0] == (BOTTOM, "0")
    assert chart.y_ticks[-1] == (TOP, "10")


def test_a_decade_has_one_length_on_a_logarithmic_axis() -> None:
    chart = line_chart("h", "c", "a", Axis("x"), Axis("y", log=True), [Series("s", [0, 1, 2], [1, 10, 100])])
    heights = [y for _, y in points(next(mark for mark in chart.marks if mark.kind == "line").path)]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_values_that_are_not_finite_are_left_out() -> None:
    series = Series("s", [0, 1, 2, 3], [1.0, math.nan, 3.0, math.inf], low=[0.5, 1, 2, 2], high=[1.5, math.nan, 4, 5])
    chart = line_chart("h", "c", "a", Axis("x"), Axis("y"), [series])
    kinds = {mark.kind: mark for mark in chart.marks}
    assert len(points(kinds["line"].path)) == 2
    assert len(points(kinds["band"].path)) == 6
    assert "nan" not in "".join(mark.path for mark in chart.marks)
    with pytest.raises(ValueError, match="no finite value"):
        line_chart("h", "c", "a", Axis("x"), Axis("y"), [Series("s", [0.0], [math.nan])])


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-3.0, -3.0], [1e-12, 1e12]])
@pytest.mark.parametrize("log", [None, True, False])
def test_any_values_stay_inside_the_frame(values: list[float], log: bool | None) -> None:
    chart = line_chart("h", "c", "a", Axis("x"), Axis("y", log=log), [Series("s", list(range(len(values))), values, kind="points")])
    for mark in chart.marks:
        for x, y in re.findall(r"M([\d.]+) ([\d.]+)", mark.path):
            assert LEFT - 10 <= float(x) <= RIGHT + 10
            assert TOP - 10 <= float(y) <= BOTTOM + 10


def test_bars_are_as_high_as_their_values() -> None:
    chart = bar_chart("h", "c", "a", Axis("y"), ["p", "q"], {"one": [10.0, 20.0], "two": [math.nan, 40.0]}, {"one": [(8.0, 12.0), None]})
    bars = [mark for mark in chart.marks if mark.kind == "bar"]
    assert [mark.series for mark in bars] == [0, 0, 1]
    heights = [BOTTOM - float(re.search(r"V([\d.]+)H", mark.path)[1]) for mark in bars]  # type: ignore[index]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert heights[2] == pytest.approx(4 * heights[0], abs=0.3)
    (whisker,) = (mark for mark in chart.marks if mark.kind == "whisker")
    low = BOTTOM - points(whisker.path)[0][1]
    assert low == pytest.approx(0.8 * heights[0], abs=0.2)


def test_the_outline_of_a_histogram_encloses_its_area() -> None:
    chart = line_chart("h", "c", "a", Axis("x", low=0, high=2), Axis("y", low=0, high=4), [Series("s", [0, 1, 2], [1, 3], kind="steps")])
    unit = (BOTTOM - TOP) / 4
    assert (
        chart.marks[0].path == f"M{LEFT}.0 {BOTTOM}V{BOTTOM - unit:.1f}H{(LEFT + RIGHT) / 2:.1f}V{BOTTOM - 3 * unit:.1f}H{RIGHT}.0V{BOTTOM}"
    )
