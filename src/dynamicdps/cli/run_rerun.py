"""`dynamicdps rerun`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import torch

from dynamicdps import __version__
from dynamicdps.cli import commands
from dynamicdps.cli.guard import check
from dynamicdps.cli.progress import say
from dynamicdps.cli.record import input_hashes, machine, versions
from dynamicdps.diffusion.model_file import file_hash
from dynamicdps.errors import InputError
from dynamicdps.json_file import read_json

if TYPE_CHECKING:
    from dynamicdps.cli.commands import Rerun

REPEATED: dict[str, type[Any]] = {
    "demo": commands.Demo,
    "enhance": commands.Enhance,
    "simulate": commands.Simulate,
    "train prior": commands.TrainPrior,
    "train unet": commands.TrainUNet,
    "train esrgan": commands.TrainESRGAN,
    "train operator-fit": commands.TrainOperatorFit,
    "sample": commands.Sample,
    "calibrate start": commands.CalibrateStart,
    "calibrate operator": commands.CalibrateOperator,
    "evaluate": commands.Evaluate,
    "benchmark": commands.Benchmark,
}
# Those whose --out is a file.
TO_FILE = ("simulate", "calibrate start", "calibrate operator")
# Results; tables and pages hold times.
COMPARED = (".nii.gz", ".nii", ".safetensors", ".operator.json", ".csv", "metrics.json")
UNTIMED = "seconds"


def run(arguments: "Rerun") -> None:
    record = _read(arguments.run_json)
    name = str(record["command"])
    old = arguments.run_json.absolute().parent
    folder = arguments.out or _new_folder(old)
    if folder.resolve() == old.resolve():
        raise InputError(f"{folder} holds the run that is to be repeated; expected another folder; change --out")
    options = dict(record["arguments"])
    kept = Path(str(options.get("out", "out"))).name
    options["out"] = str(folder / kept) if name in TO_FILE else str(folder)
    repeated = restore(REPEATED[name], options)
    check(repeated)
    doubts = differences(record, input_hashes(repeated))
    for doubt in doubts:
        say(f"differs: {doubt}")
    with _threads(record):
        repeated.run()
    same, other = compare(old, folder)
    say(f"{len(same)} files have the same bytes, {len(other)} have others" + (f": {', '.join(other)}" if other else ""))
    if other and not doubts:
        say("inputs, models, versions and machine are the same: the files of the first run were changed since, or this is a fault of ours")


def _read(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:100]
        raise InputError(f"{path} cannot be read ({reason}); expected a run.json that a command wrote; check the path") from error
    if not isinstance(record, dict) or not isinstance(record.get("arguments"), dict) or record.get("command") not in REPEATED:
        raise InputError(f"{path} is no record of a run that can be repeated; expected one of {', '.join(REPEATED)}; name its run.json")
    return record


def restore(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A command from the arguments of its record; what a newer version has in addition keeps its default.

    Raises:
        InputError: an argument is missing, unknown or of another type.
    """
    hints = get_type_hints(kind)
    known = {each.name for each in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"the record has the argument {unknown[0]!r}; expected those of this version; repeat it with the version that wrote it"
        )
    try:
        return kind(**{name: _value(hints[name], value) for name, value in values.items()})
    except (TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"the record's arguments cannot be used ({reason}); expected what a command wrote; check run.json") from error


def _value(hint: Any, value: Any) -> Any:
    """A plain value as the type that a field has."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and type(None) in parts:
            return None
        return _value(next(part for part in parts if part is not type(None)), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is no list")
        return tuple(_value(parts[0], each) for each in value)
    if parts:  # a choice of words
        if value not in parts:
            raise ValueError(f"{value!r} is none of {', '.join(map(str, parts))}")
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise TypeError(f"{value!r} is no {hint.__name__}")
    return value


def differences(record: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """What is not as it was, a line each.

    Args:
        record: of the run.
        inputs: hashes of files and models now, by name.
    """
    found = []
    before, now = _names(record, "inputs"), dict(inputs)
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            found.append(f"{name} is no longer there")
        elif name not in before:
            found.append(f"{name} was not there")
        elif before[name] != now[name]:
            found.append(f"{name} has other contents (SHA-256 {now[name][:12]}, was {str(before[name])[:12]})")
    pairs = [("dynamicdps", record.get("version"), __version__)]
    for key, values in (("versions", versions()), ("machine", machine())):
        was = _names(record, key)
        # Threads are set as they were.
        pairs += [(name, was.get(name), value) for name, value in values.items() if name != "threads"]
    found += [f"{name} is {value}, was {was}" for name, was, value in pairs if was != value]
    return found


def _names(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    values = record.get(key)
    return dict(values) if isinstance(values, Mapping) else {}


@contextmanager
def _threads(record: Mapping[str, Any]) -> Iterator[None]:
    """As many as the run had: sums depend on them."""
    wanted, now = _names(record, "machine").get("threads"), torch.get_num_threads()
    if isinstance(wanted, int) and 1 <= wanted <= 1024:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(now)


def compare(old: Path, new: Path) -> tuple[list[str], list[str]]:
    """Names of results in both folders that have the same bytes, and of those that have others."""
    same: list[str] = []
    other: list[str] = []
    for path in sorted(new.rglob("*")):
        name = path.relative_to(new).as_posix()
        if path.is_file() and path.name.endswith(COMPARED) and (old / name).is_file():
            (same if _digest(path) == _digest(old / name) else other).append(name)
    return same, other


def _digest(path: Path) -> str:
    if path.name != "metrics.json":
        return file_hash(path)
    try:
        stages = read_json(path)
        for stage in stages.values():
            stage.pop(UNTIMED, None)
        return json.dumps(stages, sort_keys=True)
    except (OSError, ValueError, AttributeError, TypeError):
        return file_hash(path)


def _new_folder(old: Path) -> Path:
    """A folder beside the run's that is not there yet."""
    names = (old.with_name(f"{old.name}-rerun{number}") for number in ("", *map(str, range(2, 1000))))
    return next(name for name in names if not name.exists())
