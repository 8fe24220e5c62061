"""The preparation in the record of a run, and its options."""

import json
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.cli import main
from dynamicdps.operators import BiasField, Composition, read_operator
from dynamicdps.report.facts import steps_of
from tests.volumes.head import make_head

QUICK = ("--samples", "1", "--steps", "1", "--start-sigma", "0.05", "--mask", "none")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return make_head((4.0, 4.0, 3.0), (160.0, 200.0, 15.0), shading=0.5, stripped=True).volume.save(tmp_path / "scan.nii.gz")


def enhance(scan: Path, models: tuple[str, str], out: Path, *more: str) -> int:
    return main(["enhance", str(scan), "--out", str(out), "--prior", models[0], "--conditional", models[1], *QUICK, *more])


def test_every_step_is_in_the_record(scan: Path, tiny_models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert enhance(scan, tiny_models, out, "--operator", "fit", "--shading", "on") == 0
    printed = capsys.readouterr().out
    record = json.loads((out / "run.json").read_text())
    steps = {step["name"]: step for step in record["preparation"]}
    assert list(steps) == ["orientation", "brain", "contrast", "shading", "intensity"]
    assert steps["orientation"]["found"]["file"] == "RAS"
    assert steps["brain"]["found"] == {"method": "none", "brain_ml": record["brain"]["millilitres"]}
    assert steps["shading"]["found"]["kept"] is True
    assert steps["intensity"]["found"]["scanner_units"] == pytest.approx(record["intensity_scale"], rel=1e-5)
    for name in steps:
        assert f"{name}: " in printed
    assert any("shading: kept yes" in line for line in steps_of(record, None, [], None, False))
    assert "shading: kept yes" in (out / "report.html").read_text()
    operator = read_operator(out / "operator.json").operator
    assert isinstance(operator, Composition)
    assert isinstance(operator.operators[0], BiasField)
    np.testing.assert_allclose(operator.operators[0].coefficients, steps["shading"]["found"]["coefficients"], atol=1e-5)
    # The file serves as well as the fit it came from.
    again = tmp_path / "again"
    assert enhance(scan, tiny_models, again, "--operator", str(out / "operator.json")) == 0
    assert [step["name"] for step in json.loads((again / "run.json").read_text())["preparation"]] == [
        "orientation",
        "brain",
        "contrast",
        "intensity",
    ]


@pytest.mark.slow
def test_a_run_with_shading_can_be_repeated(scan: Path, tiny_models: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert enhance(scan, tiny_models, out, "--operator", "fit", "--shading", "on") == 0
    assert main(["rerun", str(out / "run.json"), "--out", str(tmp_path / "rerun")]) == 0
    assert (tmp_path / "rerun" / "enhanced.nii.gz").read_bytes() == (out / "enhanced.nii.gz").read_bytes()


def test_shading_can_be_left_out(scan: Path, tiny_models: tuple[str, str], tmp_path: Path) -> None:
    command = ["calibrate", "operator", str(scan), "--conditional", tiny_models[1], "--mask", "none"]
    for choice, kind in (("off", "LowField"), ("on", "Composition")):
        path = tmp_path / f"{choice}.json"
        assert main([*command, "--out", str(path), "--shading", choice]) == 0
        assert json.loads(path.read_text())["type"] == kind
        record = json.loads((tmp_path / f"{choice}.run.json").read_text())
        assert [step["name"] for step in record["preparation"]] == ["orientation", "brain", "contrast", "shading"]


def test_nonsense_is_refused(scan: Path, tiny_models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enhance(scan, tiny_models, tmp_path / "out", "--operator", "thick-5mm", "--shading", "on") == 2
    assert "--operator fit" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        enhance(scan, tiny_models, tmp_path / "out", "--operator", "fit", "--shading", "maybe")
    assert stop.value.code == 2
    assert not (tmp_path / "out" / "enhanced.nii.gz").exists()
