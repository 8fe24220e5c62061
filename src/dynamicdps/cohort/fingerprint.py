"""What a scan's results depend on, as hashes: work is done again only where one has changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynamicdps.cohort.bids import ENDINGS
from dynamicdps.errors import InputError
from dynamicdps.models.model_file import file_hash

# Beside a scan: its acquisition, and its forward model where it is known.
BESIDE = (".json", ".operator.json")


def hash_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, whatever their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def input_files(scans: Sequence[Path]) -> list[Path]:
    """The scans and what is read beside each, in a fixed order; files that are missing are left out."""
    files = []
    for scan in scans:
        stem = next((scan.name.removesuffix(ending) for ending in ENDINGS if scan.name.endswith(ending)), scan.name)
        files += [scan, *(path for path in (scan.with_name(stem + ending) for ending in BESIDE) if path.is_file())]
    return files


def input_hash(scans: Sequence[Path]) -> str:
    """Hash of the contents of a scan, or of several that are enhanced together, and of what is read beside them.

    Raises:
        InputError: one cannot be read.
    """
    path = scans[0]
    try:
        contents = {}
        for path in input_files(scans):
            contents[path.name] = file_hash(path)
        return hash_of(contents)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror}); expected a file of yours; check it") from error


def input_stamp(scans: Sequence[Path]) -> list[list[int]]:
    """Size and times of the same files: while it stays the same, nothing need be read. The time of change cannot be set by copying."""
    stamps = []
    for path in input_files(scans):
        try:
            stat = path.stat()
        except OSError:
            return []
        stamps.append([stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    return stamps
