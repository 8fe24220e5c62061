"""Whether there is a file to read at all: known before anything is loaded that could read it."""

from os.path import exists
from pathlib import Path

from dynamicdps.errors import InputError

RAW_SUFFIXES = (".npz", ".h5", ".hdf5")


def check_exists(path: Path, expected: str = "") -> None:
    """Refuse a path at which nothing is.

    Args:
        path: of a file or a folder.
        expected: what should be there, in words; by default what its ending says.

    Raises:
        InputError: there is nothing.
    """
    if exists(path):
        return
    words = expected or ("a file of raw k-space" if path.suffix.lower() in RAW_SUFFIXES else "an image file")
    raise InputError(f"{path} does not exist; expected {words}; check the path")
