"""How far the work is, for whoever wants to show it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """A function that is told how far the work is."""

    def __call__(self, stage: str, done: int, planned: int) -> None:
        """Hear of progress.

        Args:
            stage: ``open``, ``prepare``, ``initial``, ``solve``, ``volumes`` in this order; all but ``solve`` begin with 0 done of 1.
            done: parts of the stage that are done.
            planned: its parts in all.
        """


class Stages:
    """The stages of a run: who is told of them, and how long they took.

    Attributes:
        seconds: by stage, of those that are over.
    """

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    def tell(self, stage: str, done: int, planned: int) -> None:
        if self._progress is not None:
            self._progress(stage, done, planned)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell of a stage's begin and end, and measure it."""
        began = time.monotonic()
        self.tell(name, 0, 1)
        yield
        self.tell(name, 1, 1)
        self.seconds[name] = round(time.monotonic() - began, 3)
