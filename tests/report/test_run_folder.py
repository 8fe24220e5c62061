"""The page of a folder is the page of its run."""

import base64
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dynamicdps.cli import main
from dynamicdps.errors import InputError
from dynamicdps.report import read_report
from dynamicdps.report.facts import made_of, operator_facts
from dynamicdps.report.page import render
from dynamicdps.report.run_folder import command_of
from dynamicdps.report.trace import read_rows, write_rows
from dynamicdps.report.viewer import make_viewer
from dynamicdps.volumes import Volume
from tests.conftest import make_phantom


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What enhance writes, from a scan with an odd name."""
    folder = tmp_path_factory.mktemp("run")
    phantom = make_phantom()
    scan = folder / "<script>alert('x')<script>.nii.gz"
    truth = phantom.save(folder / "truth.nii.gz")
    assert main(["simulate", str(truth), "--out", str(scan), "--degradation", "iqt-in"]) == 0
    noisy = phantom.with_data(phantom.data + 0.05 * np.random.default_rng(0).standard_normal(phantom.shape) * (phantom.data > 0))
    initial = noisy.save(folder / "initial.nii.gz")
    command = ["enhance", str(scan), "--out", str(folder / "out"), "--initial", str(initial), "--solver", "data-step"]
    assert main(command) == 0
    return folder / "out"


def test_tissue_volumes_reach_page_and_summary(run: Path, tmp_path: Path) -> None:
    """Of initial image and estimate; intervals from metrics.json are the whiskers; a slab is called one."""
    metrics = json.loads((run / "metrics.json").read_text())
    for stage in ("conditional", "data-step"):
        assert set(metrics[stage]["volumes_mm3"]) == {"csf", "gm", "wm"}
    assert "volumes_interval_mm3" not in metrics["data-step"]
    report = read_report(run)
    assert report.stages[-1].metrics is not None
    assert report.stages[-1].metrics.volume_mm3 == metrics["data-step"]["volumes_mm3"]
    slab = "of the slab that was scanned"
    assert (slab in (run / "report.html").read_text(encoding="utf-8")) == json.loads((run / "run.json").read_text())["slab"]
    folder = tmp_path / "samples"
    folder.mkdir()
    for file in run.iterdir():
        (folder / file.name).symlink_to(file)
    grey = metrics["data-step"]["volumes_mm3"]["gm"]
    metrics["data-step"]["volumes_interval_mm3"] = {"gm": [0.9 * grey, 1.1 * grey]}
    facts = json.loads((run / "run.json").read_text()) | {"slab": True}
    for name, values in (("metrics.json", metrics), ("run.json", facts)):
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(values))
    text = render(read_report(folder))
    assert text.count('class="whisker') == 1
    assert slab in text
    assert f"{0.9 * grey / 1000:.1f} to {1.1 * grey / 1000:.1f}" in text


def test_the_top_says_how_it_was_made(run: Path) -> None:
    """Time and models before all else; what a sample is, where there are samples."""
    facts = json.loads((run / "run.json").read_text()) | {"durations": {"expected": 9.0, "solve": 70.0, "total": 125.2}}
    mean = {"estimate": "mean", "samples": 2}
    for settings, first in (
        (mean, "Mean of 2 posterior samples, "),
        (mean | {"samples": 1}, "One posterior sample, "),
        ({"estimate": "deterministic", "samples": 2}, "One run without noise, "),
        ({}, "M"),
    ):
        made = made_of(facts | {"settings": settings, "cards": {"prior": {"name": "brain"}, "conditional": {"name": "mine"}}})
        assert made.startswith(first)
        assert "ade in 2 min 5 s, prior brain, conditional model mine." in made
        assert ("One sample is " in made) == ("posterior sample" in first)
    assert made_of({}) == ""
    text = (run / "report.html").read_text(encoding="utf-8")
    assert text.index("prior brain") < text.index('id="images"')


def test_page_made_again_is_the_same(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = (run / "report.html").read_bytes()
    moved = tmp_path / "moved"
    run.rename(moved)
    (moved / "report.html").unlink()
    assert main(["report", str(moved)]) == 0
    assert (moved / "report.html").read_bytes() == first
    assert str(moved / "report.html") in capsys.readouterr().out
    assert not list(moved.glob(".partial*"))
    moved.rename(run)


def test_page_says_what_was_done(run: Path) -> None:
    report = read_report(run)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert report.title == "Enhanced scan: <script>alert('x')<script>.nii.gz"
    assert "<script>alert" not in text
    assert "Measurement &lt;script&gt;alert(" in text
    assert [stage.name for stage in report.stages] == ["initial image", "enhanced"]
    after, before = report.stages[1].metrics, report.stages[0].metrics
    assert after is not None
    assert before is not None
    assert after.data_misfit < before.data_misfit  # type: ignore[operator]
    low, high = report.stages[1].ranges["data_misfit"]
    assert low <= after.data_misfit <= high  # type: ignore[operator]
    headings = {table.heading: dict(table.rows) for table in report.facts}
    assert headings["Operator: LowField"]["gamma"] == "0.8 (exponent of the contrast)"
    assert headings["Operator: LowField"]["noise std"].endswith("of the intensity range")
    assert len(headings["Model: prior"]["SHA-256"]) == 64
    assert {"dynamicdps", "torch", "seed", "time: total"} <= set(headings["Run"])
    assert report.command.startswith("dynamicdps enhance")


def test_headers_do_not_reach_the_page(run: Path) -> None:
    """Whatever a file's header says beside its grid."""
    path = run / "measurement.nii.gz"
    before = path.read_bytes()
    image = nib.load(path)
    image.header["descrip"] = b"DOE^JANE 19700101"
    image.header["intent_name"] = b"PATIENT-4711"
    nib.save(image, path)
    try:
        report = read_report(run)
        page = render(report)
        packed = [gzip.decompress(base64.b64decode(e.text)) for e in make_viewer(report).embedded.values()]
        for secret in ("DOE^JANE", "PATIENT-4711"):
            assert secret not in page
            assert all(secret.encode() not in data for data in packed)
    finally:
        path.write_bytes(before)


