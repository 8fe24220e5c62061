"""What is refused before a command begins: seeds that no generator takes, and results in the place of what they are made from."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from os.path import samefile
from pathlib import Path
from typing import Any

from dynamicdps.cli import commands
from dynamicdps.cli.registry import TABLE
from dynamicdps.diffusion.model_names import known_models
from dynamicdps.errors import InputError
from dynamicdps.output_names import OPERATOR
from dynamicdps.pipeline.provenance import is_file, named_inputs

MAX_SEED = 2**63 - 1


def check(command: Any) -> None:
    """Refuse what no command can do well, before anything is computed or written.

    Args:
        command: one of `dynamicdps.cli.registry.TABLE`.

    Raises:
        InputError: the seed is out of its range, or a file that is read would be written over.
    """
    seed = getattr(command, "seed", 0)
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"--seed is {seed}; expected a whole number from 0 to {MAX_SEED}; change it")
    folder, names = written(command)
    for given, path in _inputs(command) if names else ():
        for name in names:
            if _same(path, folder, name):
                raise InputError(f"{given} is read and would be written over; expected results in another place; change --out")


def written(command: Any) -> tuple[Path, Sequence[str]]:
    """The folder that a command writes into, and the names of what it writes or deletes there; no names where it reads no files."""
    entry, out = TABLE[type(command)], command.folder if isinstance(command, commands.Enhance) else getattr(command, "out", None)
    if out is None:
        return Path(), ()
    if entry.to_file:
        stem = out.name.removesuffix(".gz").rpartition(".")[0] or out.name
        return out.parent, (out.name, *(name.format(stem=stem) for name in entry.to_file))
    fitted = isinstance(command, commands.Enhance) and command.operator == "fit"
    return out, (*entry.writes, OPERATOR) if fitted else entry.writes


def _inputs(command: Any) -> Iterator[tuple[str, Path]]:
    """Files that a command reads, with the words that it was given for them."""
    models = known_models()
    for name, given in named_inputs(vars(command)):
        path = models.get(given, Path(given))
        if not is_file(path):
            continue
        yield given, path
        stem = path.name.removesuffix(".gz").rpartition(".")[0]
        beside = [".json"] if name == "scan" or path.suffix == ".safetensors" else []
        if isinstance(command, commands.Enhance) and name == "scan" and command.operator is None:
            beside.append(".operator.json")
        for ending in beside:
            other = path.with_name(stem + ending)
            if stem and is_file(other):
                yield str(other), other


def _same(path: Path, folder: Path, name: str) -> bool:
    """Whether an input is the file or one of the files that a name stands for, also by links or where case does not count."""
    if "*" not in name and is_file(folder / name):
        return samefile(path, folder / name)
    for place in (path.resolve(), path.parent.resolve() / path.name):
        if place.is_relative_to(folder.resolve()) and fnmatchcase(place.relative_to(folder.resolve()).as_posix(), name):
            return True
    return False
