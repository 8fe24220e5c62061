"""The page holds everything, asks for nothing, and survives odd input."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.evaluation import StageMetrics
from dynamicdps.report import Facts, Report, Stage, write_report
from dynamicdps.volumes import Volume
from tests.conftest import make_phantom

VOID = {"meta", "link", "img", "br", "input"}
SVG_SHORT = {"path", "rect", "stop"}


class Page(HTMLParser):
    """Elements with their attributes, the text that is shown, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG_SHORT
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]][-1] += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def policy(self) -> dict[str, list[str]]:
        (content,) = (m["content"] for m in self.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
        return {rule.split()[0]: rule.split()[1:] for rule in (content or "").split(";")}


def test_page_holds_everything(page: Path) -> None:
    assert [p.name for p in page.parent.iterdir()] == ["report.html"]
    shown = Page(page)
    assert shown.open == []
    assert shown.all("html") == [{"lang": "en"}]
    texts = ["sub-01", "noisier than the prior's", "initial image", "dynamicdps demo --seed 0", "Tissue volumes", "14", "3.2", "Measured."]
    texts += [
        "30.00 to 36.50",
        "gamma",
        "Data misfit by step",
        "Noise level by step",
        "Step length",
        "Start level",
        "Spectrum of the residual",
    ]
    for text in texts:
        assert text in shown.text, text
    assert shown.text.lower().count("research use only") == 1
    assert shown.text.index("Warning") < shown.text.index("Images") < shown.text.index("PSNR")
    # Each of 4 images and 4 maps in up to 12 slices.
    assert len(shown.all("img")) == 8 * len([a for a in shown.all("input") if a.get("type") == "radio"])


def test_numbers_are_those_of_the_metrics(report: Report, tmp_path: Path) -> None:
    metrics = StageMetrics(31.236, 0.9871, 0.0456, 1.034, {"csf": -0.0513, "gm": 0.021, "wm": math.nan}, nfe=14)
    stage = Stage("enhanced", report.stages[0].volume, metrics, {"psnr": (29.0, 33.3), "ssim": (math.nan, 1.0)})
    path = write_report(tmp_path, Report("numbers", [stage]))
    text = path.read_text(encoding="utf-8")
    numbers = text[text.index('id="numbers"') : text.index("</section>", text.index('id="numbers"'))]
    cells = re.findall(r"<td>(.+?)</td>", numbers)
    minus = "\N{MINUS SIGN}"
    first = "31.24<small>29.00 to 33.30</small>"
    assert cells == [first, "0.987", "0.046", "1.03", f"{minus}5.1", "+2.1", "\N{EN DASH}", "14"]


def test_volumes_have_their_intervals(report: Report, tmp_path: Path) -> None:
    metrics = StageMetrics(volume_mm3={"csf": 50_000.0, "gm": 200_000.0, "wm": 300_000.0})
    stage = Stage("enhanced", report.stages[0].volume, metrics, volume_intervals={"gm": (190_000.0, 215_000.0)})
    path = write_report(tmp_path, Report("volumes", [stage]))
    text = path.read_text(encoding="utf-8")
    assert "200.0<small>190.0 to 215.0</small>" in text
    assert text.count('class="whisker series-0"') == 1


def test_pictures_have_words(page: Path) -> None:
    shown = Page(page)
    for image in shown.all("img"):
        assert len(image["alt"] or "") > 20
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(data).startswith(b"\xff\xd8\xff")
    for chart in shown.all("svg"):
        assert chart.get("aria-hidden") == "true" or (chart["role"] == "img" and len(chart["aria-label"] or "") > 20)


def test_every_control_has_a_name(page: Path) -> None:
    """Inside a label, or with one of its own."""
    text = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    labelled = "".join(re.findall(r"<label.*?</label>", text, flags=re.DOTALL))
    for control in re.findall(r"<(?:input|select)[^>]*>", text):
        assert control in labelled or "aria-label" in control
    for button in re.findall(r"<button.*?</button>", text, flags=re.DOTALL):
        assert re.sub(r"<[^>]+>", "", button).strip()


def test_page_asks_nothing_of_the_network(page: Path) -> None:
    shown = Page(page)
    for _, attributes in shown.elements:
        for name in ("src", "href", "srcset", "poster", "action", "data"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert "url(" not in shown.inside["style"][0]
    assert "@import" not in shown.inside["style"][0]


def test_policy_allows_the_page_s_own_code_and_nothing_else(page: Path) -> None:
    shown = Page(page)
    policy = shown.policy
    assert policy["default-src"] == ["'none'"]
    assert policy["img-src"] == ["data:"]
    assert policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert not {"connect-src", "worker-src", "font-src", "frame-src"} & set(policy)

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    kinds = [attributes.get("type") for attributes in shown.all("script")]
    programs = [text for kind, text in zip(kinds, shown.inside["script"], strict=True) if kind is None]
    assert policy["script-src"] == [digest(text) for text in programs]
    assert len(programs) == 3
    assert policy["style-src"] == [digest(text) for text in shown.inside["style"]]
    # The policy's hashes do not cover attributes; none is needed.
    for _, attributes in shown.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a & b's", "</script><script>alert(1)</script>"]
)
def test_names_are_shown_not_run(report: Report, page: Path, tmp_path: Path, name: str) -> None:
    stages = [Stage(name, stage.volume, stage.metrics) for stage in report.stages]
    odd = replace(report, title=name, stages=stages, warnings=[name], facts=[Facts(name, [(name, name)])], command=name, steps=[name])
    shown = Page(write_report(tmp_path, odd))
    assert shown.open == []
    assert len(shown.all("script")) == len(Page(page).all("script"))
    assert all("onerror" not in attributes for _, attributes in shown.elements)
    assert shown.text.count(name) >= 6
    (settings,) = (text for text in shown.inside["script"] if text.startswith("{"))
    assert not set("<>&") & set(settings)
    assert json.loads(settings)["images"][1]["name"] == name


@pytest.mark.parametrize("name", ["$\\frac{x}$", "50 % of $5", "脑 мозг 🧠", "tab\tline\nend", "", "x" * 300, "bad \udcff byte"])
def test_any_name_can_be_shown(phantom: Volume, tmp_path: Path, name: str) -> None:
    metrics = StageMetrics(volume_mm3={"csf": 1e5, "gm": 2e5, "wm": 2e5})
    assert write_report(tmp_path, Report(name, [Stage(name, phantom, metrics)])).stat().st_size > 10_000


def test_same_report_twice_is_the_same_file(report: Report, page: Path, tmp_path: Path) -> None:
    assert write_report(tmp_path, report).read_bytes() == page.read_bytes()


def test_least_report(phantom: Volume, tmp_path: Path) -> None:
    shown = Page(write_report(tmp_path, Report("scan", [Stage("enhanced", phantom)])))
    assert len({a["alt"] for a in shown.all("img")}) == len(shown.all("img")) > 1
    for absent in ("Warning", "Tissue volumes", "Steps of the solver", "Residual", "Command"):
        assert absent not in shown.text
    for stages in ([], [Stage("numbers only", None, StageMetrics(psnr=30.0))]):
        with pytest.raises(ValueError, match="at least one"):
            write_report(tmp_path, Report("empty", stages))


@pytest.mark.parametrize("shape", [(48, 56, 1), (48, 56, 2), (16, 60, 5), (60, 16, 5)])
def test_any_shape_can_be_shown(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    volume = make_phantom(shape, spacing=(1.0, 0.8, 5.0))
    write_report(tmp_path, Report("shape", [Stage("enhanced", volume)], truth=volume, residual=volume, uncertainty=volume))


def test_images_without_signal_can_be_shown(phantom: Volume, tmp_path: Path) -> None:
    broken = phantom.data.copy()
    broken[10:20] = np.nan
    for data in (np.zeros(phantom.shape), np.full(phantom.shape, np.nan), broken):
        volume = phantom.with_data(data)
        write_report(tmp_path, Report("dark", [Stage("enhanced", volume)], truth=volume, residual=volume, uncertainty=volume))


def test_incomplete_trace_can_be_shown(phantom: Volume, tmp_path: Path) -> None:
    for trace in ([{"step": 0.0}], [{"step": 0.0, "misfit": math.nan, "sigma": 0.0}, {"sigma": 1.0}], [{"misfit": math.inf}]):
        write_report(tmp_path, Report("trace", [Stage("enhanced", phantom)], trace=trace))


def test_interrupted_write_keeps_the_old_page(phantom: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(tmp_path, Report("old", [Stage("enhanced", phantom)]))

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, Report("new", [Stage("enhanced", phantom)]))
    assert "old" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
