"""Named degradations: the bundled ones of degradations.json, and those of a user's file of the same format."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import read_json
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.operator import Operator
from dynamicdps.operators.registry import operator_from_json

Kind = TypeVar("Kind", bound=Operator)


def _bundled() -> dict[str, LowField]:
    values = json.loads((files("dynamicdps.operators") / "degradations.json").read_text(encoding="utf-8"))
    return {name: LowField.from_json(each) for name, each in values.items()}


PRESETS = _bundled()


def preset(name: str) -> LowField:
    """A bundled degradation by its name.

    Raises:
        InputError: there is none of that name.
    """
    return choose_degradation(name, PRESETS)


def choose_degradation(name: str, degradations: Mapping[str, Kind]) -> Kind:
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


def read_degradations(path: Path) -> dict[str, Operator]:
    """Degradations of a user's file: a JSON object of operators by name, each as `operator_from_json` reads it.

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
        found[name] = operator_from_json(each, f"{name} in {path}")
    return found
