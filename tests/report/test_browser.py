"""The page in a browser: the viewer shows what the files hold, by mouse and by keyboard, and asks nothing of the network."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from nibabel.affines import apply_affine

from dynamicdps.report import Report, Stage, write_report
from dynamicdps.report.viewer import make_viewer
from dynamicdps.volumes import Volume, load
from tests.report.browser import chromium, errors, open_page, requests, resize, wait_until

KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015", "PageUp": "\ue00e", "PageDown": "\ue00f"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def viewer(browser: Any, page: Path) -> Any:
    """The page, just opened; what it asks for is logged from here on."""
    requests(browser)
    errors(browser)
    open_page(browser, page)
    if browser.execute_script("return document.getElementById('viewer').hidden"):
        pytest.skip("Chromium has no WebGL 2 here, not even in software")
    return browser


def find(browser: Any, name: str) -> Any:
    return browser.find_element("css selector", name)


def press(browser: Any, *keys: str) -> None:
    """Press keys on the slices."""
    find(browser, "#screen").send_keys(*(KEYS.get(key, key) for key in keys))


def settle(browser: Any) -> None:
    """Wait until what was chosen is drawn."""
    wait_until(browser, "document.getElementById('screen').ariaBusy === 'false'")


def unread(browser: Any) -> int:
    """How many volumes are still packed."""
    count: int = browser.execute_script("return document.querySelectorAll('script[id^=volume-]').length")
    return count


def shown(browser: Any) -> str:
    settle(browser)
    text: str = browser.execute_script("return document.getElementById('shown').textContent")
    return text


def picture(browser: Any) -> str:
    """A fingerprint of what the slices look like, without their caption and the mark of focus."""
    settle(browser)
    browser.execute_script("document.activeElement.blur(); document.getElementById('shown').style.opacity = 0")
    return hashlib.sha256(find(browser, "#screen").screenshot_as_png).hexdigest()


def number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def position(browser: Any) -> list[float]:
    """The crosshair in mm."""
    parts = find(browser, "#position").text.removesuffix(" mm").split(", ")
    return [number(part.split()[1]) for part in parts]


def choose(browser: Any, name: str, value: str) -> None:
    """Set a select or a slider as a user does, with its events."""
    browser.execute_script(
        "arguments[0].value = arguments[1]; for (const e of ['input', 'change']) arguments[0].dispatchEvent(new Event(e))",
        find(browser, name),
        value,
    )


def value_at(volume: Volume, mm: list[float]) -> float | None:
    """A volume's nearest voxel; `None` outside it."""
    index = np.rint(apply_affine(np.linalg.inv(volume.affine), mm)).astype(int)
    inside = (index >= 0).all() and (index < volume.shape).all()
    return float(volume.data[tuple(index)]) if inside else None


def test_values_at_the_crosshair_are_the_files(viewer: Any, report: Report, tmp_path: Path) -> None:
    """To half a grey level of each volume, wherever the crosshair goes."""
    made = make_viewer(report)
    files = [load(s.volume.save(tmp_path / f"{i}.nii.gz")) for i, s in enumerate((*made.images, *made.maps))]
    compared = 0
    for moves in ([], ["ArrowRight"] * 7, ["ArrowUp"] * 9, ["PageUp"] * 3, ["ArrowLeft"] * 15 + ["PageDown"] * 5, ["ArrowDown"] * 20):
        press(viewer, *moves)
        wait_until(viewer, "!document.querySelector('.values table').textContent.includes('\u2026')")
        mm = position(viewer)
        texts = viewer.execute_script("return [...document.querySelectorAll('[data-value]')].map((e) => e.textContent)")
        for text, volume, entry in zip(texts, files, (*made.images, *made.maps), strict=True):
            wanted = value_at(volume, mm)
            if text != "outside":
                assert wanted is not None
                level = made.embedded[entry.name].level
                assert number(text) == pytest.approx(wanted, abs=0.5 * level + 10.0**-entry.decimals)
                compared += abs(wanted) > level
    assert compared > 20


