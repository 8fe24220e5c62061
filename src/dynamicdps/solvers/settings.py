"""A solver's configuration from plain values."""

import math
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from dynamicdps.errors import InputError
from dynamicdps.solvers.registry import find_solver


def make_config(name: str, settings: Mapping[str, Any]) -> Any:
    """A solver's configuration from plain values, as the command line and settings files give them.

    Args:
        name: the solver.
        settings: values by the configuration's field names; what is not named keeps its default.

    Raises:
        InputError: there is no such solver or field, or a value is of the wrong type or out of its range.
    """
    config = find_solver(name)[1]
    known = {f.name: f for f in fields(config)}
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise InputError(f"the solver {name} has no setting {key!r}; expected some of {', '.join(known) or 'none'}; leave it out")
        values[key] = _converted(name, known[key], value)
    try:
        return config(**values)
    except (ValueError, TypeError) as error:
        raise InputError(f"the settings of {name} are wrong ({error}); expected what `{config.__name__}` allows; change them") from error


def _converted(name: str, known: Field[Any], value: Any) -> Any:
    """A plain value as the type of the field's default; text from a command line is read as a number where one is wanted."""
    default: Any = known.default
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    kind: type = float if default is None else type(default)
    wrong = InputError(f"{known.name} of {name} is {value!r}; expected {kinds.get(kind, 'another value')}")
    if kind is bool:
        if str(value).lower() not in {"true", "false"}:
            raise wrong
        return str(value).lower() == "true"
    if kind is str:
        return str(value)
    if isinstance(value, bool):
        raise wrong
    if default is None and (value is None or not isinstance(value, str | int | float)):
        return value
    try:
        number = kind(value)
        fits = math.isfinite(number) and (kind is not int or number == float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error
    if not fits:
        raise wrong
    return number
