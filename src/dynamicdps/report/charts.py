"""Charts as geometry: what the template draws as inline SVG, in the colours of the page's theme, sharp at any size."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

WIDTH, HEIGHT = 480, 300
LEFT, TOP, RIGHT, BOTTOM = 62, 12, 468, 250
TICKS = 5
POINT_RADIUS = 3.2
# Share of a group's width that its bars fill.
BAR_SHARE = 0.8
# A range of values above this many decades asks for a logarithmic axis.
LOG_DECADES = 1.3


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: quantity and unit.
        low: its start; by default the least value shown.
        high: its end; by default the largest value shown.
        log: whether it is logarithmic; `None` decides by the values.
        whole: whether only whole numbers mean something.
    """

    label: str
    low: float | None = None
    high: float | None = None
    log: bool | None = False
    whole: bool = False


@dataclass(frozen=True)
class Series:
    """Values of one thing.

    Attributes:
        label: in the legend; empty for none.
        x: positions.
        y: values; what is not finite is left out.
        low: lower end of a band around them, may be empty.
        high: upper end.
        kind: ``"line"``, ``"points"``, ``"rule"`` (thin and dashed, for reference) or ``"steps"`` (outline of a histogram: `x` has
            one more value than `y`, the edges).
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    kind: str = "line"


@dataclass(frozen=True)
class Mark:
    """A shape: its kind (line, points, band, bar, rule, whisker), the number of its series, and its SVG path."""

    kind: str
    series: int
    path: str


@dataclass(frozen=True)
class Chart:
    """A chart ready to draw; lengths in the units of a picture of 480 x 300.

    Attributes:
        heading: above it.
        caption: below it.
        alt: for those who cannot see it.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        x_ticks: positions and texts.
        y_ticks: likewise.
        marks: from the back to the front.
        legend: kind, number and label of each series.
    """

    heading: str
    caption: str
    alt: str
    x: str
    y: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[Mark]
    legend: list[tuple[str, int, str]]
    width: int = field(default=WIDTH, init=False)
    height: int = field(default=HEIGHT, init=False)
    frame: tuple[int, int, int, int] = field(default=(LEFT, TOP, RIGHT, BOTTOM), init=False)


@dataclass(frozen=True)
class _Scale:
    """Values to positions."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    whole: bool = False

    def __call__(self, value: float) -> float:
        a, b, v = (self._coordinate(n) for n in (self.low, self.high, value))
        share = (v - a) / (b - a)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    def _coordinate(self, value: float) -> float:
        return math.log10(max(value, self.low * 1e-3, 1e-300)) if self.log else value

    def ticks(self) -> list[tuple[float, str]]:
        values = log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, self.whole)
        return [(round(self(v), 2), f"{v:.6g}".replace("-", "\N{MINUS SIGN}")) for v in values]


def line_chart(heading: str, caption: str, alt: str, x: Axis, y: Axis, series: Sequence[Series]) -> Chart:
    """Lines, points and bands over a common frame.

    Args:
        heading: above it.
        caption: below it.
        alt: for those who cannot see it.
        x: horizontal axis.
        y: vertical axis.
        series: from the back to the front.

    Raises:
        ValueError: no series has a finite value.
    """
    across = _scale(x, [v for s in series for v in s.x], LEFT, RIGHT)
    up = _scale(y, [v for s in series for v in (*s.y, *s.low, *s.high)], BOTTOM, TOP)
    marks = [mark for index, s in enumerate(series) for mark in _marks(index, s, across, up)]
    legend = [(s.kind, index, s.label) for index, s in enumerate(series) if s.label]
    return Chart(heading, caption, alt, x.label, y.label, across.ticks(), up.ticks(), marks, legend)


