"""`dynamicdps report`."""

from dynamicdps.cli.commands import Report
from dynamicdps.cli.progress import say
from dynamicdps.errors import InputError
from dynamicdps.report import read_report, write_report


def run(arguments: Report) -> None:
    try:
        page = write_report(arguments.folder, read_report(arguments.folder))
    except OSError as error:
        raise InputError(
            f"cannot write into {arguments.folder} ({error.strerror}); expected an output folder of yours; copy it to a place of yours"
        ) from error
    say(f"{page}")