def test_volumes_are_unpacked_when_something_asks_for_them(viewer: Any) -> None:
    """At first only what is shown; then what is chosen; the rest when someone goes into the slices and so asks for their values."""
    assert unread(viewer) == 7
    values = [cell.text for cell in viewer.find_elements("css selector", "[data-value]")]
    assert [text == "\N{HORIZONTAL ELLIPSIS}" for text in values] == [True, True, False, *[True] * 5]
    find(viewer, "#blink").click()
    assert shown(viewer) == "initial image"
    assert unread(viewer) == 6
    find(viewer, "#blink").click()
    choose(viewer, "#map", "1")
    assert shown(viewer) == "enhanced + uncertainty"
    assert unread(viewer) == 5
    press(viewer, "ArrowUp")
    wait_until(viewer, "document.querySelectorAll('script[id^=volume-]').length === 0")
    wait_until(viewer, "!document.querySelector('.values table').textContent.includes('\u2026')")


def test_arrows_move_the_crosshair_by_voxels(viewer: Any) -> None:
    x, y, z = position(viewer)
    press(viewer, "ArrowRight", "ArrowRight", "ArrowUp", "PageDown")
    assert position(viewer) == pytest.approx([x + 2, y + 1, z - 1], abs=0.11)
    press(viewer, "ArrowLeft", "ArrowDown", "PageUp")
    assert position(viewer) == pytest.approx([x + 1, y, z], abs=0.11)


def test_click_moves_the_crosshair(viewer: Any) -> None:
    from selenium.webdriver import ActionChains

    before = position(viewer)
    screen = find(viewer, "#screen")
    # The planes leave parts of the screen black.
    for share in (-0.4, -0.2, 0.1, 0.2):
        offset = int(share * screen.size["width"]), int(share * screen.size["height"])
        ActionChains(viewer).move_to_element_with_offset(screen, *offset).click().perform()
    assert position(viewer) != before


def test_keys_and_buttons_choose_the_image(viewer: Any) -> None:
    names = [button.text.split(maxsplit=1)[1] for button in viewer.find_elements("css selector", "[data-image]")]
    assert names == ["measurement", "initial image", "enhanced", "truth"]
    assert shown(viewer) == "enhanced"
    pictures = set()
    for index, name in enumerate(names):
        press(viewer, str(index + 1))
        assert shown(viewer) == name
        pressed = [button.get_attribute("aria-pressed") for button in viewer.find_elements("css selector", "[data-image]")]
        assert pressed == ["true" if i == index else "false" for i in range(len(names))]
        pictures.add(picture(viewer))
    assert len(pictures) == len(names)
    find(viewer, '[data-image="1"]').click()
    assert shown(viewer) == "initial image"
    press(viewer, "9")
    assert shown(viewer) == "initial image"


def test_space_blinks_between_two(viewer: Any) -> None:
    choose(viewer, "#other", "0")
    for name in ("measurement", "enhanced", "measurement", "enhanced"):
        press(viewer, " ")
        assert shown(viewer) == name
    find(viewer, "#blink").click()
    assert shown(viewer) == "measurement"
    find(viewer, "#every-second").click()
    wait_until(viewer, "document.getElementById('shown').textContent === 'enhanced'")
    wait_until(viewer, "document.getElementById('shown').textContent === 'measurement'")


def test_swipe_shows_two_at_once(viewer: Any) -> None:
    alone = picture(viewer)
    choose(viewer, "#other", "0")
    find(viewer, "#swipe").click()
    wait_until(viewer, "document.getElementById('shown').textContent === 'enhanced | measurement'")
    half = picture(viewer)
    choose(viewer, "#swipe-position", "0")
    whole = picture(viewer)
    assert len({alone, half, whole}) == 3
    # The crosshair is one in both.
    press(viewer, "ArrowRight")
    assert picture(viewer) != whole
    press(viewer, "ArrowLeft")
    assert picture(viewer) == whole
    find(viewer, "#swipe").click()
    wait_until(viewer, "document.getElementById('shown').textContent === 'enhanced'")
    assert picture(viewer) == alone


