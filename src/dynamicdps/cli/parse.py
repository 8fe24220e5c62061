"""The words of the command line as a command; what is wrong with them as one sentence."""

import io
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import UseAppendAction

from dynamicdps.cli.commands import BidsApp, Command, Enhance
from dynamicdps.cli.grouped_help import grouped_help
from dynamicdps.errors import InputError

KINDS: dict[Any, str] = {int: "a whole number", float: "a number", Path: "a path", str: "a word"}
_POSITIONAL = get_args(tyro.conf.Positional[int])[1]


@dataclass(frozen=True)
class Program:
    """A console script.

    Attributes:
        name: what is typed.
        kind: of the commands that its words are read as.
        description: for its help; without it that of the one command.
    """

    name: str
    kind: Any
    description: str | None = None


DYNAMICDPS = Program(
    "dynamicdps",
    Command,
    "Enhance low-field and other poor MRI scans without inventing anatomy. Research use only. `dynamicdps --version` prints the version.",
)
DYNAMICDPS_BIDS = Program("dynamicdps-bids", BidsApp)


def parse(words: Sequence[str], program: Program = DYNAMICDPS) -> Any:
    """The command that the words ask for.

    Raises:
        SystemExit: help was asked for and printed (0), or the words are wrong and one sentence on standard error says so (2).
    """
    try:
        return read_command(words, program)
    except InputError as error:
        sys.stderr.write(f"{program.name}: {error}\n")
        raise SystemExit(2) from None


def read_command(words: Sequence[str], program: Program = DYNAMICDPS) -> Any:
    """The command that the words ask for, of the program's kind.

    Raises:
        InputError: the words are wrong.
        SystemExit: help was asked for and printed (0).
    """
    if program is DYNAMICDPS and tuple(words[:1]) == ("enhance",) and {"-h", "--help"} & set(words):
        sys.stdout.write(grouped_help(Enhance, f"{program.name} enhance"))
        raise SystemExit(0)
    try:
        with redirect_stderr(io.StringIO()):
            found = tyro.cli(
                program.kind,
                prog=program.name,
                description=program.description,
                args=_one_by_one(words, _command_of(words, program)[2]),
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
            )
        # The parser takes any number of scans, also none.
        if not isinstance(found, Enhance) or found.scan:
            return found
    except SystemExit as stop:
        if not stop.code:
            raise
    raise InputError(fault(words, program))


def fault(words: Sequence[str], program: Program = DYNAMICDPS) -> str:
    """What is wrong with words that are no command, as one sentence.

    Found from the commands' own fields: the parser's report is made to be looked at, and changes with its version.
    """
    place, rest, kind = _command_of(words, program)
    command = " ".join(place)
    see = f"see {command} --help"
    if below := _commands(kind):
        return f"{_no_command(command, rest, list(below))}; {see}"
    return f"{_wrong_option(' '.join(place[1:]) or command, rest, _options(kind))}; {see}"


def _command_of(words: Sequence[str], program: Program) -> tuple[list[str], list[str], Any]:
    """The names of the command that words begin with, the words after them, and what these are read as."""
    place, rest = [program.name], list(words)
    kind: Any = program.kind
    while rest and rest[0] in (below := _commands(kind)):
        place.append(rest.pop(0))
        kind = _kind_of(below[place[-1]])
    return place, rest, kind


def _one_by_one(words: Sequence[str], kind: Any) -> list[str]:
    """``--set a b --set c`` as ``--set=a --set=b --set=c``: the parser takes one value after an option that may be repeated."""
    if _commands(kind):
        return list(words)
    repeated = {flag for option in _options(kind) if option.repeated for flag in option.flags}
    out: list[str] = []
    option = ""
    for word in words:
        if _is_flag(word):
            option = word if word.replace("_", "-") in repeated else ""
            if option:
                continue
        out.append(f"{option}={word}" if option else word)
    return out


def _no_command(command: str, rest: Sequence[str], below: Sequence[str]) -> str:
    if not rest:
        return f"there is no command after {command}; expected one of {', '.join(below)}"
    if rest[0].startswith("-"):
        return f"{rest[0]} comes before a command; expected one of {', '.join(below)} first"
    return f"there is no command {rest[0]!r}{_meant(rest[0], below)}; expected one of {', '.join(below)}"


