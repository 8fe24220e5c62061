"""What every command leaves behind: run.json."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from dynamicdps.cli.command_line import command_line
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json
from dynamicdps.output_names import RUN
from dynamicdps.pipeline.provenance import input_hashes, run_record

# Exit code, as shells have it.
INTERRUPTED = 130


class Record:
    """Facts of a run, filled while it goes on.

    Attributes:
        facts: what run.json will hold beside arguments, versions and times.
    """

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.durations: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the seconds of a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.durations[name] = round(time.monotonic() - began, 3)


@contextmanager
def recorded(folder: Path, command: str, arguments: Any, name: str = RUN) -> Iterator[Record]:
    """Write run.json into a folder when the work inside is done, has failed or was interrupted.

    Input that is refused leaves no trace: neither another run.json than there was, nor an empty folder. It is recorded only in a folder of
    its own in which it has made something already.

    Args:
        folder: made if it is missing.
        command: name of the command.
        arguments: its dataclass.
        name: file name.

    Raises:
        InputError: the folder cannot be made or written.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _take_away(made)
        raise InputError(f"cannot write into {folder} ({error.strerror}); expected a folder of yours; choose another --out") from error
    record = Record()
    began = time.monotonic()
    code = 1
    inputs: dict[str, str] = {}
    try:
        inputs = input_hashes(vars(arguments))
        yield record
        code = 0
    except InputError:
        code = 2
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    finally:
        _take_away(made if code == 2 else [])
        if code != 2 or (folder in made and folder.exists()):
            durations = record.durations | {"total": round(time.monotonic() - began, 3)}
            argv = list(command_line.get())
            facts = run_record(command, vars(arguments), argv, record.facts, durations, inputs=inputs, exit_code=code)
            write_json(folder / name, facts)


def _take_away(made: Iterable[Path]) -> None:
    """Delete folders, the innermost first, that hold nothing."""
    with suppress(OSError):
        for folder in made:
            folder.rmdir()
