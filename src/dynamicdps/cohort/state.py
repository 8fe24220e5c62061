"""What is known of each scan between runs."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dynamicdps.json_file import write_json

HIDDEN = ".cohort"
Status = Literal["done", "failed", "publishing"]


@dataclass(frozen=True)
class ScanState:
    """A scan as the last run left it.

    Attributes:
        name: `BidsScan.name`.
        source: `BidsScan.source`.
        status: done; failed; or publishing, where a run was ended between moving the first of its files and the last.
        input: `input_hash` of what was enhanced, empty where it could not be read.
        stamp: `input_stamp` of the same.
        parameters: hash of settings, models and version.
        outputs: sizes in bytes of its files, by place in the output folder.
        values: its row of the table.
        warnings: sentences.
        reason: of a failure, one sentence.
        seconds: that it took.
        kept: of a failure, the state of the results that other settings had given for the same contents, as plain values; empty without.
    """

    name: str
    source: str
    status: Status
    input: str = ""
    stamp: list[list[int]] = field(default_factory=list)
    parameters: str = ""
    outputs: dict[str, int] = field(default_factory=dict)
    values: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0
    kept: dict[str, Any] = field(default_factory=dict)

    def complete(self, out: Path) -> bool:
        """Whether it is done and all its files are there, whole."""
        return self.status == "done" and all(_size(out / place) == size for place, size in self.outputs.items())

    def finished(self, out: Path) -> "ScanState | None":
        """The state whose results are in the folder, whole: this one, or what it has kept; `None` where there is none."""
        if self.complete(out):
            return self
        if self.status != "failed" or not self.kept:
            return None
        try:
            before = ScanState(**self.kept)
            return before if before.complete(out) else None
        except (TypeError, AttributeError):
            return None

    def save(self, out: Path) -> None:
        write_json(state_path(out, self.name), asdict(self))


def state_path(out: Path, name: str) -> Path:
    return out / HIDDEN / "state" / f"{name}.json"


def read_state(path: Path) -> ScanState | None:
    """A scan's state; `None` where there is none that can be read, which is as if the scan had never been seen."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return ScanState(**values)
    except (OSError, ValueError, TypeError):
        return None


def read_states(out: Path) -> Iterator[ScanState]:
    """All scans that are done or have failed, by name."""
    for path in sorted((out / HIDDEN / "state").glob("[!.]*.json")):
        state = read_state(path)
        if state is not None and state.status != "publishing":
            yield state


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
