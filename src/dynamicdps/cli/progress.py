"""Progress bars; the library knows only callbacks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dynamicdps.pipeline.progress import Progress as StageProgress

console = Console(stderr=True)
out = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print words that may hold file names: brackets in them are no markup."""
    out.print(text, markup=False, emoji=False)


class Bar(Protocol):
    """A progress bar as a function of what is done and planned."""

    def __call__(self, done: int, planned: int, note: str = "") -> None: ...


@contextmanager
def progress_bar(label: str, unit: str = "") -> Iterator[Bar]:
    """A bar on standard error; call what it gives with done and planned."""
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


@contextmanager
def stage_bars(label: str, unit: str) -> Iterator[StageProgress]:
    """A bar for the solver and words for the tissue volumes, one after the other; what it gives is told of the stages of a run."""
    with ExitStack() as shown:
        bar: Bar | None = None

        def update(stage: str, done: int, planned: int) -> None:
            nonlocal bar
            if stage == "solve":
                bar = bar or shown.enter_context(progress_bar(label, unit))
                bar(done, planned)
            elif stage == "volumes":
                shown.close()
                if not done:
                    shown.enter_context(console.status("tissue volumes ..."))

        yield update
