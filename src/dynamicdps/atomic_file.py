"""Files and folders that are whole or not there."""

import shutil
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
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text; see `atomic_write`. What is no valid text, as a file's name may be, is replaced."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a place beside a folder to write its files to, and move it there when the block ends.

    Until then there is no such folder, or the empty one before, and so it stays where the block fails. The folder above is made where it
    is missing.

    Yields:
        ``.partial-NAME`` in the folder above, an empty folder.

    Raises:
        OSError: a folder cannot be made or written, or `path` is a folder that is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        if path.is_dir():
            path.rmdir()
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    """Where a file or folder is written to, with nothing there."""
    partial = path.with_name(f".partial-{path.name}")
    # A link that lies there would be followed.
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial)
    partial.unlink(missing_ok=True)
    return partial
