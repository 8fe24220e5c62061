"""Structures in the report: a map with a name for each voxel, an outline, and a table."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamicdps.report import Report, Stage, read_report, write_report
from dynamicdps.report.colours import LabelColours
from dynamicdps.report.viewer import make_viewer
from dynamicdps.volumes import Volume
from tests.properties import input_error
from tests.report.browser import chromium, errors, open_page, wait_until
from tests.segmentation.coded_heads import SKIN, coded_head

NAMES = {4: ("left ventricles", "#781286"), 43: ("right ventricles", "#781286"), 16: ("brain stem", "#779fb0"), 99: ("nowhere", "#000000")}


@pytest.fixture(scope="module")
def segmented() -> Report:
    """Ventricles on both sides of the middle, a brain stem below, and a mask."""
    head = coded_head()
    x, _, z = np.meshgrid(*(np.arange(n) for n in head.shape), indexing="ij")
    brain = (head.data > 0) & (head.data < SKIN)
    labels = np.where(brain, np.where(z < 20, 16, np.where(x < 26, 4, 43)), 0)
    return Report(
        title="sub-01",
        stages=[Stage("enhanced", head)],
        labels=head.with_data(labels),
        label_names=NAMES,
        brain_mask=head.with_data(brain),
        structures=[
            {"structure": "ventricles", "side": "left", "mm3": "10500", "low": "9000", "high": "12000", "confidence": "0.9"},
            {"structure": "ventricles", "side": "right", "mm3": "9500", "low": "n/a", "high": "n/a", "confidence": "n/a"},
            {"structure": "brain stem", "side": "n/a", "mm3": "20000", "low": "19000", "high": "21000", "confidence": "0.8"},
        ],
    )


def test_labels_keep_their_colours_between_the_steps_of_the_table() -> None:
    colours = LabelColours(tuple(f"left {i}" for i in range(31)), tuple(f"#{8 * i:02x}{255 - 8 * i:02x}80" for i in range(31)))
    table = colours.entry()["positive"]
    assert (table["I"][0], table["I"][-1], table["A"][0]) == (0, 255, 0)
    assert table["I"] == sorted(set(table["I"]))
    for k, colour in enumerate(colours.colours, start=1):
        for value in colours.value(k) + np.array([-2, 0, 2]):
            drawn = [np.interp(value, table["I"], table[channel]) for channel in "RGB"]
            assert drawn == list(bytes.fromhex(colour[1:]))
        np.testing.assert_array_equal(colours.on_black(np.array([colours.value(k)]))[0], drawn)
    with pytest.raises(ValueError, match="at most 31"):
        LabelColours(("a",) * 32, ("#000000",) * 32)


def test_the_outline_is_the_rim_of_the_mask_on_the_grid_of_the_image(segmented: Report) -> None:
    mask, image = segmented.brain_mask, segmented.stages[0].volume
    assert mask is not None
    assert image is not None
    coarse = Volume(mask.data[::2, ::2, ::2], mask.affine @ np.diag([2, 2, 2, 1]))
    for given in (mask, coarse):
        (outline,) = (shown.volume for shown in make_viewer(replace(segmented, brain_mask=given)).maps if shown.name == "brain outline")
        assert outline.shape == image.shape
        there = outline.data > 0
        assert 0.02 < there.mean() < 0.5 * mask.data.mean()
        # The middle of the brain is no rim.
        assert not there[20:32, 24:36, 22:32].any()


def test_the_page_has_key_table_and_names(segmented: Report, tmp_path: Path) -> None:
    text = write_report(tmp_path, segmented).read_text(encoding="utf-8")
    for words in ("10.50<small>9.00 to 12.00</small>", "<td>9.50</td>", "20.00<small>19.00 to 21.00</small>"):
        assert words in text
    # One entry for both sides; none for what is nowhere.
    assert text.count("</svg> ventricles</li>") == text.count("</svg> brain stem</li>") == 2
    assert "nowhere" not in text


@pytest.fixture(scope="module")
def browser(segmented: Report, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        open_page(opened, write_report(tmp_path_factory.mktemp("page"), segmented))
        if opened.execute_script("return document.getElementById('viewer').hidden"):
            pytest.skip("Chromium has no WebGL 2 here, not even in software")
        yield opened


def picture(browser: Any) -> bytes:
    wait_until(browser, "document.getElementById('screen').ariaBusy === 'false'")
    image: bytes = browser.find_element("css selector", "#screen").screenshot_as_png
    return image


def choose(browser: Any, name: str, value: str) -> None:
    script = "arguments[0].value = arguments[1]; for (const e of ['input', 'change']) arguments[0].dispatchEvent(new Event(e))"
    browser.execute_script(script, browser.find_element("css selector", name), value)


def test_the_viewer_names_what_lies_at_the_crosshair_and_lays_it_over_the_image(browser: Any) -> None:
    seen = set()
    browser.find_element("css selector", "#screen").send_keys("\ue00e" * 2)
    wait_until(browser, "!document.querySelector('.values table').textContent.includes('\u2026')")
    for keys in ("", "\ue014" * 8, "\ue012" * 16, "\ue00f" * 20):
        if keys:
            browser.find_element("css selector", "#screen").send_keys(keys)
        seen.add(browser.execute_script("return document.querySelector('[data-value=\"1\"]').textContent"))
    assert {"left ventricles", "right ventricles", "brain stem"} <= seen
    pictures = [picture(browser)]
    for number, opacity in (("0", "100"), ("0", "30"), ("0", "0"), ("1", "100")):
        choose(browser, "#map", number)
        choose(browser, "#opacity", opacity)
        pictures.append(picture(browser))
    assert len({*pictures}) >= 4
    assert errors(browser) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dseg.tsv", "index\tname\tcolor\n4\tventricles\tred\n"),
        ("dseg.tsv", "index\tname\n4\tventricles\n"),
        ("dseg.tsv", "index\tname\tcolor\n" + "".join(f"{i}\tpart {i}\t#101010\n" for i in range(1, 40))),
        ("structures.tsv", "structure\tside\tmm3\nthalamus\tleft\tmuch\n"),
        ("structures.tsv", "structure\tside\tmm3\tlow\thigh\nthalamus\tabove\t3\tn/a\tn/a\n"),
    ],
)
def test_damaged_tables_are_refused(name: str, text: str, segmented: Report, tmp_path: Path) -> None:
    image = segmented.stages[0].volume
    assert image is not None
    image.save(tmp_path / "enhanced.nii.gz")
    (tmp_path / "run.json").write_text("{}")
    read_report(tmp_path)
    (tmp_path / name).write_text(text)
    with input_error("of another kind"):
        read_report(tmp_path)
