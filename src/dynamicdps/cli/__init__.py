"""The command line: `dynamicdps COMMAND ...`, and the BIDS App `dynamicdps-bids`."""

import sys
from collections.abc import Sequence
from typing import Any

from dynamicdps import __version__
from dynamicdps.cli.command_line import command_line
from dynamicdps.cli.commands import Benchmark, BidsApp, Cohort, Train
from dynamicdps.cli.parse import DYNAMICDPS, DYNAMICDPS_BIDS, Program, parse
from dynamicdps.errors import InputError


def main_bids(argv: Sequence[str] | None = None) -> int:
    """The BIDS App; see `main`."""
    return main(argv, DYNAMICDPS_BIDS)


def main(argv: Sequence[str] | None = None, program: Program = DYNAMICDPS) -> int:
    """Parse arguments and run the command.

    Args:
        argv: arguments without the program's name; by default the process's.
        program: whose arguments they are.

    Returns:
        Exit code: 0 done, 2 the input is wrong (one sentence on standard error), 130 interrupted.

    Raises:
        SystemExit: help was asked for (0), the words are no command (2), or a part of many scans failed (1).
    """
    words = tuple(sys.argv[1:] if argv is None else argv)
    if words == ("--version",):
        sys.stdout.write(f"{program.name} {__version__}\n")
        return 0
    command = parse(words, program)
    given = command_line.set(words)
    try:
        # Torch and more, for which `--help` does not wait.
        from dynamicdps.cli.execute import execute

        execute(command)
    except InputError as error:
        sys.stderr.write(f"{program.name}: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{program.name}: interrupted; {left_by(command)}\n")
        return 130
    finally:
        command_line.reset(given)
    return 0


def left_by(command: Any) -> str:
    """What an interrupted command has left, and how to go on."""
    if isinstance(command, Benchmark | BidsApp | Cohort):
        return "what was finished is kept; run the same command again to go on"
    if isinstance(command, Train) and hasattr(training := command.model, "resume") and (training.out / "checkpoint.safetensors").is_file():
        return "the last checkpoint is kept; run the same command with --resume to go on"
    return "it was not finished; run it again"
