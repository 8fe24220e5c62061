"""The page of a benchmark: its numbers, and what comes first."""

import base64
import math
import re
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.evaluation.benchmark import Results, summarise
from dynamicdps.evaluation.benchmark.summary import measured
from dynamicdps.report.benchmark_index import mean_rows, subject_rows, write_benchmark_index
from tests.evaluation.benchmark.made import CONDITION, benchmark
from tests.report.test_page import Page

PSNR = {"conditional": [20.0, 21.0, 22.0], "dynamicdps": [25.0, 20.5, 23.0], "dps": [19.0, 24.0, 22.0]}
ERRORS = {"conditional": [0.2, 0.2, 0.2], "dynamicdps": [0.1, 0.1, 0.3], "dps": [0.1, 0.2, 0.1]}


@pytest.fixture(scope="module")
def results() -> Results:
    return benchmark(PSNR, ERRORS)


def test_worse_results_come_first(results: Results) -> None:
    """By hand: of six results two lost PSNR (dps of subject 0 by 1 dB, dynamicdps of subject 1 by 0.5 dB), one volumes alone."""
    rows = subject_rows(measured(results))
    assert [(row.subject, row.solver, row.worse) for row in rows[:3]] == [
        ("sub-0", "dps", ["PSNR"]),
        ("sub-1", "dynamicdps", ["PSNR"]),
        ("sub-2", "dynamicdps", ["volumes"]),
    ]
    assert all(row.worse == [] for row in rows[3:])
    assert len(rows) == 6
    values = [text for _, text, _ in rows[0].cells]
    minus = "\N{MINUS SIGN}"
    assert values == ["19.00", f"{minus}1.00", "0.900", "+0.000", "10.0", f"{minus}10.0", "1.00"]


def test_means_are_the_summarys(results: Results) -> None:
    rows = mean_rows(summarise(results))
    assert [(row.condition, row.solver) for row in rows] == [(CONDITION, solver) for solver in PSNR]
    key, text, interval = rows[0].cells[0]
    assert (float(key), text) == (pytest.approx(21.0), "21.00")
    low, high = map(float, interval.split(" to "))
    assert 20 <= low < 21 < high <= 22


def test_one_subject_has_no_interval() -> None:
    alone = mean_rows(summarise(benchmark({"conditional": [20.0]}, {"conditional": [0.1]})))
    assert all(interval == "" for _, _, interval in alone[0].cells)


def test_a_number_that_is_unknown_is_left_out() -> None:
    some = benchmark({"conditional": [20.0], "dps": [math.nan]}, {"conditional": [0.1], "dps": [math.nan]})
    assert subject_rows(measured(some)) == []
    assert [text for _, text, _ in mean_rows(summarise(some))[1].cells[:3]] == ["", "0.900", ""]


def test_page_has_pictures_and_links_of_what_is_there(results: Results, tmp_path: Path) -> None:
    slices = tmp_path / "slices" / "unet_iqt-out"
    slices.mkdir(parents=True)
    image = np.zeros((40, 60), np.float16)
    image[10:30, 20:50] = 0.7
    with (slices / "sub-1_dynamicdps.npz").open("wb") as file:
        np.savez_compressed(file, image=image)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "paired #1.png").touch()
    (tmp_path / "results.csv").touch()
    files = {"figures": "figures", "results.csv": "a row an image", "lesions.csv": "a row a lesion"}
    path = write_benchmark_index(tmp_path, results, summarise(results), files)
    page = Page(path)
    assert page.open == []
    assert [link["href"] for link in page.all("a")] == ["figures/paired%20%231.png", "results.csv"]
    (picture,) = page.all("img")
    assert base64.b64decode((picture["src"] or "").partition(",")[2]).startswith(b"\xff\xd8\xff")
    assert "3 of 6 results of single subjects are worse" in page.text
    assert page.text.lower().count("research use only") == 1
    assert page.policy["default-src"] == ["'none'"]
    first = path.read_bytes()
    assert write_benchmark_index(tmp_path, results, summarise(results), files).read_bytes() == first


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    some = benchmark({"conditional": [20.0], evil: [21.0]}, {"conditional": [0.1], evil: [0.1]})
    text = write_benchmark_index(tmp_path, some, summarise(some), {}).read_text(encoding="utf-8")
    assert evil not in text
    assert len(re.findall("<script", text)) == 1
