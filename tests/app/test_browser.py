"""The page in a browser: from drop to download, by mouse and by keyboard, and nothing is asked of any other place."""

import io
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from matplotlib.image import imread

from dynamicdps.app.guard import Guard
from dynamicdps.app.queue import JobQueue
from dynamicdps.app.server import make_app
from dynamicdps.output_names import ENHANCED
from dynamicdps.pipeline import StudyOptions
from dynamicdps.pipeline.options import as_words
from tests.app.conftest import TOKEN
from tests.app.test_server import finished
from tests.report.browser import READY_SECONDS, chromium, errors, requests, resize, wait_until
from tests.volumes.dicom_files import make_stack, write_slices

ENTER, SPACE = "\ue007", " "


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        resize(opened, 1280, 1000)
        yield opened


@pytest.fixture
def page(browser: Any, queue: JobQueue) -> Iterator[Any]:
    """The page of a queue that does not work on its jobs."""
    with listening(queue) as address:
        requests(browser)
        errors(browser)
        open_app(browser, address)
        yield browser
        # A refusal with a sentence is one in the browser's log, too.
        assert [error for error in errors(browser) if "status of 400" not in error] == []
        browser.get("about:blank")


@contextmanager
def listening(queue: JobQueue) -> Iterator[str]:
    """The page of a queue at an address."""
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        here.listen()
        host = f"127.0.0.1:{here.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(Guard(make_app(queue), TOKEN, host), log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, args=([here],))
        thread.start()
        try:
            yield f"http://{host}/{TOKEN}/"
        finally:
            server.should_exit = True
            thread.join()


def open_app(browser: Any, address: str) -> None:
    browser.get(address)
    wait_until(browser, "document.documentElement.dataset.ready === 'yes'")


def drop_files(browser: Any, *paths: Path) -> None:
    """Drop files and folders of the disk on the page, as a file manager does, and wait until they are recognised."""
    before = browser.execute_script("return document.querySelectorAll('.job').length")
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 100, "data": data})
    wait_until(browser, f"document.querySelectorAll('.job').length > {before} || !document.getElementById('drop-problem').hidden")
    wait_until(browser, "!/Reading|Received|Looking/.test(document.getElementById('receiving').textContent)")


def find(browser: Any, name: str) -> Any:
    return browser.find_element("css selector", name)


def text(browser: Any, name: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).textContent", name))


def names(browser: Any) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", ".job .name")]


def press(browser: Any, name: str, key: str) -> None:
    find(browser, name).send_keys(key)


def test_a_dropped_scan_is_shown_with_what_was_recognised(page: Any, poor: Path) -> None:
    assert text(page, "body").count("Drop scans here") == 1
    assert find(page, "#columns").is_displayed() is False
    drop_files(page, poor, poor.with_name("poor.operator.json"))
    assert names(page) == ["poor.nii.gz"]
    assert "12 \u00d7 14 \u00d7 12" in text(page, "#recognised")
    assert "4 \u00d7 4 \u00d7 1 mm" in text(page, "#recognised")
    assert "Skull-stripped" in text(page, "#recognised")
    wait_until(page, "document.documentElement.dataset.look || document.getElementById('screen').hidden")
    if not find(page, "#screen").is_displayed():
        pytest.skip("Chromium has no WebGL 2 here, not even in software")
    picture = imread(io.BytesIO(find(page, "#screen").screenshot_as_png))
    assert len(np.unique(picture[..., 0].round(2))) > 20


def test_folders_are_read_to_the_end_and_other_files_are_named(page: Any, poor: Path, tmp_path: Path) -> None:
    for number in (3, 4):
        write_slices(tmp_path / "exam" / f"series-{number}" / "deep", make_stack(slices=120), series=number)
    (tmp_path / "exam" / "notes.txt").write_text("no scan")
    drop_files(page, tmp_path / "exam", poor)
    assert sorted(names(page)) == ["exam, series 3", "exam, series 4", "poor.nii.gz"]
    assert "exam/notes.txt" in text(page, "#receiving")
    assert "DICOM, 120 files" in text(page, "#recognised") or "NIfTI" in text(page, "#recognised")