def test_the_radiological_convention_mirrors_the_planes_and_the_keys(viewer: Any) -> None:
    neurological = picture(viewer)
    assert find(viewer, "#side").text == "left"
    x, y, z = position(viewer)
    find(viewer, "#radiological").click()
    assert picture(viewer) != neurological
    assert find(viewer, "#side").text == "right"
    assert position(viewer) == [x, y, z]
    # The key goes to the left of the screen, which is the subject's right now.
    press(viewer, "ArrowLeft", "ArrowUp")
    assert position(viewer) == pytest.approx([x + 1, y + 1, z], abs=0.11)
    find(viewer, "#radiological").click()
    press(viewer, "ArrowLeft", "ArrowDown")
    assert position(viewer) == pytest.approx([x, y, z], abs=0.11)
    assert picture(viewer) == neurological


def test_swipe_shows_its_line_in_mirrored_planes_too(viewer: Any) -> None:
    lines = "return [...document.querySelectorAll('#dividers div')].map((e) => [parseFloat(e.style.left), e.offsetHeight])"
    find(viewer, "#swipe").click()
    wait_until(viewer, "document.getElementById('shown').textContent.includes('|')")
    plain = viewer.execute_script(lines)
    find(viewer, "#radiological").click()
    settle(viewer)
    mirrored = viewer.execute_script(lines)
    assert len(mirrored) == len(plain) == 3
    # At half of the plane, the line is where it was.
    np.testing.assert_allclose(mirrored, plain, atol=2)


