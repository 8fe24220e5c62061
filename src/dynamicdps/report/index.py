"""The page of a study: one row a scan, the ones to look at first; and what it shares with a benchmark's."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dynamicdps import __version__
from dynamicdps.report.page import environment, policy, static_asset, write_html

NAME = "index.html"
# A browser stays quick with so many rows, and the page below some 10 MB.
MAX_ROWS = 5000
MAX_PICTURES = 1500
MINUS = "\N{MINUS SIGN}"
# What is sorted by, what is shown, and the interval below it.
Cell = tuple[str, str, str]


@dataclass(frozen=True)
class IndexColumn:
    """A column of numbers.

    Attributes:
        key: of the rows.
        heading: what the page calls it.
        unit: of the numbers as shown.
        scale: number shown for 1 of the rows' units.
        digits: after the point.
        sign: whether positive numbers have one.
    """

    key: str
    heading: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 2
    sign: bool = False

    def text(self, value: float) -> str:
        """A value as the page shows it."""
        # Rounded first, and 0 added: no minus before a 0.
        rounded = round(self.scale * value, self.digits) + 0.0
        return f"{rounded:{'+' if self.sign else ''}.{self.digits}f}".replace("-", MINUS)

    def cell(self, row: Mapping[str, Any]) -> Cell:
        """The value of a row, with the interval of its keys ``KEY_low`` and ``KEY_high``; empty where it is unknown."""
        value = row.get(self.key)
        if value is None or not math.isfinite(value):
            return "", "", ""
        ends = [row.get(f"{self.key}_{end}") for end in ("low", "high")]
        texts = [self.text(end) for end in ends if end is not None]
        return repr(float(value)), self.text(value), " to ".join(texts)


COLUMNS = (
    IndexColumn("csf", "CSF", "ml", 1e-3, 1),
    IndexColumn("gm", "Grey matter", "ml", 1e-3, 1),
    IndexColumn("wm", "White matter", "ml", 1e-3, 1),
    IndexColumn("data_misfit", "Data misfit"),
    IndexColumn("start_sigma", "Start level", digits=3),
    IndexColumn("outlier", "Outlier score", digits=1),
)


@dataclass(frozen=True)
class IndexRow:
    """A row as it is shown: its link is empty without a report, its picture (base64 of a JPEG) without one."""

    name: str
    link: str
    picture: str
    status: str
    cells: list[Cell]
    flags: list[str]
    text: str


def write_index(out: Path, rows: Sequence[Mapping[str, Any]], reports: Mapping[str, str], thumbnails: Path) -> Path:
    """Write ``index.html``: self-contained but for the links to the reports, without network; the same rows give the same bytes.

    Args:
        out: folder of the page.
        rows: with ``scan``, ``status`` (done, failed, left out), and where they are known ``flags``, ``warnings``, ``reason`` and the keys
            of `COLUMNS`.
        reports: place of each scan's report below `out`, by scan.
        thumbnails: folder of ``SCAN.jpg``.
    """
    ordered = sorted(rows, key=_urgency)
    shown = [_row(row, reports, thumbnails if index < MAX_PICTURES else None) for index, row in enumerate(ordered[:MAX_ROWS])]
    return write_index_page(
        out,
        "index.html.j2",
        rows=shown,
        total=len(rows),
        done=sum(row["status"] == "done" for row in rows),
        failed=sum(row["status"] == "failed" for row in rows),
        left_out=sum(row["status"] == "left out" for row in rows),
        flagged=sum(row["status"] == "done" and bool(row.get("flags")) for row in rows),
        columns=COLUMNS,
    )


def write_index_page(out: Path, template: str, **contents: Any) -> Path:
    """Write ``index.html`` from a template that extends ``index_base.html.j2``, with what that needs beside its contents."""
    style, script = static_asset("report.css"), static_asset("index.js")
    page = (
        environment()
        .get_template(template)
        .render(style=style, script=script, policy=policy(style, [script]), version=__version__, **contents)
    )
    return write_html(out / NAME, page)


def _urgency(row: Mapping[str, Any]) -> tuple[int, bool, float, str]:
    """Failures first, then flagged scans, each from the most unusual on; last what was left out."""
    place = {"failed": 0, "left out": 2}.get(row["status"], 1)
    return place, not row.get("flags"), -(row.get("outlier") or 0.0), str(row["scan"])


def _row(row: Mapping[str, Any], reports: Mapping[str, str], thumbnails: Path | None) -> IndexRow:
    name = str(row["scan"])
    picture = b""
    if thumbnails is not None and row["status"] == "done" and (thumbnails / f"{name}.jpg").is_file():
        picture = (thumbnails / f"{name}.jpg").read_bytes()
    return IndexRow(
        name=name,
        link=quote(reports.get(name, "")),
        picture=base64.b64encode(picture).decode("ascii"),
        status=str(row["status"]),
        cells=[column.cell(row) for column in COLUMNS],
        flags=str(row["flags"]).split(",") if row.get("flags") else [],
        text=str(row.get("reason") or row.get("warnings") or ""),
    )