def test_what_cannot_be_used_says_so(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.nii").write_text("no scan")
    (tmp_path / "notes.txt").write_text("no scan")
    drop_files(page, tmp_path / "notes.txt")
    assert "None of the 1 files that were dropped is a scan" in text(page, "#drop-problem")
    drop_files(page, tmp_path / "broken.nii")
    assert not find(page, "#drop-problem").is_displayed()
    assert text(page, "#problem").startswith("broken.nii cannot be read")
    assert not find(page, "#choice").is_displayed()


def test_names_are_text(page: Any, poor: Path, tmp_path: Path) -> None:
    named = tmp_path / "<img src=x onerror=alert(1)>&amp;_T1w.nii.gz"
    named.write_bytes(poor.read_bytes())
    drop_files(page, named)
    assert page.execute_script("return document.querySelectorAll('#columns img').length") == 0
    assert names(page) == ["_img src_x onerror_alert(1)__amp__T1w.nii.gz"]


def test_by_keyboard_alone(page: Any, queue: JobQueue, poor: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.nii.gz"
    other.write_bytes(poor.read_bytes())
    drop_files(page, poor, other)
    press(page, ".job[aria-current='true']", ENTER)
    press(page, "#qualities input[value='fast']", SPACE)
    press(page, "#start", ENTER)
    wait_until(page, "document.getElementById('detail-state').textContent === 'waiting'")
    (job,) = (job for job in queue.jobs.values() if job.state == "waiting")
    assert job.quality == "fast"
    press(page, "#actions button", ENTER)
    wait_until(page, "document.getElementById('detail-state').textContent === 'cancelled'")
    press(page, "#actions button", ENTER)
    wait_until(page, "document.querySelectorAll('.job').length === 1")
    assert list(queue.jobs.values()) != [job]


def test_scans_of_one_drop_can_be_enhanced_together(page: Any, queue: JobQueue, poor: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.nii.gz"
    other.write_bytes(poor.read_bytes())
    drop_files(page, poor, other)
    assert text(page, "#start-all") == "Enhance all 2"
    find(page, "#together").click()
    find(page, "#start").click()
    wait_until(page, "document.querySelectorAll('.job').length === 1")
    (job,) = queue.jobs.values()
    assert sorted(scan.name for scan in job.scans) == ["other.nii.gz", "poor.nii.gz"]
    assert job.state == "waiting"
    assert text(page, "#recognised").count("Voxel size") == 2


def test_a_result_is_shown_and_can_be_made_again(page: Any, queue: JobQueue, poor: Path) -> None:
    drop_files(page, poor)
    (job,) = queue.jobs.values()
    finished(job)
    wait_until(page, "document.querySelector('iframe')")
    assert find(page, "iframe").get_attribute("sandbox") == "allow-scripts"
    page.switch_to.frame(find(page, "iframe"))
    assert text(page, "body") == "report.html"
    page.switch_to.default_content()
    assert not find(page, "#facts").is_displayed()
    again = next(button for button in page.find_elements("css selector", "#actions button") if button.text == "Enhance again")
    again.click()
    assert text(page, "#start") == "Replace the result"
    assert not page.find_elements("css selector", "iframe")
    find(page, "#start").click()
    wait_until(page, "document.getElementById('detail-state').textContent === 'waiting'")
    assert not job.result.exists()


@contextmanager
def started(folder: Path, options: StudyOptions) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`dynamicdps app` in a process of its own, and the address that it prints."""
    words = [sys.executable, "-m", "dynamicdps.cli", "app", "--no-browser", "--folder", str(folder), *as_words(options)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_from_drop_to_download_and_after_a_restart(browser: Any, options: StudyOptions, poor: Path, tmp_path: Path) -> None:
    jobs, downloads = tmp_path / "jobs", tmp_path / "downloads"
    with started(jobs, options) as (address, process):
        requests(browser)
        errors(browser)
        open_app(browser, address)
        drop_files(browser, poor, poor.with_name("poor.operator.json"))
        find(browser, "#start").click()
        wait_until(browser, "document.getElementById('stages').children.length === 7")
        wait_until(browser, "document.getElementById('detail-state').textContent.startsWith('done')")
        (result,) = jobs.glob("*/result")
        # The report is there, with its viewer, and can reach nothing of the page around it.
        frame = find(browser, "iframe")
        browser.switch_to.frame(frame)
        wait_until(browser, "document.documentElement.dataset.viewer === 'ready' || !document.getElementById('no-viewer').hidden")
        assert "Enhanced scan: poor.nii.gz" in text(browser, "h1")
        assert browser.execute_script("return self.origin") == "null"
        browser.switch_to.default_content()
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        downloads.mkdir()
        find(browser, "#save").click()
        wait_for(downloads / f"poor_{ENHANCED}")
        assert (downloads / f"poor_{ENHANCED}").read_bytes() == (result / ENHANCED).read_bytes()
        asked = {url for url in requests(browser) if not url.startswith(("data:", "blob:", "chrome:", "about:"))}
        assert asked
        assert all(url.startswith(address) for url in asked)
        assert errors(browser) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(browser, "!document.getElementById('gone').hidden")
    with started(jobs, options) as (again, _):
        assert again != address
        open_app(browser, again)
        assert names(browser) == ["poor.nii.gz"]
        assert text(browser, ".job .state").startswith("done in")
    browser.get("about:blank")


def wait_for(file: Path) -> None:
    """Wait until a download is whole."""
    from time import monotonic, sleep

    end = monotonic() + READY_SECONDS
    while not file.is_file():
        assert monotonic() < end, f"{file.name} has not come, only {[each.name for each in file.parent.iterdir()]}"
        sleep(0.05)
