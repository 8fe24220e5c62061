"""The help of a command with many options: what most runs need first, the rest under headings."""

import ast
import inspect
import shutil
import textwrap
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dynamicdps.cli import commands

WIDEST = 100
# Where explanations begin.
COLUMN = 31
# Headings with the options below them in their order; what a command has beside them comes last.
GROUPS: dict[Any, dict[str, tuple[str, ...]]] = {
    commands.Enhance: {
        "most used": ("out", "quality", "operator", "mask", "initial", "precision", "device"),
        "scans that do not say everything": (
            *("contrast", "series", "volume", "voxel_size", "orientation", "array"),
            *("keep_all", "slice_motion"),
        ),
        "result": ("to", "samples", "grid", "seed", "memory", "dicom", "dicom_stamp"),
        "models and scanner": ("conditional", "prior", "shading"),
        "solver": (
            *("solver", "steps", "estimate", "gradient", "start_quantile", "start_sigma", "start_step", "start_calibration"),
            *("settings", "extension"),
        ),
    }
}
LAST = "further"
METAVARS = {"int": "N", "float": "X", "Path": "PATH", "str": "WORD"}


def grouped_help(kind: Any, name: str) -> str:
    """What ``--help`` prints of a command.

    Args:
        kind: of `GROUPS`.
        name: the words that call it.
    """
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 40)).columns)
    hints, said = get_type_hints(kind, include_extras=True), explanations(kind)
    known = {known.name: known for known in fields(kind)}
    groups = dict(GROUPS[kind])
    marks = {each: getattr(hints[each], "__metadata__", ()) for each in known}
    places = [each for each in known if any(getattr(mark, "metavar", None) for mark in marks[each])]
    grouped = {each for names in groups.values() for each in names}
    groups[LAST] = tuple(each for each in known if each not in grouped and each not in places)
    metavars = {each: next(mark.metavar for mark in marks[each] if getattr(mark, "metavar", None)) for each in places}
    lines = [f"usage: {name} {' '.join(metavars.values())} [OPTIONS]", "", *textwrap.wrap(inspect.getdoc(kind) or "", width), ""]
    for place in places:
        lines += _entry(metavars[place], said[place], width)
    for heading, names in groups.items():
        if names:
            lines += ["", f"{heading}:"]
        for each in names:
            mark = next((mark for mark in marks[each] if getattr(mark, "name", None)), None)
            flag = "--" + (mark.name if mark else each).replace("_", "-")
            words = said.get(each) or (mark.help if mark else "")
            lines += _entry(f"{flag} {_values(hints[each])}".rstrip(), words + _default(known[each], words), width)
    return "\n".join(lines) + "\n"


def explanations(kind: type[Any]) -> dict[str, str]:
    """The strings below a dataclass's fields, of its bases too, by field."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


def _entry(left: str, words: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(words, width - COLUMN)
    head = f"  {left}"
    if len(head) >= COLUMN - 1:
        return [head, *(" " * COLUMN + line for line in wrapped)]
    return [f"{head:<{COLUMN}}{wrapped[0]}", *(" " * COLUMN + line for line in wrapped[1:])]


def _values(hint: Any) -> str:
    """What stands for an option's value."""
    plain = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
    parts = [part for part in get_args(plain) if part is not type(None)] if get_origin(plain) in (Union, UnionType) else [plain]
    if get_origin(parts[0]) is Literal:
        return "|".join(get_args(parts[0]))
    if parts[0] is bool:
        return ""
    if get_origin(parts[0]) is tuple:
        return "NAME=VALUE ..."
    return METAVARS.get(getattr(parts[0], "__name__", ""), "VALUE")


def _default(known: Field[Any], words: str) -> str:
    """The default, where the words do not say it."""
    if known.default in (MISSING, None, ()) or known.default is False or "default" in words:
        return ""
    return f" Default: {known.default}."
