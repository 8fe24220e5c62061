"""What every command leaves behind: run.json."""

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dynamicdps import __version__
from dynamicdps.diffusion.model_file import write_json
from dynamicdps.errors import InputError

PACKAGES = ("torch", "numpy", "nibabel", "monai", "nilearn", "dipy", "safetensors")


class Record:
    """Facts of a run, filled while it goes on.

    Attributes:
        facts: what run.json will hold beside arguments, versions and times.
    """

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.durations: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the seconds of a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.durations[name] = round(time.monotonic() - began, 3)


@contextmanager
def recorded(folder: Path, command: str, arguments: Any, name: str = "run.json") -> Iterator[Record]:
    """Write run.json into a folder when the work inside is done or has failed.

    Args:
        folder: made if it is missing.
        command: name of the command.
        arguments: its dataclass.
        name: file name.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".partial-{name}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); expected a folder of yours; choose another --out") from error
    record = Record()
    began = time.monotonic()
    code = 1
    try:
        yield record
        code = 0
    except InputError:
        code = 2
        raise
    finally:
        facts = {
            "command": command,
            "arguments": {f.name: _plain(getattr(arguments, f.name)) for f in fields(arguments)},
            "argv": sys.argv[1:],
            "version": __version__,
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
            **record.facts,
            "durations": record.durations | {"total": round(time.monotonic() - began, 3)},
            "exit": code,
        }
        write_json(folder / name, facts)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
