"""One run at a time on an output folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dynamicdps.errors import InputError

LOCK, HOLDER = "lock", "lock.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends.

    The operating system gives the lock back when its process dies, however it dies. Some network file systems keep locks to one machine;
    so the holder's name is written down too, and a run on another machine that did not end well must be looked after by a person.

    Raises:
        InputError: another run holds it, one on another machine has not ended well, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder.parent} ({error.strerror}); expected a folder of yours; choose another") from error
    here = socket.gethostname()
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{_who(holder)} is working in {folder.parent}; expected one run at a time; wait for it or stop it") from None
    try:
        if holder.is_file() and _host(holder) not in (here, None):
            raise InputError(
                f"{_who(holder)} has not ended its work in {folder.parent}; expected one run at a time; if it is dead, delete {holder}"
            )
        holder.write_text(json.dumps({"host": here, "process": os.getpid()}), encoding="utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
    finally:
        lock.release()


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
