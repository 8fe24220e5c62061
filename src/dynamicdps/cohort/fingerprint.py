"""What a scan's results depend on, as hashes: work is done again only where one has changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamicdps.cohort.bids import ENDINGS
from dynamicdps.diffusion.model_file import file_hash
from dynamicdps.errors import InputError

# Beside a scan: its acquisition, and its forward model where it is known.
BESIDE = (".json", ".operator.json")


def hash_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, whatever their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def input_files(scan: Path) -> list[Path]:
    """The scan and what is read beside it, in a fixed order; files that are missing are left out."""
    stem = next((scan.name.removesuffix(ending) for ending in ENDINGS if scan.name.endswith(ending)), scan.name)
    return [scan, *(path for path in (scan.with_name(stem + ending) for ending in BESIDE) if path.is_file())]


def input_hash(scan: Path) -> str:
    """Hash of the contents of a scan and of what is read beside it.

    Raises:
        InputError: one cannot be read.
    """
    try:
        return hash_of({path.name: file_hash(path) for path in input_files(scan)})
    except OSError as error:
        raise InputError(f"{scan.name} cannot be read ({error.strerror}); expected a file of yours; check it") from error


def input_stamp(scan: Path) -> list[list[int]]:
    """Size and times of the same files: while it stays the same, nothing need be read. The time of change cannot be set by copying."""
    stamps = []
    for path in input_files(scan):
        try:
            stat = path.stat()
        except OSError:
            return []
        stamps.append([stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    return stamps
