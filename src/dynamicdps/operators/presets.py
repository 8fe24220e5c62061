"""Scanners by their name or file: the bundled degradations of degradations.json, a user's of the same format, and operator files."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import read_json
from dynamicdps.operators.scan_operator import ScanOperator


def _bundled() -> dict[str, ScanOperator]:
    values = json.loads((files("dynamicdps.operators") / "degradations.json").read_text(encoding="utf-8"))
    return {name: ScanOperator.from_json(each) for name, each in values.items()}


PRESETS = _bundled()


def preset(name: str) -> ScanOperator:
    """A bundled degradation by its name.

    Raises:
        InputError: there is none of that name.
    """
    return choose_degradation(name, PRESETS)


def choose_degradation(name: str, degradations: Mapping[str, ScanOperator]) -> ScanOperator:
    """A degradation by its name.

    Args:
        name: a key.
        degradations: `PRESETS`, with or without those of `read_degradations`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in degradations:
        raise InputError(f"there is no degradation {name!r}; expected one of {', '.join(degradations)}; choose one or give its parameters")
    return degradations[name]


def read_degradations(path: Path) -> dict[str, ScanOperator]:
    """Degradations of a user's file: a JSON object of operators by name, each as `ScanOperator.from_json` reads it.

    An entry may hold a remark, ``"about"``, but no parameter that its operator does not have: a misspelt one would be another degradation.

    Raises:
        InputError: the file is missing or something else, a name is empty or has a slash or a comma, or an entry is no operator.
    """
    expected = 'expected JSON such as {"mine": {"type": "LowField", "gamma": 0.5}}; change --degradations'
    try:
        values: Any = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); {expected}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds something else than degradations by name; {expected}")
    found = {}
    for name, each in values.items():
        if not name.strip() or set(name) & {"/", ","}:
            raise InputError(f"{path} names a degradation {name!r}; expected a name without slash and comma")
        found[name] = ScanOperator.from_json(each, f"{name} in {path}")
    return found


def read_operator(name: str | Path) -> ScanOperator:
    """An operator by the name of a degradation or by its JSON file.

    Raises:
        InputError: there is no such degradation or file, or the file does not describe an operator.
    """
    if str(name) in PRESETS:
        return PRESETS[str(name)]
    path = Path(name)
    if not path.is_file():
        raise InputError(f"there is no operator {str(name)!r}; expected one of {', '.join(PRESETS)} or a JSON file; check the name")
    try:
        return ScanOperator.from_json(read_json(path), str(path))
    except InputError as error:
        if str(path) in str(error):
            raise
        # A parameter out of its range does not know where it comes from.
        raise InputError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as an operator ({reason_of(error)}); expected JSON as `simulate` writes it; see docs/operators.md"
        ) from error
