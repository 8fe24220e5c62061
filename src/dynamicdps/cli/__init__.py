"""The command line: `dynamicdps COMMAND ...`."""

import sys
from collections.abc import Sequence

import tyro

from dynamicdps.cli.command_line import command_line
from dynamicdps.cli.commands import Command
from dynamicdps.errors import InputError

DESCRIPTION = "Enhance low-field and other poor MRI scans without inventing anatomy. Research use only."


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments and run the command.

    Args:
        argv: arguments without the program's name; by default the process's.

    Returns:
        Exit code: 0 done, 2 the input is wrong (one sentence on standard error), 130 interrupted.
    """
    words = tuple(sys.argv[1:] if argv is None else argv)
    command = tyro.cli(
        Command,
        prog="dynamicdps",
        description=DESCRIPTION,
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    given = command_line.set(words)
    try:
        command.run()
    except InputError as error:
        sys.stderr.write(f"dynamicdps: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("dynamicdps: interrupted; what was finished is kept\n")
        return 130
    finally:
        command_line.reset(given)
    return 0
