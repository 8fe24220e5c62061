"""What is refused before a command begins and before torch is loaded: seeds, paths, and results in the place of their inputs."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from os.path import samefile
from pathlib import Path
from typing import Any

from dynamicdps.cli import commands
from dynamicdps.cli.registry import TABLE
from dynamicdps.errors import InputError
from dynamicdps.models.names import CONDITIONAL_KINDS, known_models, model_path
from dynamicdps.output_names import OPERATOR
from dynamicdps.paths import check_exists
from dynamicdps.pipeline.named_inputs import is_file, named_inputs

# Options that name images or folders of them.
IMAGES = ("scan", "scans", "image", "reconstruction", "truth", "initial", "measurement", "validation")
# Commands that choose a folder where none is named, and fit an operator where none is given.
FITTING = commands.Enhance | commands.Audit
MAX_SEED = 2**63 - 1


def check(command: Any) -> None:
    """Refuse what no command can do well, before anything is computed or written.

    Args:
        command: one of `dynamicdps.cli.registry.TABLE`.

    Raises:
        InputError: the seed is out of its range, an image or a model is not there, or a file that is read would be written over.
    """
    seed = getattr(command, "seed", 0)
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"--seed is {seed}; expected a whole number from 0 to {MAX_SEED}")
    _check_there(command)
    folder, names = written(command)
    for given, path in _inputs(command) if names else ():
        for name in names:
            if _same(path, folder, name):
                raise InputError(f"{given} is read and would be written over; expected results in another place; change --out")


def _check_there(command: Any) -> None:
    """Refuse images that are not there and models that nobody knows: that takes no library that is slow to load."""
    for name in IMAGES:
        value = getattr(command, name, None)
        for path in value if isinstance(value, tuple) else (value,):
            if path is not None:
                check_exists(path)
    # With an initial image nobody asks the conditional model.
    kinds = {"prior": ("prior",)} | ({} if getattr(command, "initial", None) else {"conditional": CONDITIONAL_KINDS})
    for name, of_kind in kinds.items():
        if isinstance(given := getattr(command, name, None), str):
            model_path(given, of_kind)


def written(command: Any) -> tuple[Path, Sequence[str]]:
    """The folder that a command writes into, and the names of what it writes or deletes there; no names where it reads no files."""
    entry, out = TABLE[type(command)], command.folder if isinstance(command, FITTING) else getattr(command, "out", None)
    if out is None:
        return Path(), ()
    if entry.to_file:
        stem = out.name.removesuffix(".gz").rpartition(".")[0] or out.name
        return out.parent, (out.name, *(name.format(stem=stem) for name in entry.to_file))
    fitted = isinstance(command, FITTING) and command.operator == "fit"
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
        if isinstance(command, FITTING) and name == "scan" and command.operator is None:
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
