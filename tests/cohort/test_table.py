"""The table and its page."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dynamicdps.cohort.state import ScanState
from dynamicdps.cohort.table import DICTIONARY, make_rows, outlier_scores, tsv, write_table
from dynamicdps.report.index import MAX_ROWS, write_index


def state(number: int, **values: float | None) -> ScanState:
    defaults: dict[str, float | None] = {"csf": 1000.0, "gm": 2000.0 + number, "wm": 3000.0, "data_misfit": 1.0, "start_sigma": 0.1}
    return ScanState(f"sub-{number:02d}_ses-a_rec-dynamicdps", f"s{number}.nii", "done", "i", [], "p" * 64, {}, defaults | values)


def test_rows_columns_and_dictionary_agree(tmp_path: Path) -> None:
    rows = write_table(tmp_path, [state(2), state(1)])
    assert [list(row) for row in rows] == [list(DICTIONARY)] * 2
    header, *lines = (tmp_path / "cohort.tsv").read_text().splitlines()
    assert header.split("\t") == list(json.loads((tmp_path / "cohort.json").read_text()))
    assert [line.split("\t")[1] for line in lines] == ["sub-01", "sub-02"]
    assert "seconds" not in DICTIONARY
    assert (tmp_path / "timing.tsv").read_text().splitlines()[0] == "scan\tseconds"


def test_cells() -> None:
    """Unknown is n/a; tabs and line breaks cannot break a row; numbers are read back as they were."""
    text = tsv(["a", "b", "c", "d"], [{"a": None, "b": "x\ty\nz", "c": 0.1 + 0.2, "d": ""}])
    assert text == "a\tb\tc\td\nn/a\tx y z\t0.30000000000000004\tn/a\n"


def test_outlier_scores_by_hand() -> None:
    """Grey matter 2001 to 2005 has the median 2003 and deviations 2, 1, 0, 1, 2, whose median is 1."""
    states = [state(number) for number in range(1, 6)]
    assert outlier_scores(states) == [1.35, 0.67, 0.0, 0.67, 1.35]
    assert outlier_scores(states[:4]) == [None] * 4
    far = [*states, state(6, gm=9000.0)]
    assert outlier_scores(far)[-1] == pytest.approx(0.6745 * (9000 - 2003.5) / 1.5, abs=0.01)
    assert make_rows(far)[-1]["flags"] == "outlier"


def test_flags() -> None:
    doubtful = ScanState("sub-1_rec-dynamicdps", "s", "done", values={"data_misfit": 2.0, "csf": None}, warnings=["a", "b"])
    failed = ScanState("sub-2_rec-dynamicdps", "s", "failed", reason="because")
    rows = make_rows([doubtful, failed])
    assert rows[0]["flags"] == "misfit,warnings,volumes"
    assert rows[0]["warnings"] == "a | b"
    assert (rows[1]["flags"], rows[1]["reason"], rows[1]["csf"]) == (None, "because", None)


class Page(HTMLParser):
    """Rows of the page's body as texts, and every address in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.rows: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("href", "src")]
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1] += data


def page_of(tmp_path: Path, states: list[ScanState], reports: dict[str, str] | None = None) -> str:
    return write_index(tmp_path, make_rows(states), reports or {}, tmp_path).read_text(encoding="utf-8")


def test_the_page_puts_first_what_needs_a_look(tmp_path: Path) -> None:
    states = [*(state(number) for number in range(1, 6)), state(6, gm=9000.0), ScanState("sub-09_rec-x", "s", "failed", reason="torn")]
    page = Page(page_of(tmp_path, states, {"sub-01_ses-a_rec-dynamicdps": "sub-01/a report.html"}))
    names = [match[0] for row in page.rows[1:] if (match := re.match(r"sub-\d+", row))]
    assert names[:2] == ["sub-09", "sub-06"]
    assert "torn" in page.rows[1]
    assert "sub-01/a%20report.html" in page.addresses
    assert all(not re.match(r"[a-z]*:?//", address) for address in page.addresses)


def test_the_page_escapes_what_scans_say(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    bad = ScanState("sub-1_rec-x", "s", "failed", reason=evil)
    text = page_of(tmp_path, [bad, ScanState("sub-2_rec-x", "s", "done", warnings=[evil])], {"sub-2_rec-x": 'x" onclick="y'})
    assert evil not in text
    assert Page(text).elements.count("script") == 1
    assert "img" not in Page(text).elements
    assert 'onclick="' not in text
    assert "default-src 'none'" in unescape(text)


def test_the_page_is_the_same_for_the_same_rows_and_bounded(tmp_path: Path) -> None:
    many = [state(number) for number in range(MAX_ROWS + 7)]
    text = page_of(tmp_path, many)
    assert text == page_of(tmp_path, many)
    assert len(Page(text).rows) == 1 + MAX_ROWS
    assert f"The first {MAX_ROWS} in this order are shown" in text
