"""What every reader owes whoever feeds it: `InputError` or a result, in bounded time and memory, without a warning."""

import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

from dynamicdps.errors import InputError

SECONDS = 5.0
MEGABYTES = 256
LONGEST_MESSAGE = 1500


class HangError(BaseException):
    """No `except Exception` of a reader hides it."""


def cases(count: int) -> settings:
    """The same cases each time, at most so many."""
    return settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
    )


def many(count: int) -> pytest.MarkDecorator:
    """Each test as a fast and as a slow version, by the number of cases."""
    return pytest.mark.parametrize("count", [200, pytest.param(count, marks=pytest.mark.slow)], ids=["fast", "slow"])


def only_input_errors(read: Callable[[], object]) -> object:
    """Call a reader; returns what it gave, or `None` where it refused the input."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise HangError(f"no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                return read()
            except InputError as error:
                message = str(error)
                assert "\n" not in message, message
                assert "expected" in message, message
                assert len(message) < LONGEST_MESSAGE, message[:LONGEST_MESSAGE]
                return None
            finally:
                assert not heard, [str(each.message) for each in heard]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def bounded_memory(megabytes: int = MEGABYTES) -> Iterator[None]:
    """What the process holds at most grows by no more than that; only Linux tells."""
    if sys.platform != "linux":
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_megabytes()
    yield
    grown = _peak_megabytes() - before
    assert grown <= megabytes, f"{grown:.0f} MB more than before"


def _peak_megabytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def seconds_of(read: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.monotonic()
    read()
    return time.monotonic() - began
