"""One run at a time on an output folder, or several on subjects of their own."""

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from dynamicdps.errors import InputError

LOCK, HOLDER = "lock", "lock.json"
# Of a subject; a label is letters, digits and +.
SUBJECT_LOCK = "subject-{}.lock"
# A run on some subjects holds the folder's own lock for a moment, to see that nobody has it.
MOMENT_SECONDS = 10.0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends; nobody works on some of its subjects meanwhile.

    The operating system gives the lock back when its process dies, however it dies. Some network file systems keep locks to one machine;
    so the holder's name is written down too, and a run on another machine that did not end well must be looked after by a person.

    Raises:
        InputError: another run holds it or some of its subjects, one on another machine has not ended well, or the folder cannot be
            written.
    """
    with _held(folder):
        for lock in sorted(folder.glob(SUBJECT_LOCK.format("*"))):
            with _taken(lock, lambda: f"another run is working on a subject in {folder.parent}; expected one run at a time; wait for it"):
                pass
        holder = folder / HOLDER
        holder.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}), encoding="utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)


@contextmanager
def locked_subjects(folder: Path, subjects: Iterable[str], seconds: float = MOMENT_SECONDS) -> Iterator[None]:
    """Hold some subjects of a folder until the block ends, beside other runs that hold others.

    A job of a cluster that was killed leaves nothing behind that another job would have to wait for.

    Args:
        folder: of the locks.
        subjects: labels without ``sub-``.
        seconds: to wait for the folder, whose lock such runs hold for a moment.

    Raises:
        InputError: another run holds one of them or the whole folder, or it cannot be written.
    """
    with ExitStack() as held:
        _make(folder)
        for subject in sorted(set(subjects)):
            words = f"another run is working on sub-{subject} in {folder.parent}; expected one a subject; wait for it or stop it"
            held.enter_context(_taken(folder / SUBJECT_LOCK.format(subject), partial(str, words)))
        with _held(folder, seconds):
            pass
        yield


@contextmanager
def _held(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """The folder's own lock, which no run on another machine has left behind."""
    _make(folder)
    holder = folder / HOLDER
    with _taken(
        folder / LOCK,
        lambda: f"{_who(holder)} is working in {folder.parent}; expected one run at a time; wait for it or stop it",
        seconds,
    ):
        if holder.is_file() and _host(holder) not in (socket.gethostname(), None):
            raise InputError(
                f"{_who(holder)} has not ended its work in {folder.parent}; expected one run at a time; if it is dead, delete {holder}"
            )
        yield


@contextmanager
def _taken(path: Path, refusal: Callable[[], str], seconds: float = 0.0) -> Iterator[None]:
    """A lock of the operating system, waited for so long."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise InputError(refusal()) from None
    try:
        yield
    finally:
        lock.release()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder.parent} ({error.strerror}); expected a folder of yours; choose another") from error


def _host(holder: Path) -> str | None:
    try:
        return str(json.loads(holder.read_text(encoding="utf-8"))["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _who(holder: Path) -> str:
    try:
        values = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {values['process']} on {values['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"