def test_slices_are_changed_by_touch(viewer: Any) -> None:
    """A finger on a slider on a phone moves one axis, and the slices themselves let a finger move the crosshair."""
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    viewer.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    viewer.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        wait_until(viewer, "window.innerWidth === 390")
        for axis in range(3):
            before = position(viewer)
            touch(viewer, f"#slice-{axis}", (0.3, 0.5), (0.85, 0.5))
            moved = [abs(a - b) > 1 for a, b in zip(position(viewer), before, strict=True)]
            assert moved == [i == axis for i in range(3)]
            number, _, count = find(viewer, f"#slice-{axis}-value").text.partition(" of ")
            assert 0.7 < int(number) / int(count) <= 1
        before = position(viewer)
        touch(viewer, "#screen", (0.2, 0.3), (0.25, 0.35))
        assert position(viewer) != before
        assert viewer.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        viewer.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        viewer.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def touch(browser: Any, name: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A finger from one place on an element to another, as shares of its size."""
    element = find(browser, name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    box = "const box = arguments[0].getBoundingClientRect(); return [box.x, box.y, box.width, box.height]"
    left, top, width, height = browser.execute_script(box, element)
    points = [{"x": left + x * width, "y": top + y * height} for x, y in (start, end)]
    for kind, at in (("touchStart", points[:1]), ("touchMove", points[1:]), ("touchEnd", [])):
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})


def test_the_outline_of_the_mask_lies_over_any_map(browser: Any, report: Report, tmp_path: Path) -> None:
    image = report.stages[-1].volume
    assert image is not None
    open_page(browser, write_report(tmp_path, replace(report, brain_mask=image.with_data((image.data > 0.1).astype(np.float32)))))
    if browser.execute_script("return document.getElementById('viewer').hidden"):
        pytest.skip("Chromium has no WebGL 2 here, not even in software")
    assert [option.text for option in browser.find_elements("css selector", "#map option")][-1] == "error"
    seen = []
    try:
        # So high that nothing scrolls.
        resize(browser, 800, 2400)
        for name in ("1", "-1"):
            choose(browser, "#map", name)
            for _ in range(2):
                seen.append(picture(browser))
                find(browser, "#outline").click()
        assert len(set(seen)) == 4
        choose(browser, "#map", "1")
        assert picture(browser) == seen[0]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("slab", [(slice(None), slice(None), slice(20, 24)), (slice(20, 24),), (slice(None), slice(20, 24))], ids=str)
@pytest.mark.parametrize("window", [(1280, 800), (1280, 1400), (390, 800)])
def test_no_half_of_the_slices_is_black(browser: Any, slab: tuple[slice, ...], window: tuple[int, int], tmp_path: Path) -> None:
    """Of a slab of four slices across any axis, in a wide window, a high one, and on a phone."""
    block = np.ones((44, 52, 48), np.float32)[slab]
    try:
        resize(browser, *window)
        open_page(browser, write_report(tmp_path, Report("slab", [Stage("enhanced", Volume(block, np.eye(4)))])))
        if browser.execute_script("return document.getElementById('viewer').hidden"):
            pytest.skip("Chromium has no WebGL 2 here, not even in software")
        picture(browser)
        pixels = imread(io.BytesIO(find(browser, "#screen").screenshot_as_png))[..., :3]
        assert (pixels.max(-1) > 0.3).mean() > 0.55
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_maps_lie_over_the_image_as_strongly_as_wanted(viewer: Any) -> None:
    plain = picture(viewer)
    seen = {plain}
    for index, name in enumerate(("residual", "uncertainty", "hallucination", "error")):
        choose(viewer, "#map", str(index))
        assert shown(viewer) == f"enhanced + {name}"
        keys = [key.is_displayed() for key in viewer.find_elements("css selector", "#viewer [data-map]")]
        assert keys == [i == index for i in range(4)]
        seen.add(picture(viewer))
    assert len(seen) == 5
    choose(viewer, "#opacity", "30")
    assert find(viewer, "#opacity-value").text == "30 %"
    faint = picture(viewer)
    assert faint not in seen
    choose(viewer, "#opacity", "0")
    clear = picture(viewer)
    choose(viewer, "#map", "-1")
    assert picture(viewer) == clear
    find(viewer, "#opacity").send_keys("\ue014")
    assert find(viewer, "#opacity-value").text == "1 %"


def test_a_map_shows_where_it_is_not_zero_and_faint_values_faintly(browser: Any, report: Report, tmp_path: Path) -> None:
    image = report.stages[-1].volume
    assert image is not None
    for sign, colour in ((1, 0), (-1, 2)):
        data = np.zeros(image.shape)
        data[20:28, 24:32] = sign
        data[8:16, 24:32] = 0.15 * sign
        marked = Report("map", [Stage("enhanced", image)], hallucination=image.with_data(data - 1e-6 * (data == 0)))
        open_page(browser, write_report(tmp_path, marked))
        if browser.execute_script("return document.getElementById('viewer').hidden"):
            pytest.skip("Chromium has no WebGL 2 here, not even in software")
        choose(browser, "#opacity", "100")
        pixels = []
        for chosen in ("-1", "0"):
            choose(browser, "#map", chosen)
            picture(browser)
            pixels.append(imread(io.BytesIO(find(browser, "#screen").screenshot_as_png))[..., :3])
        change = np.abs(pixels[1] - pixels[0]).max(-1)
        faint, strong = (change > 0.05) & (change < 0.3), change > 0.3
        for part in (faint, strong):
            assert 0.005 < part.mean() < 0.1
            mean = pixels[1][part].mean(0)
            assert mean[colour] > mean[2 - colour] + 0.05


def test_all_images_have_one_window(viewer: Any) -> None:
    before = []
    for key in "123":
        press(viewer, key)
        before.append(picture(viewer))
    choose(viewer, "#window-high", "60")
    after = []
    for key in "321":
        press(viewer, key)
        after.append(picture(viewer))
    assert not set(before) & set(after)


def test_page_asks_for_nothing_and_complains_of_nothing(viewer: Any, page: Path) -> None:
    for index in range(4):
        choose(viewer, "#map", str(index))
    find(viewer, "#swipe").click()
    find(viewer, "#smooth").click()
    wait_until(viewer, "document.getElementById('shown').textContent.includes('|')")
    assert errors(viewer) == []
    asked = requests(viewer)
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith(("data:", "blob:"))] == []


def test_names_do_not_run(browser: Any, report: Report, tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    odd = replace(report, title=name, stages=[Stage(name, s.volume, s.metrics) for s in report.stages], command=name)
    errors(browser)
    open_page(browser, write_report(tmp_path, odd))
    # An open alert would make this raise.
    assert browser.title == name
    assert name in find(browser, "#shown").text
    assert errors(browser) == []


@pytest.mark.parametrize("width", [360, 1280, 1440, 3840])
def test_page_fits_any_width(viewer: Any, width: int) -> None:
    try:
        resize(viewer, width, 900)
        wait_until(viewer, f"window.innerWidth === {width}")
        assert viewer.execute_script("return document.documentElement.scrollWidth") <= width
        height = "document.getElementById('screen').getBoundingClientRect().height"
        wait_until(viewer, f"{height} <= 900")
        assert viewer.execute_script(f"return {height}") >= 150
    finally:
        viewer.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_tables_of_the_demos_width_need_no_scrolling(browser: Any, report: Report, tmp_path: Path) -> None:
    """Four images with intervals below each number."""
    ranges = {"psnr": (16.04, 24.15), "ssim": (0.614, 0.881), "nrmse": (0.098, 0.235), "data_misfit": (116.03, 122.28)}
    volumes = dict.fromkeys(("csf", "gm", "wm"), (1_210_700.0, 1_211_600.0))
    metrics = report.stages[-1].metrics
    assert metrics is not None
    metrics = replace(metrics, volume_mm3=dict.fromkeys(volumes, 1_211_000.0), volume_error=dict.fromkeys(volumes, -0.132))
    images = [("interpolated", None), *((stage.name, stage.volume) for stage in report.stages)]
    wide = replace(report, stages=[Stage(name, volume, metrics, ranges, volumes) for name, volume in images])
    try:
        resize(browser, 1280, 1400)
        open_page(browser, write_report(tmp_path, wide))
        for width in (1280, 1440, 1920, 3840):
            resize(browser, width, 1400)
            wait_until(browser, f"window.innerWidth === {width}")
            scrolled = "[...document.querySelectorAll('.wide')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.ariaLabel)"
            assert browser.execute_script(f"return {scrolled}") == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_tab_reaches_every_control_and_shows_where_it_is(viewer: Any) -> None:
    wanted = {"screen", "other", "blink", "every-second", "swipe", "map", "opacity", "window-low", "window-high", "smooth"}
    wanted |= {"slice-0", "slice-1", "slice-2", "radiological"}
    reached = set()
    body = find(viewer, "body")
    body.send_keys("\ue004")
    for _ in range(40):
        name, outline = viewer.execute_script(
            "const e = document.activeElement; return [e.id, getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth]"
        )
        if name in wanted:
            reached.add(name)
            assert outline == "solid3px"
        viewer.switch_to.active_element.send_keys("\ue004")
    assert reached == wanted


@pytest.mark.parametrize(("webgl", "javascript", "said"), [(False, True, "WebGL 2"), (True, False, "JavaScript is off")])
def test_slices_replace_the_viewer(page: Path, tmp_path: Path, webgl: bool, javascript: bool, said: str) -> None:
    """Without WebGL 2 or without JavaScript, with a slider that needs neither."""
    with chromium(tmp_path / "profile", webgl=webgl, javascript=javascript) as browser:
        browser.get(page.as_uri())
        if javascript:
            wait_until(browser, "!document.getElementById('no-viewer').hidden")
        assert not find(browser, "#viewer").is_displayed()
        slices = find(browser, "#slices")
        assert slices.is_displayed()
        assert said in slices.text
        visible = [figure for figure in browser.find_elements("css selector", ".slide") if figure.is_displayed()]
        assert len(visible) == 1
        first = visible[0].find_element("css selector", "figcaption").text
        find(browser, ".slides > input:checked").send_keys(KEYS["ArrowRight"])
        (second,) = [figure for figure in browser.find_elements("css selector", ".slide") if figure.is_displayed()]
        assert second.find_element("css selector", "figcaption").text != first
        assert len(second.find_elements("css selector", "img")) == 8
        assert errors(browser) == []
