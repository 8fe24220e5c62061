"""Run a command that has been parsed."""

from dynamicdps.cli.commands import Command, Rerun
from dynamicdps.cli.guard import check
from dynamicdps.cli.registry import chosen, function_of
from dynamicdps.extension import load_extension


def execute(command: Command) -> None:
    """Check a command and run it.

    Raises:
        InputError: what it was given is wrong.
        SystemExit: a part of many scans failed (1).
    """
    each = chosen(command)
    load_extension(getattr(each, "extension", None))
    check(each)
    run = function_of(each)
    # What repeats a command is handed the way to run it.
    if isinstance(each, Rerun):
        run(each, execute)
    else:
        run(each)
