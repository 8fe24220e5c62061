"""The page holds everything, asks for nothing, and survives odd input."""

import base64
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.evaluation import StageMetrics, evaluate_volume, residual_map
from dynamicdps.operators import LowField, simulate
from dynamicdps.report import Report, Stage, write_report
from dynamicdps.report.panels import Cut
from dynamicdps.volumes import IntensityScale, Volume
from tests.conftest import make_phantom

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Elements with their attributes, the text, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report() -> Report:
    """Everything that a report can hold."""
    phantom = make_phantom()
    measurement, operator = simulate(phantom, LowField(gamma=0.7, in_plane_factor=2.0, slice_thickness=3.0, noise_std=0.03))
    noise = np.random.default_rng(0).standard_normal(phantom.shape)
    scale = IntensityScale(1.0)
    conditional, enhanced = (phantom.with_data(phantom.data + std * noise) for std in (0.05, 0.02))
    numbers = [evaluate_volume(v, phantom, scale, measurement, operator) for v in (conditional, enhanced)]
    return Report(
        title="sub-01",
        stages=[
            Stage("conditional", conditional, numbers[0]),
            Stage("dynamicdps", enhanced, replace(numbers[1], nfe=14, nbackward=0, start_sigma=0.1, seconds=3.25)),
        ],
        warnings=["The scan is noisier than the prior's."],
        truth=phantom,
        measurement=measurement,
        residual=residual_map(enhanced, measurement, operator, scale),
        uncertainty=phantom.with_data(np.abs(noise) * 0.01),
        trace=[{"step": i, "sigma": 0.1 * 0.5**i, "misfit": 1 + 40 * 0.3**i, "step_length": 0.5} for i in range(6)],
        settings={"Solver": "dynamicdps"},
        command="dynamicdps demo --seed 0",
        scale=scale,
    )


@pytest.fixture(scope="module")
def file(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "new/folder", report)


def test_page_holds_everything(file: Path) -> None:
    assert [p.name for p in file.parent.iterdir()] == ["report.html"]
    page = Page(file)
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    for text in ("sub-01", "noisier than the prior's", "conditional", "dynamicdps demo --seed 0", "Tissue volumes", "14", "3.2", "Solver"):
        assert text in page.text
    assert page.text.lower().count("research use only") == 1
    assert page.text.index("Warning") < page.text.index("PSNR")
    assert len(page.all("img")) == 6


def test_numbers_are_those_of_the_metrics(report: Report, tmp_path: Path) -> None:
    metrics = StageMetrics(31.236, 0.9871, 0.0456, 1.034, {"csf": -0.0513, "gm": 0.021, "wm": math.nan}, nfe=14)
    path = write_report(tmp_path, Report("numbers", [Stage("enhanced", report.stages[0].volume, metrics)]))
    cells = re.findall(r"<td>(.*?)</td>", path.read_text(encoding="utf-8"))
    assert cells == ["31.24", "0.987", "0.046", "1.03", "\N{MINUS SIGN}5.1", "+2.1", "\N{EN DASH}", "14"]


def test_pictures_are_png_with_words(file: Path) -> None:
    for image in Page(file).all("img"):
        assert len(image["alt"] or "") > 20
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG\r\n")


def test_page_asks_nothing_of_the_network(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    page = Page(file)
    assert not page.all("script")
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a & b's"])
def test_names_are_shown_not_run(report: Report, tmp_path: Path, name: str) -> None:
    stages = [Stage(name, stage.volume, stage.metrics) for stage in report.stages]
    odd = Report(name, stages, warnings=[name], settings={name: name}, command=name)
    page = Page(write_report(tmp_path, odd))
    assert page.open == []
    assert not page.all("script")
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert page.text.count(name) >= 6


@pytest.mark.parametrize("name", ["$\\frac{x}$", "50 % of $5", "脑 мозг 🧠", "tab\tline\nend", "", "x" * 300, "bad \udcff byte"])
def test_any_name_can_be_drawn(phantom: Volume, tmp_path: Path, name: str) -> None:
    metrics = StageMetrics(volume_mm3={"csf": 1e5, "gm": 2e5, "wm": 2e5})
    assert write_report(tmp_path, Report(name, [Stage(name, phantom, metrics)])).stat().st_size > 10_000


def test_same_report_twice_is_the_same_file(report: Report, file: Path, tmp_path: Path) -> None:
    assert write_report(tmp_path, report).read_bytes() == file.read_bytes()


def test_least_report(phantom: Volume, tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, Report("scan", [Stage("enhanced", phantom)])))
    assert len(page.all("img")) == 1
    assert not page.all("table")
    assert "Warning" not in page.text
    with pytest.raises(ValueError, match="at least one"):
        write_report(tmp_path, Report("empty", []))


@pytest.mark.parametrize("shape", [(48, 56, 1), (48, 56, 2), (16, 60, 5), (60, 16, 5)])
def test_any_shape_can_be_drawn(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    volume = make_phantom(shape, spacing=(1.0, 0.8, 5.0))
    write_report(tmp_path, Report("shape", [Stage("enhanced", volume)], truth=volume, residual=volume, uncertainty=volume))


def test_images_without_signal_can_be_drawn(phantom: Volume, tmp_path: Path) -> None:
    broken = phantom.data.copy()
    broken[10:20] = np.nan
    for data in (np.zeros(phantom.shape), np.full(phantom.shape, np.nan), broken):
        volume = phantom.with_data(data)
        write_report(tmp_path, Report("dark", [Stage("enhanced", volume)], truth=volume, residual=volume, uncertainty=volume))


def test_incomplete_trace_can_be_drawn(phantom: Volume, tmp_path: Path) -> None:
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


def test_measurement_lies_where_the_image_lies() -> None:
    """On another grid each shown voxel is the nearest one in mm, and 0 outside the field of view."""
    grid = make_phantom((24, 28, 6))
    affine = np.diag([3.0, 2.0, 4.0, 1.0])
    affine[:3, 3] = [-9.0, -13.0, -4.0]
    x, _, z = np.meshgrid(np.arange(7), np.arange(14), np.arange(3), indexing="ij")
    position = Volume((x * 3.0 - 9).astype(np.float32), affine)
    shown = Cut.whole(grid).of(position)[1]
    wanted = np.arange(24) - 11.5
    covered = np.abs(wanted) <= 10.5
    assert (np.abs(shown[covered, 14] - wanted[covered]) <= 1.5).all()
    assert (shown[~covered] == 0).all()
    height = Cut.whole(grid).of(Volume((z * 4.0 - 4).astype(np.float32), affine))
    assert [float(h[12, 14]) for h in height] == [pytest.approx(w, abs=2.0) for w in (-1.5, 0.5, 1.5)]


def test_cut_shows_slices_with_signal_only(phantom: Volume) -> None:
    padded = np.zeros((80, 90, 40), dtype=np.float32)
    padded[10:58, 20:76, 20:32] = phantom.data
    cut = Cut.through(Volume(padded, phantom.affine), 1.0)
    assert len(cut.slices) == 3
    assert all(20 <= z < 32 for z in cut.slices)
    assert 5 <= cut.x.start < 20
    assert 60 > cut.x.stop > 45
