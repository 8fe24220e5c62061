"""What made a result: arguments, versions, machine, and hashes of what was read."""

import hashlib
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dynamicdps import __version__
from dynamicdps.models.model_file import file_hash
from dynamicdps.models.names import known_models
from dynamicdps.pipeline.named_inputs import is_file, named_inputs

PACKAGES = ("torch", "numpy", "nibabel", "monai", "nilearn", "dipy", "safetensors")


def run_record(
    command: str,
    arguments: Mapping[str, Any],
    argv: list[str],
    facts: Mapping[str, Any],
    durations: Mapping[str, float],
    *,
    inputs: Mapping[str, str],
    exit_code: int = 0,
) -> dict[str, Any]:
    """The contents of ``run.json``.

    Args:
        command: its name.
        arguments: by name; dataclasses and paths become plain values.
        argv: the words after the program's name that repeat it; none where no words do.
        facts: of the result.
        durations: seconds by stage.
        inputs: of `input_hashes`.
        exit_code: 0 done, 1 a fault, 2 wrong input, 130 interrupted.
    """
    return {
        "command": command,
        "arguments": {name: _plain(value[0] if name == "scan" and _is_one(value) else value) for name, value in arguments.items()},
        "argv": argv,
        "version": __version__,
        "versions": versions(),
        "machine": machine(),
        "inputs": dict(inputs),
        **facts,
        "durations": dict(durations),
        "exit": exit_code,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """What the last digits of results depend on beside versions; not the machine's name."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def input_hashes(arguments: Mapping[str, Any]) -> dict[str, str]:
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


def _is_one(value: Any) -> bool:
    """Whether a value is a list of one: of the scans of a head, the only one is named as it is."""
    return isinstance(value, list | tuple) and len(value) == 1


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
