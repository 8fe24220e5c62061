"""`dynamicdps report`."""

from typing import TYPE_CHECKING

from dynamicdps.cli.outputs import write_page
from dynamicdps.cli.progress import say
from dynamicdps.errors import InputError

if TYPE_CHECKING:
    from dynamicdps.cli.commands import Report


def run(arguments: "Report") -> None:
    try:
        page = write_page(arguments.folder)
    except OSError as error:
        raise InputError(
            f"cannot write into {arguments.folder} ({error.strerror}); expected an output folder of yours; copy it to a place of yours"
        ) from error
    say(f"{page}")