def bar_chart(
    heading: str,
    caption: str,
    alt: str,
    y: Axis,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
) -> Chart:
    """Bars side by side in groups, with whiskers where intervals are known; the vertical axis starts at 0.

    Args:
        heading: above it.
        caption: below it.
        alt: for those who cannot see it.
        y: vertical axis.
        groups: names along the horizontal axis.
        series: a value a group by name; what is not finite is left out.
        intervals: low and high, likewise.

    Raises:
        ValueError: no value is finite.
    """
    known = intervals or {}
    ends = [end for rows in known.values() for row in rows if row is not None for end in row]
    up = _scale(replace(y, low=0.0), [*(v for values in series.values() for v in values), *ends], BOTTOM, TOP)
    group_width = (RIGHT - LEFT) / len(groups)
    width = BAR_SHARE * group_width / len(series)
    marks: list[Mark] = []
    for index, (name, values) in enumerate(series.items()):
        for place, value in enumerate(values):
            if not math.isfinite(value):
                continue
            left = LEFT + (place + 0.5) * group_width + (index - len(series) / 2) * width
            marks.append(Mark("bar", index, _rectangle(left + 0.05 * width, up(value), left + 0.95 * width, BOTTOM)))
            interval = known[name][place] if name in known else None
            if interval is not None:
                middle, low, high, arm = left + width / 2, up(interval[0]), up(interval[1]), 0.18 * width
                marks.append(Mark("whisker", index, f"M{middle:.1f} {low:.1f}V{high:.1f}{_arm(middle, low, arm)}{_arm(middle, high, arm)}"))
    centres = [(LEFT + (place + 0.5) * group_width, name) for place, name in enumerate(groups)]
    legend = [("bar", index, name) for index, name in enumerate(series)]
    return Chart(heading, caption, alt, "", y.label, centres, up.ticks(), marks, legend)


def linear_ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers from `low` to `high`."""
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`, with their 2 and 5 where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 4 else (1, 2, 5)
    stride = max(1, (last - first) // (2 * TICKS) + 1)
    ticks = [m * 10.0**n for n in range(first, last + 1, stride) for m in factors]
    return [t for t in ticks if low * 0.999 <= t <= high * 1.001]


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        raise ValueError(f"the chart of {axis.label!r} has no finite value; expected at least one")
    positive = [v for v in finite if v > 0]
    log = axis.log
    if log is None:
        log = len(positive) == len(finite) and max(finite) > 10**LOG_DECADES * min(finite)
    if log and not positive:
        log = False
    low = axis.low if axis.low is not None else min(positive if log else finite)
    high = axis.high if axis.high is not None else max(finite)
    if log:
        low, high = (low, high) if high > low * 1.2 else (low / 2, high * 2)
        return _Scale(low * 0.9, high * 1.1, start, end, log=True)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        pad = 0.5 * abs(high) or 1.0
        low, high = low - (0 if axis.low is not None else pad), high + pad
    # Room, so that the largest value does not touch the frame.
    room = 0.04 * (high - low)
    low, high = low - (0 if axis.low is not None else room), high + (0 if axis.high is not None else room)
    return _Scale(low, high, start, end, log=False, whole=axis.whole)


def _marks(index: int, series: Series, across: _Scale, up: _Scale) -> Iterator[Mark]:
    if series.kind == "steps":
        yield Mark("line", index, _steps(series, across, up))
        return
    if series.low and series.high:
        rows = zip(series.x, series.low, series.high, strict=True)
        ends = [(across(x), up(low), up(high)) for x, low, high in rows if math.isfinite(low) and math.isfinite(high)]
        if ends:
            outline = [(x, high) for x, _, high in ends] + [(x, low) for x, low, _ in reversed(ends)]
            yield Mark("band", index, _polyline(outline) + "Z")
    points = [(across(x), up(y)) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return
    if series.kind != "points" and len(points) > 1:
        yield Mark(series.kind, index, _polyline(points))
    if series.kind == "points" or (series.kind == "line" and len(points) <= 20):
        yield Mark("points", index, "".join(_circle(x, y) for x, y in points))


def _steps(series: Series, across: _Scale, up: _Scale) -> str:
    path = f"M{across(series.x[0]):.1f} {BOTTOM}"
    for right, value in zip(series.x[1:], series.y, strict=True):
        path += f"V{up(value):.1f}H{across(right):.1f}"
    return path + f"V{BOTTOM}"


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _circle(x: float, y: float) -> str:
    r = POINT_RADIUS
    return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"


def _rectangle(left: float, top: float, right: float, bottom: float) -> str:
    return f"M{left:.1f} {bottom:.1f}V{top:.1f}H{right:.1f}V{bottom:.1f}Z"


def _arm(x: float, y: float, length: float) -> str:
    return f"M{x - length:.1f} {y:.1f}H{x + length:.1f}"
