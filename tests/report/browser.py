"""A headless Chromium for tests of pages: no network, WebGL in software."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

READY_SECONDS = 60
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_WEBGL = ("--disable-3d-apis",)


@contextmanager
def chromium(profile: Path, *, webgl: bool = True, javascript: bool = True) -> Iterator[Any]:
    """A browser with a new, empty profile; skips the test where Chromium, its driver or Selenium is missing."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; pip install '.[dev]'")
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no Chromium with its driver; apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, *(SOFTWARE_WEBGL if webgl else NO_WEBGL), f"--user-data-dir={profile}", "--window-size=1280,1400"):
        options.add_argument(flag)
    if not javascript:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def wait_until(browser: Any, script: str) -> None:
    """Wait until a script returns something true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, READY_SECONDS, poll_frequency=0.05).until(lambda b: b.execute_script(f"return {script}"), script)


def open_page(browser: Any, page: Path) -> None:
    """Open a page and wait until its viewer is ready or has given up."""
    browser.get(page.as_uri())
    wait_until(browser, "document.documentElement.dataset.viewer === 'ready' || !document.getElementById('no-viewer').hidden")


def requests(browser: Any) -> list[str]:
    """Addresses that were asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def errors(browser: Any) -> list[str]:
    """Errors on the console since the last call, among them breaches of the Content-Security-Policy."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def resize(browser: Any, width: int, height: int) -> None:
    """The size of the page's window in CSS pixels, which may be smaller than a window can be."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
