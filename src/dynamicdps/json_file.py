"""JSON files: read within bounds, since anyone may have written them, and written whole."""

import json
from pathlib import Path
from typing import Any

from dynamicdps.atomic_file import atomic_write

MAX_BYTES = 64 * 1024**2


def read_json(path: Path) -> Any:
    """What a JSON file holds; the reader of each kind of file checks it and words the error.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is larger than 64 MB, no UTF-8, no JSON, or nested too deeply.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{size / 1024**2:.0f} MB are too large for JSON")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(path: Path, values: Any) -> None:
    """Write JSON, indented by two; see `atomic_write`.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
