"""The command line: `dynamicdps COMMAND ...`."""

import sys
from collections.abc import Sequence

import tyro

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
    command = tyro.cli(
        Command,
        prog="dynamicdps",
        description=DESCRIPTION,
        args=argv,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    try:
        command.run()
    except InputError as error:
        sys.stderr.write(f"dynamicdps: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("dynamicdps: interrupted; what was finished is kept\n")
        return 130
    return 0
