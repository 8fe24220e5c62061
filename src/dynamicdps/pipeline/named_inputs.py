"""Which of a command's or a function's arguments are files or models that it reads."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
