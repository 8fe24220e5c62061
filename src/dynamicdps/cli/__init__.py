"""The command line: `dynamicdps COMMAND ...`."""

import sys
from collections.abc import Sequence
from typing import Any

from dynamicdps import __version__
from dynamicdps.cli.command_line import command_line
from dynamicdps.cli.commands import Benchmark, Cohort, Train
from dynamicdps.cli.execute import execute
from dynamicdps.cli.parse import PROGRAM, parse
from dynamicdps.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments and run the command.

    Args:
        argv: arguments without the program's name; by default the process's.

    Returns:
        Exit code: 0 done, 2 the input is wrong (one sentence on standard error), 130 interrupted.

    Raises:
        SystemExit: help was asked for (0), the words are no command (2), or a part of many scans failed (1).
    """
    words = tuple(sys.argv[1:] if argv is None else argv)
    if words == ("--version",):
        sys.stdout.write(f"{PROGRAM} {__version__}\n")
        return 0
    command = parse(words)
    given = command_line.set(words)
    try:
        execute(command)
    except InputError as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{PROGRAM}: interrupted; {left_by(command)}\n")
        return 130
    finally:
        command_line.reset(given)
    return 0


def left_by(command: Any) -> str:
    """What an interrupted command has left, and how to go on."""
    if isinstance(command, Benchmark | Cohort):
        return "what was finished is kept; run the same command again to go on"
    if isinstance(command, Train) and hasattr(training := command.model, "resume") and (training.out / "checkpoint.safetensors").is_file():
        return "the last checkpoint is kept; run the same command with --resume to go on"
    return "it was not finished; run it again"
