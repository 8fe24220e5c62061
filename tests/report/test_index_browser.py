"""The index pages of a study and of a benchmark in a browser: by mouse and by keyboard, at any width, without network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamicdps.evaluation.benchmark import summarise
from dynamicdps.report.benchmark_index import write_benchmark_index
from dynamicdps.report.index import write_index
from dynamicdps.report.thumbnail import small_picture
from tests.evaluation.benchmark.made import benchmark
from tests.report.browser import chromium, errors, requests, resize, wait_until

ENTER, TAB = "\ue007", "\ue004"
GREY_MATTER = {"sub-01": 7e5, "sub-02": 9e4, "sub-03": 6.5e5, "sub-04": None, "sub-05": 6.8e5}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scans: one failed, one is unusual and flagged; two have reports, one a picture."""
    out = tmp_path_factory.mktemp("study")
    rows: list[dict[str, Any]] = [
        {"scan": name, "status": "done", "flags": None, "warnings": None, "reason": None, "gm": gm, "outlier": 0.5, "data_misfit": 1.0}
        for name, gm in GREY_MATTER.items()
    ]
    rows[1] |= {"flags": "outlier", "outlier": 12.0, "gm_low": 8.5e4, "gm_high": 9.5e4}
    rows[3] |= {"status": "failed", "reason": "the file <b>is torn</b>; expected a whole one; copy it again", "outlier": None}
    for name in ("sub-01", "sub-02"):
        (out / name).mkdir()
        (out / name / "a report.html").write_text(f"<!doctype html><title>{name}</title>")
    (out / "sub-01.jpg").write_bytes(small_picture(np.linspace(0, 1, 600).reshape(20, 30)))
    return write_index(out, rows, {name: f"{name}/a report.html" for name in ("sub-01", "sub-02")}, out)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two solvers on three subjects, of which one lost PSNR."""
    out = tmp_path_factory.mktemp("bench")
    (out / "results.csv").touch()
    results = benchmark(
        {"conditional": [20.0, 21.0, 22.0], "dynamicdps": [25.0, 20.5, 23.0]}, {"conditional": [0.2] * 3, "dynamicdps": [0.1, 0.1, 0.15]}
    )
    return write_benchmark_index(out, results, summarise(results), {"results.csv": "a row an image", "table.md": "means"})


def open_index(browser: Any, page: Path) -> None:
    requests(browser)
    errors(browser)
    browser.get(page.as_uri())
    wait_until(browser, "document.querySelector('table.sortable thead button') !== null")


def column(browser: Any, table: str, place: int) -> list[str]:
    """What the cells of a column say first, of the rows that are shown."""
    script = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr:not([hidden])`)]
        .map((row) => row.cells[arguments[1]].firstChild?.textContent ?? '')"""
    found: list[str] = browser.execute_script(script, table, place)
    return found


def heading(browser: Any, table: str, text: str) -> Any:
    (found,) = (b for b in browser.find_elements("css selector", f"#{table} thead button") if b.text.startswith(text))
    return found


def sorting(browser: Any, table: str) -> list[str]:
    return [each.get_attribute("aria-sort") for each in browser.find_elements("css selector", f"#{table} [aria-sort]")]


def test_study_puts_first_what_needs_a_look(browser: Any, study: Path) -> None:
    open_index(browser, study)
    assert column(browser, "scans", 1) == ["sub-04", "sub-02", "sub-01", "sub-03", "sub-05"]
    text = browser.find_element("css selector", "#scans").text
    assert "the file <b>is torn</b>" in text
    assert "85.0 to 95.0" in text
    links = [a.get_attribute("href") for a in browser.find_elements("css selector", "#scans a")]
    assert len(links) == 2
    for link in links:
        browser.get(link)
        assert browser.title in ("sub-01", "sub-02")


