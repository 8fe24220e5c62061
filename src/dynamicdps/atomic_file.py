"""Files that are whole or not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a place beside a file to write it to, and move what was written there when the block ends.

    Until then the file is the one before, and so it stays where the block fails: interrupted work leaves no half-written file. A link of
    the file's name is replaced, not written through. The folder is made where it is missing.

    Yields:
        ``.partial-NAME`` in the folder of the file, where nothing lies.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    # A link that lies there would be followed.
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
