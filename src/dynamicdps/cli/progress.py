"""Progress on a terminal and in log files; the library knows only callbacks."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dynamicdps.pipeline.plan import in_minutes

# At least as many seconds lie between two lines of a log.
LINE_SECONDS = 5.0
# Stages of a run in their order, in words.
STAGES = {
    "open": "reading the scan and finding the brain",
    "initial": "scanner and initial image",
    "solve": "solving",
    "volumes": "tissue volumes",
    "write": "maps and files",
}
# What begins, untold, when a stage is over.
FOLLOWED_BY = {"initial": "solve", "volumes": "write"}

console = Console(stderr=True)
out = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print words that may hold file names: brackets in them are no markup."""
    out.print(text, markup=False, emoji=False)


def on_terminal() -> bool:
    """Whether somebody watches; what goes into a file gets lines, on standard output: standard error is for what is wrong."""
    return console.is_terminal and out.is_terminal


class Bar(Protocol):
    """A progress bar as a function of what is done and planned."""

    def __call__(self, done: int, planned: int, note: str = "") -> None: ...


@contextmanager
def progress_bar(label: str, unit: str = "") -> Iterator[Bar]:
    """A bar on standard error, or lines in a log; call what it gives with done and planned."""
    if not on_terminal():
        yield _Lines().bar(label, unit)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    bars = Progress(*columns, console=console)
    task = bars.add_task(label, total=None, note="")

    shown = False

    def update(done: int, planned: int, note: str = "") -> None:
        nonlocal shown
        # Shown from the first update on: whoever gets an error instead sees only its sentence.
        shown = True
        bars.start()
        bars.update(task, completed=done, total=planned, note=note)

    try:
        yield update
    finally:
        # Where nothing was shown, stopping prints an empty line.
        if shown:
            bars.stop()


class StageDisplay:
    """Shows the stages of a run: bars and words on a terminal, elsewhere a line a stage and some while the solver runs.

    Attributes:
        expected: seconds of each stage that is still to come, by name; empty where nobody knows. Lines then say what is left.

    Args:
        label: what the solver is called.
        unit: what its progress counts.
    """

    def __init__(self, label: str, unit: str) -> None:
        self.expected: Mapping[str, float] = {}
        self._label, self._unit = label, unit
        self._shown = ExitStack()
        self._bar: Bar | None = None
        self._lines = None if on_terminal() else _Lines()

    def __call__(self, stage: str, done: int, planned: int) -> None:
        if stage == "solve":
            if self._bar is None:
                self._shown.close()
                self._bar = self._solver_bar()
            self._bar(done, planned)
            return
        self.close()
        begun = FOLLOWED_BY.get(stage, "") if done else stage
        if begun not in STAGES:
            return
        if self._lines is None:
            self._shown.enter_context(console.status(f"{STAGES[begun]} ..."))
            return
        self._lines.say(STAGES[begun], self.expected.get(begun, 0.0) + self._after(begun) if self.expected else None)
        if begun == "solve":
            # Its time runs from here, not from the first part that is done.
            self._bar = self._solver_bar()

    def close(self) -> None:
        """Take away what is shown."""
        self._shown.close()
        self._bar = None

    def _solver_bar(self) -> Bar:
        if self._lines is None:
            return self._shown.enter_context(progress_bar(self._label, self._unit))
        return self._lines.bar(self._label, self._unit, self._after("solve"))

    def _after(self, stage: str) -> float:
        """Expected seconds of the stages after one."""
        names = list(STAGES)
        return sum(self.expected.get(name, 0.0) for name in names[names.index(stage) + 1 :])


@contextmanager
def stage_bars(label: str, unit: str) -> Iterator[StageDisplay]:
    """What shows the stages of a run, in words and bars; it is told of them as `dynamicdps.pipeline.Progress`."""
    display = StageDisplay(label, unit)
    try:
        yield display
    finally:
        display.close()


class _Lines:
    """Progress in a log file: the time since the start, what is done, and about how much time is left."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, words: str, left: float | None = None) -> None:
        ahead = "" if left is None else f", about {in_minutes(left)} left"
        say(f"{_clock(time.monotonic() - self._began)} {words}{ahead}")

    def bar(self, label: str, unit: str, afterwards: float = 0.0) -> Bar:
        """Lines for what a bar would show, at most one in `LINE_SECONDS`, the last one in any case.

        Args:
            label: what is being done.
            unit: what is counted.
            afterwards: seconds of what comes when it is done.
        """
        began, last = time.monotonic(), -math.inf
        first: tuple[int, float] | None = None

        def update(done: int, planned: int, note: str = "") -> None:
            nonlocal last, first
            now = time.monotonic()
            rate = (now - began) / done if done else None
            if first is not None and done > first[0]:
                # The first part prepares what all later ones use.
                rate = (now - first[1]) / (done - first[0])
            first = first or (done, now)
            if now - last < LINE_SECONDS and done < planned:
                return
            last = now
            left = None if rate is None else rate * (planned - done) + afterwards
            counted = " ".join(part for part in (f"{label} {done}/{planned}", unit) if part)
            self.say(f"{counted}, {note}" if note else counted, left if done < planned or afterwards else None)

        return update


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
