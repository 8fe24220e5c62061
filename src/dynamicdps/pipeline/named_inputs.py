"""Which of a command's or a function's arguments are files or models that it reads."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dynamicdps.errors import InputError

# Arguments whose words are neither files nor models that are read.
NO_INPUTS = ("out", "dicom", "data_name", "name")


def named_inputs(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of every argument that may be a file or a model to read."""
    for name, value in arguments.items():
        if name in NO_INPUTS:
            continue
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, str | Path) and str(each):
                yield name, str(each)


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # words too long for a name, or with a zero byte
        return False


def refuse_overwriting(arguments: Mapping[str, Any], written: Iterable[Path]) -> None:
    """Refuse to replace what was read.

    Args:
        arguments: by name, as of `named_inputs`.
        written: files that will be written or removed.

    Raises:
        InputError: one of them was read, such as the scan.
    """
    replaced = {path.resolve() for path in written}
    for _, given in named_inputs(arguments):
        if is_file(Path(given)) and Path(given).resolve() in replaced:
            raise InputError(f"{given} was read and would be written over; expected results in another place; choose another folder")
