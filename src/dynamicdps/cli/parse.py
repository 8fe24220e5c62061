"""The words of the command line as a command; what is wrong with them as one sentence."""

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

import tyro

from dynamicdps.cli.commands import Command

PROGRAM = "dynamicdps"
DESCRIPTION = (
    "Enhance low-field and other poor MRI scans without inventing anatomy. Research use only. `dynamicdps --version` prints the version."
)
# What tyro calls the kinds of values.
KINDS = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "STR": "a word"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_POSITIONAL = get_args(tyro.conf.Positional[int])[1]


def parse(words: Sequence[str]) -> Command:
    """The command that the words ask for.

    Raises:
        SystemExit: help was asked for and printed (0), or the words are wrong and one sentence on standard error says so (2).
    """
    try:
        with redirect_stderr(io.StringIO()):
            return _parsed(words)
    except SystemExit as stop:
        if not stop.code:
            raise
    report = io.StringIO()
    with _wide(), redirect_stderr(report), suppress(SystemExit):
        _parsed(words)
    sys.stderr.write(f"{PROGRAM}: {sentence(report.getvalue(), words)}\n")
    raise SystemExit(2)


def _parsed(words: Sequence[str]) -> Command:
    command: Command = tyro.cli(
        Command,
        prog=PROGRAM,
        description=DESCRIPTION,
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    return command


@contextmanager
def _wide() -> Iterator[None]:
    """A terminal so wide that no line of the parser's report is broken."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def sentence(report: str, words: Sequence[str]) -> str:
    """The parser's report, a box of many lines, as one sentence.

    Args:
        report: what the parser prints on a wide terminal.
        words: of the command line.
    """
    command, options, below = _place(words)
    name = command.removeprefix(f"{PROGRAM} ")
    see = f"see {command} --help"
    text = _unframed(report)
    if found := re.search(r"Error parsing (\S+?)(?:/\S+)?: ", text):
        kind = re.search(rf"^ +{re.escape(found[1])} (.+)$", text, re.MULTILINE)
        return f"{found[1]} is {_given(words, found[1])}; expected {_in_words(kind[1] if kind else 'another value')}; {see}"
    if found := re.search(r"invalid choice '(.*)' for argument '(.+?)'\. Expected one of \((.+)\)", text):
        choices = [choice for choice in re.findall(r"'(.*?)'", found[3]) if choice != "None"]
        return f"{found[2]} is {found[1]!r}; expected {' or '.join(sorted(choices))}; {see}"
    if found := re.search(r"Missing value for argument '(.+?)'", text):
        if found[1].startswith("-"):
            return f"{found[1]} has no value; expected one after it; {see}"
        # The parser looks for what has no name first.
        mistyped = [word for word in words if word.startswith("--") and word.partition("=")[0].replace("_", "-") not in options]
        if not mistyped:
            return f"{name} got no {found[1].upper()}; expected one; {see}"
        unknown = mistyped
    else:
        unknown = _unknown(text)
    if unknown and below and unknown[0] not in below:
        word = unknown[0]
        if word.startswith("-"):
            return f"{word} comes before a command; expected one of {', '.join(below)} first; {see}"
        return f"there is no command {word!r}{_meant(word, below)}; expected one of {', '.join(below)}; {see}"
    if option := next((word for word in unknown if word.startswith("-")), ""):
        return f"{name} has no option {option}{_meant(option.partition('=')[0], options)}; expected one that it has; {see}"
    if "Missing from" in text:
        missing = re.findall(r"^ {4}(\S.*)$", text.partition("\n---")[0], re.MULTILINE)
        return f"{name} got no {' and no '.join(each.split()[0] for each in missing)}; expected {' and '.join(missing)}; {see}"
    if unknown:
        return f"{name} does not know what {unknown[0]!r} is; expected no further word; {see}"
    if below:
        return f"there is no command after {command}; expected one of {', '.join(below)}; {see}"
    told = " ".join(text.partition("\n---")[0].split())
    return f"the command line cannot be read ({told}); expected other words; {see}"


def _unframed(report: str) -> str:
    """Without colours, title and frame; lines stay set in, and rulers become ``---``."""
    lines = _COLOUR.sub("", report).splitlines()
    framed = [line[2:-1] for line in lines if line.startswith("│")]
    # Where the terminal knows no such signs, a title and a ruler stand above.
    inner = framed or [line[2:] for line in lines[2:]]
    return "\n".join(re.sub(r"^[─-]{3,}$", "---", line.rstrip()) for line in inner)


def _place(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """The command that words name, as one types it; its options; and the commands that may follow."""
    command, options, below = [PROGRAM], list[str](), _commands(Command)
    for word in words:
        if word not in below:
            break
        command.append(word)
        options, below = _options(below[word])
    return " ".join(command), options, list(below)


def _commands(kind: Any) -> dict[str, Any]:
    """Commands of a union by their names; none of another type."""
    parts = [get_args(part) for part in get_args(kind)]
    return {part[1].name: part[0] for part in parts if len(part) == 2 and is_dataclass(part[0])}


def _options(kind: Any) -> tuple[list[str], dict[str, Any]]:
    """Options of a command, and the commands that may follow it."""
    options: list[str] = []
    hints = get_type_hints(kind, include_extras=True)
    for known in fields(kind):
        if below := _commands(hints[known.name]):
            return [], below
        marks = getattr(hints[known.name], "__metadata__", ())
        if _POSITIONAL in marks:
            continue
        name = next((mark.name for mark in marks if getattr(mark, "name", None)), known.name).replace("_", "-")
        options += [f"--{name}", f"--no-{name}"] if hints[known.name] is bool else [f"--{name}"]
    return options, {}


def _unknown(text: str) -> list[str]:
    """Words that the parser does not know."""
    if found := re.search(r"Unrecognized options: (.+)", text):
        return found[1].split(", ")
    listed = re.search(r"Unrecognized (?:or misplaced )?options:\n((?: +\S.*\n?)+)", text)
    return [line.strip().partition(" (applied to ")[0] for line in listed[1].splitlines()] if listed else []


def _meant(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word.replace("_", "-"), known, n=2, cutoff=0.75)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _given(words: Sequence[str], option: str) -> str:
    """What stands after an option."""
    values: list[str] = []
    here = False
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            here = name.replace("_", "-") == option
            values = [value] if here and equals else [] if here else values
        elif here:
            values.append(word)
    return repr(" ".join(values))


def _in_words(kind: str) -> str:
    """What tyro says of an option's values, such as ``{None}|INT``, in words."""
    kind = kind.removeprefix("{None}|")
    several = re.fullmatch(r"\[(\w+) \[\1 \.\.\.\]\]", kind)
    if several and several[1] in KINDS:
        return KINDS[several[1]].removeprefix("a ") + "s"
    return KINDS.get(kind, kind)