def test_study_sorts_by_click_and_by_keyboard(browser: Any, study: Path) -> None:
    open_index(browser, study)
    heading(browser, "scans", "Grey matter").click()
    assert column(browser, "scans", 1) == ["sub-02", "sub-03", "sub-05", "sub-01", "sub-04"]
    assert sorting(browser, "scans") == ["ascending"]
    heading(browser, "scans", "Grey matter").send_keys(ENTER)
    # Of the failed scan no volume is known: it stays last.
    assert column(browser, "scans", 1) == ["sub-01", "sub-05", "sub-03", "sub-02", "sub-04"]
    assert sorting(browser, "scans") == ["descending"]
    heading(browser, "scans", "Scan").send_keys(" ")
    assert column(browser, "scans", 1) == sorted(GREY_MATTER)
    assert len(sorting(browser, "scans")) == 1


def test_study_filters_rows(browser: Any, study: Path) -> None:
    open_index(browser, study)
    field = browser.find_element("css selector", "#filter-scans")
    field.send_keys("TORN")
    assert column(browser, "scans", 1) == ["sub-04"]
    assert browser.find_element("css selector", "#count-scans").text == "1 of 5 rows"
    field.clear()
    field.send_keys("nothing like it")
    assert column(browser, "scans", 1) == []


def test_benchmark_has_the_worst_on_top_and_sorts_each_table(browser: Any, bench: Path) -> None:
    open_index(browser, bench)
    # The one that lost PSNR, then by what was gained.
    assert column(browser, "subjects", 1) == ["sub-1", "sub-2", "sub-0"]
    assert column(browser, "means", 1) == ["conditional", "dynamicdps"]
    heading(browser, "means", "PSNR").click()
    heading(browser, "means", "PSNR").send_keys(ENTER)
    assert column(browser, "means", 1) == ["dynamicdps", "conditional"]
    assert column(browser, "subjects", 1) == ["sub-1", "sub-2", "sub-0"]
    heading(browser, "subjects", "PSNR").click()
    heading(browser, "subjects", "PSNR").click()
    assert column(browser, "subjects", 1) == ["sub-0", "sub-2", "sub-1"]
    (link,) = browser.find_elements("css selector", ".files a")
    assert (bench.parent / link.get_attribute("href").rsplit("/", 1)[1]).is_file()


@pytest.mark.parametrize("kind", ["study", "bench"])
def test_pages_ask_for_nothing_and_complain_of_nothing(browser: Any, kind: str, request: pytest.FixtureRequest) -> None:
    page: Path = request.getfixturevalue(kind)
    open_index(browser, page)
    for button in browser.find_elements("css selector", "thead button"):
        button.click()
    assert errors(browser) == []
    assert [url for url in requests(browser) if url != page.as_uri() and not url.startswith("data:")] == []


@pytest.mark.parametrize("kind", ["study", "bench"])
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_pages_fit_any_width_in_both_themes(browser: Any, kind: str, mode: str, request: pytest.FixtureRequest) -> None:
    """Wide tables scroll within themselves; letters stand out from the ground."""
    page: Path = request.getfixturevalue(kind)
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": mode}]})
        for width in (360, 1280, 3840):
            resize(browser, width, 900)
            open_index(browser, page)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        ground, ink = browser.execute_script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        grey = [sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3 for colour in (ground, ink)]
        assert (grey[0] > 200 > 60 > grey[1]) if mode == "light" else (grey[0] < 60 < 200 < grey[1])
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("kind", ["study", "bench"])
def test_tab_reaches_headings_filter_and_links(browser: Any, kind: str, request: pytest.FixtureRequest) -> None:
    open_index(browser, request.getfixturevalue(kind))
    wanted = browser.execute_script("return [...document.querySelectorAll('a, input, thead button')].map((e) => e.outerHTML)")
    reached = set()
    browser.find_element("css selector", "body").send_keys(TAB)
    # The tables that scroll take a stop of their own.
    for _ in range(len(wanted) + 3):
        reached.add(browser.execute_script("return document.activeElement.outerHTML"))
        browser.switch_to.active_element.send_keys(TAB)
    assert set(wanted) <= reached