def _wrong_option(command: str, words: Sequence[str], options: Sequence["_Option"]) -> str:
    """What is wrong with the words after a command."""
    named = {flag: option for option in options for flag in option.flags}
    given, loose = _assigned(words, named)
    for word, flag, _ in given:
        if flag not in named:
            return f"{command} has no option {word}{_meant(flag, list(named))}; expected one that it has"
    for _, flag, values in given:
        if len(values) < min(1, named[flag].room) and not named[flag].several:
            return f"{flag} has no value; expected one after it"
        if not named[flag].takes(values):
            return f"{flag} is {' '.join(values)!r}; expected {named[flag].words}"
    places = [option for option in options if option.positional]
    for place, word in zip(places, loose, strict=False):
        if not place.takes([word]):
            return f"{place.short} is {word!r}; expected {place.words}"
    if len(loose) > len(places) and not any(option.several for option in places):
        return f"{command} does not know what {loose[len(places)]!r} is; expected no further word"
    flags = {flag for _, flag, _ in given}
    lacking = [option for option in places[len(loose) :] if option.required]
    lacking += [option for option in options if not option.positional and option.required and not flags & set(option.flags)]
    if lacking:
        return f"{command} got no {' and no '.join(o.short for o in lacking)}; expected {' and '.join(o.long for o in lacking)}"
    return f"{command} cannot be read from {shlex.join(words)!r}; expected other words"


@dataclass(frozen=True)
class _Option:
    """A field of a command as the command line knows it.

    Attributes:
        flags: its names; of a positional one none.
        hint: type of a value.
        several: whether it takes any number of values.
        repeated: whether it may be given more than once, which adds values.
        required: whether it must be given.
        short: what stands for it in a sentence.
        long: the same with its value.
    """

    flags: tuple[str, ...]
    hint: Any
    several: bool
    repeated: bool
    required: bool
    short: str
    long: str

    @property
    def positional(self) -> bool:
        return not self.flags

    @property
    def room(self) -> float:
        """How many values it takes at most."""
        return 0 if self.hint is bool else inf if self.several else 1

    @property
    def words(self) -> str:
        """What values are expected."""
        if get_origin(self.hint) is Literal:
            return " or ".join(sorted(get_args(self.hint)))
        kind = KINDS.get(self.hint, "another value")
        return f"{kind.removeprefix('a ')}s" if self.several else kind

    def takes(self, values: Sequence[str]) -> bool:
        """Whether it takes the values."""
        if get_origin(self.hint) is Literal:
            return all(value in get_args(self.hint) for value in values)
        if self.hint not in (int, float):
            return True
        try:
            return all(self.hint(value) is not None for value in values)
        except ValueError:
            return False


def _options(kind: Any) -> list[_Option]:
    """The options of a command."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for known in fields(kind):
        marks = getattr(hints[known.name], "__metadata__", ())
        plain = get_args(hints[known.name])[0] if marks else hints[known.name]
        parts = [part for part in get_args(plain) if part is not type(None)] if get_origin(plain) in (Union, UnionType) else [plain]
        several = get_origin(parts[0]) is tuple
        hint = get_args(parts[0])[0] if several else parts[0]
        required = known.default is MISSING and known.default_factory is MISSING
        if _POSITIONAL in marks:
            name = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), known.name.upper())
            found.append(_Option((), hint, several, False, required, name.removesuffix("..."), name))
            continue
        name = "--" + next((mark.name for mark in marks if getattr(mark, "name", None)), known.name).replace("_", "-")
        flags = (name, name.replace("--", "--no-", 1)) if hint is bool else (name,)
        repeated = UseAppendAction in marks
        found.append(_Option(flags, hint, several, repeated, required, name, f"{name} {getattr(hint, '__name__', 'VALUE').upper()}"))
    return found


def _commands(kind: Any) -> dict[str, Any]:
    """Commands of a union by their names; none of another type."""
    parts = [get_args(part) for part in get_args(kind)]
    return {part[1].name: part[0] for part in parts if len(part) == 2 and is_dataclass(part[0])}


def _kind_of(command: Any) -> Any:
    """What a command's words are read as: the commands below it, or itself."""
    hints = get_type_hints(command, include_extras=True)
    return next((hint for hint in hints.values() if _commands(hint)), command)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-(\d.*|\.\d.*|)", word)


def _assigned(words: Sequence[str], named: Mapping[str, _Option]) -> tuple[list[tuple[str, str, list[str]]], list[str]]:
    """Options as they were typed, by their names and with their values; and the words that belong to none."""
    given: list[tuple[str, str, list[str]]] = []
    loose: list[str] = []
    room = 0.0
    for word in words:
        if _is_flag(word):
            flag, equals, value = word.partition("=")
            flag = flag.replace("_", "-")
            given.append((word, flag, [value] if equals else []))
            room = 0.0 if equals or flag not in named else named[flag].room
        elif room:
            given[-1][2].append(word)
            room -= 1
        else:
            loose.append(word)
    return given, loose


def _meant(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word.replace("_", "-"), known, n=2, cutoff=0.75)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