def test_files_that_are_missing_or_broken(run: Path, tmp_path: Path, phantom: Volume) -> None:
    for name in ("enhanced.nii.gz", "run.json"):
        folder = tmp_path / name
        folder.mkdir()
        for file in run.iterdir():
            if file.name != name:
                (folder / file.name).symlink_to(file)
        with pytest.raises(InputError, match=f"holds no {name}"):
            read_report(folder)
    least = tmp_path / "least"
    least.mkdir()
    phantom.save(least / "enhanced.nii.gz")
    (least / "run.json").write_text("{}")
    assert read_report(least).title == "Enhanced scan: least"
    phantom.with_data(np.zeros(phantom.shape)).save(least / "residual.nii.gz")
    (warning,) = read_report(least).warnings
    assert "residual.nii.gz is not shown" in warning
    assert str(least) not in warning
    for name, text in (("metrics.json", "[]"), ("metrics.json", "{"), ("trace.csv", "step\nx\n"), ("run.json", "nonsense")):
        before = (least / name).read_text() if (least / name).exists() else None
        (least / name).write_text(text)
        with pytest.raises(InputError, match=name):
            read_report(least)
        (least / name).unlink() if before is None else (least / name).write_text(before)


def test_a_misfit_that_is_too_high_is_said_first(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for file in run.iterdir():
        (folder / file.name).symlink_to(file)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["data-step"]["data_misfit"] = 7.25
    facts = json.loads((run / "run.json").read_text()) | {"exit": 1}
    for name, values in (("metrics.json", metrics), ("run.json", facts)):
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(values))
    first, second, *_ = read_report(folder).warnings
    assert "exit code 1" in first
    assert "7.2 times the noise" in second


def test_commands_can_be_typed_again() -> None:
    assert command_of({"command": "demo", "argv": ["demo", "--out", "a b"]}) == "dynamicdps demo --out 'a b'"
    assert command_of({"command": "enhance", "argv": ["scan.nii", "--out", "o"]}) == "dynamicdps enhance scan.nii --out o"


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = [{"step": 0.0, "misfit": 12.34567}, {"step": 1.0, "misfit": float("inf")}]
    write_rows(tmp_path / "trace.csv", rows)
    assert read_rows(tmp_path / "trace.csv") == [{"step": 0.0, "misfit": 12.3457}, {"step": 1.0, "misfit": float("inf")}]
    write_rows(tmp_path / "trace.csv", [])
    assert read_rows(tmp_path / "trace.csv") == []
    assert list(tmp_path.iterdir()) == []


def test_fitted_parameters_have_intervals_and_parts_are_named() -> None:
    values = {
        "type": "Composition",
        "operators": [{"type": "Blur", "blur": 1.25}, {"type": "LowField", "gamma": 0.4, "intervals": {"gamma": [0.38, 0.43]}}],
        "noise_std": 0.01,
        "map": list(range(100)),
    }
    whole, blur, low_field = operator_facts(values)
    assert dict(whole.rows) == {"noise std": "0.01 of the intensity range", "map": "100 values"}
    assert (blur.heading, dict(blur.rows)) == ("Operator, part 1: Blur", {"blur": "1.25 image voxels"})
    assert dict(low_field.rows)["gamma"] == "0.4 (exponent of the contrast) (95 %: 0.38 to 0.43)"


def test_the_scale_of_the_brain_sets_the_window(tmp_path: Path, phantom: Volume) -> None:
    """Of a head, not the bright skin around it; a run without one is scaled by its image."""
    bright = phantom.with_data(np.where(phantom.data > 0, phantom.data, 0))
    bright.data[:4] = 20 * phantom.data.max()
    bright.save(tmp_path / "enhanced.nii.gz")
    run = {"command": "enhance", "exit": 0, "intensity_scale": 1.25}
    for name, expected in (("intensity_scale", 1.25), ("something_else", None)):
        (tmp_path / "run.json").write_text(json.dumps({name if key == "intensity_scale" else key: value for key, value in run.items()}))
        report = read_report(tmp_path)
        assert (None if report.scale is None else report.scale.scale) == expected
