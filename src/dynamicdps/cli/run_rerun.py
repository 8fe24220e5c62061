"""`dynamicdps rerun`."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dynamicdps import __version__
from dynamicdps.cli.commands import Command, Enhance, Rerun, Segment
from dynamicdps.cli.guard import check
from dynamicdps.cli.parse import read_command
from dynamicdps.cli.progress import say
from dynamicdps.cli.registry import TABLE, chosen, with_chosen
from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import read_json
from dynamicdps.models.model_file import file_hash
from dynamicdps.output_names import METRICS
from dynamicdps.pipeline.provenance import input_hashes, machine, versions

REPEATED = [entry.name for entry in TABLE.values() if entry.repeatable]
# Results; tables and pages hold times.
COMPARED = (".nii.gz", ".nii", ".safetensors", ".operator.json", ".csv", METRICS)
UNTIMED = "seconds"


def run(arguments: Rerun, execute: Callable[[Command], None]) -> None:
    """Repeat a run.

    Args:
        arguments: of the command.
        execute: what checks and runs a command.

    Raises:
        InputError: the record cannot be used, or the command that it names is refused.
    """
    record = _read(arguments.run_json)
    old = arguments.run_json.absolute().parent
    folder = arguments.out or _new_folder(old)
    if folder.resolve() == old.resolve():
        raise InputError(f"{folder} holds the run that is to be repeated; expected another folder; change --out")
    command = restore(record, folder)
    repeated = chosen(command)
    check(repeated)
    doubts = differences(record, input_hashes(vars(repeated)))
    for doubt in doubts:
        say(f"differs: {doubt}")
    with _threads(record):
        execute(command)
    same, other = compare(old, folder)
    say(f"{len(same)} files have the same bytes, {len(other)} have others" + (f": {', '.join(other)}" if other else ""))
    if other and not doubts:
        say("inputs, models, versions and machine are the same: the files of the first run were changed since, or this is a fault of ours")


def _read(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); expected a run.json that a command wrote; check the path") from error
    if not isinstance(record, dict) or record.get("command") not in REPEATED or not record.get("argv"):
        raise InputError(f"{path} is no record of a run that can be repeated; expected one of {', '.join(REPEATED)}; name its run.json")
    return record


def restore(record: Mapping[str, Any], folder: Path) -> Command:
    """The command that a record's words ask for, with its results in another folder.

    Raises:
        InputError: they are no words of that command.
    """
    name, argv = str(record["command"]), record["argv"]
    try:
        if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
            raise InputError("they are no list of words")
        command = read_command(argv)
        if TABLE[type(chosen(command))].name != name:
            raise InputError(f"they are of {TABLE[type(chosen(command))].name}")
    except (InputError, SystemExit) as error:
        raise InputError(
            f"the record's words of {name} cannot be used ({error}); expected what this version's command line takes; check run.json, or "
            "repeat the run with the version that wrote it"
        ) from error
    each = chosen(command)
    if isinstance(each, Enhance):
        # What goes to an archive went there once.
        each = replace(each, dicom=None, dicom_stamp=False)
    if isinstance(each, Segment):
        each = replace(each, dicom=None)
    moved = replace(each, out=folder / each.out.name if TABLE[type(each)].to_file else folder)
    return with_chosen(command, moved)


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
    if path.name != METRICS:
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
