"""What every command leaves behind: run.json."""

import hashlib
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from dynamicdps import __version__
from dynamicdps.cli.command_line import command_line
from dynamicdps.diffusion.model_file import file_hash
from dynamicdps.diffusion.model_names import known_models
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json

# Exit code, as shells have it.
INTERRUPTED = 130
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
    """Write run.json into a folder when the work inside is done, has failed or was interrupted.

    Input that is refused leaves no trace: neither another run.json than there was, nor an empty folder. It is recorded only in a folder of
    its own in which it has made something already.

    Args:
        folder: made if it is missing.
        command: name of the command.
        arguments: its dataclass.
        name: file name.

    Raises:
        InputError: the folder cannot be made or written.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _take_away(made)
        raise InputError(f"cannot write into {folder} ({error.strerror}); expected a folder of yours; choose another --out") from error
    record = Record()
    began = time.monotonic()
    code = 1
    inputs: dict[str, str] = {}
    try:
        inputs = input_hashes(arguments)
        yield record
        code = 0
    except InputError:
        code = 2
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    finally:
        _take_away(made if code == 2 else [])
        if code != 2 or (folder in made and folder.exists()):
            facts = {
                "command": command,
                "arguments": {f.name: _plain(getattr(arguments, f.name)) for f in fields(arguments)},
                "argv": list(command_line.get()),
                "version": __version__,
                "versions": versions(),
                "machine": machine(),
                "inputs": inputs,
                **record.facts,
                "durations": record.durations | {"total": round(time.monotonic() - began, 3)},
                "exit": code,
            }
            write_json(folder / name, facts)


def _take_away(made: Iterable[Path]) -> None:
    """Delete folders, the innermost first, that hold nothing."""
    with suppress(OSError):
        for folder in made:
            folder.rmdir()


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """What the last digits of results depend on beside versions; not the machine's name."""
    import torch

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def input_hashes(arguments: Any) -> dict[str, str]:
    """SHA-256 of every file and model that the arguments name, by the name as it was given, and of what is read beside a scan.

    A folder of DICOM files has one hash, of those of its files in their order: their names may say more than they should.
    """
    models = known_models()
    found: dict[str, str] = {}
    for name, each in named_inputs(arguments):
        if each in models:
            found[each] = file_hash(models[each])
        elif name in ("scan", "scans"):
            found |= _scan_hashes(Path(each))
        elif is_file(Path(each)):
            with suppress(OSError):  # whoever reads it says so
                found[each] = file_hash(Path(each))
    return found


def named_inputs(arguments: Any) -> Iterator[tuple[str, str]]:
    """Name and value of every argument that may be a file or a model to read."""
    for known in fields(arguments):
        value = getattr(arguments, known.name)
        if known.name in ("out", "data_name", "name"):
            continue
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, str | Path) and str(each):
                yield known.name, str(each)


def _scan_hashes(scan: Path) -> dict[str, str]:
    try:
        if scan.is_dir():
            files = sorted(path for path in scan.rglob("*") if path.is_file())
            return {str(scan): hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()}
        stem = scan.name.removesuffix(".gz").rpartition(".")[0]
        beside = (scan, *(scan.with_name(stem + ending) for ending in (".json", ".operator.json"))) if stem else (scan,)
        return {str(path): file_hash(path) for path in beside if path.is_file()}
    except OSError:  # whoever reads it says so
        return {}


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # words too long for a name, or with a zero byte
        return False


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
