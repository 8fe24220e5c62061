"""Scans as they come: heads with their skull, DICOM folders, operators found from the scan."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.cli import main
from dynamicdps.operators import LowField, ScanOperator, simulate
from dynamicdps.volumes import Volume, load
from tests.cli.test_commands import models
from tests.volumes.dicom_files import make_stack, write_slices
from tests.volumes.head import Head, make_head

__all__ = ["models"]

OPERATOR = {"type": "LowField", "gamma": 0.8, "in_plane_factor": 3.0, "blur": 0.3, "slice_thickness": 10.0, "noise_std": 0.05}
QUICK = ("--samples", "1", "--steps", "1", "--start-sigma", "0.05")


@pytest.fixture
def head() -> Head:
    """A head of 3 x 3 x 10 mm voxels: few, so that the tests are quick."""
    return make_head((3.0, 3.0, 10.0), (180.0, 210.0, 30.0))


@pytest.fixture
def scan(head: Head, tmp_path: Path) -> Path:
    path = head.volume.save(tmp_path / "scan" / "sub-1_T1w.nii.gz")
    path.with_name("sub-1_T1w.operator.json").write_text(json.dumps(OPERATOR))
    head.volume.with_data(head.brain.astype(np.float32)).save(tmp_path / "scan" / "mask.nii.gz")
    return path


def test_enhance_keeps_the_head_around_the_brain(scan: Path, head: Head, models: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["enhance", str(scan), "--out", str(out), "--prior", models[0], "--conditional", models[1], *QUICK]
    assert main([*command, "--mask", str(scan.with_name("mask.nii.gz"))]) == 0
    enhanced, brain, mask = (load(out / f"{name}.nii.gz") for name in ("enhanced", "enhanced_brain", "brain_mask"))
    assert enhanced.spacing == pytest.approx((1.0, 1.0, 1.0), abs=1e-4)
    assert mask.shape == head.volume.shape
    # The whole head is there, skin and all, and the brain where it was.
    size = np.array(enhanced.shape) * enhanced.spacing
    assert (size >= np.array(head.volume.shape) * head.volume.spacing - 1e-3).all()
    assert (np.array(brain.shape) < np.array(enhanced.shape))[:2].all()
    # Nor do maps say anything of what lies around the brain.
    maps = load(out / "hallucination.nii.gz")
    assert maps.shape == brain.shape
    assert not maps.data[brain.data == 0].any()
    assert maps.data[brain.data != 0].any()
    # The brain's own file holds nothing around it.
    assert not brain.data[:, :, brain.shape[2] // 2][:5].any()
    outside = load(out / "enhanced.nii.gz").data[:20].max()
    assert outside > 0.5 * head.volume.data[:10].max()
    record = json.loads((out / "run.json").read_text())
    assert record["brain"]["method"].endswith("mask.nii.gz")
    assert record["brain"]["millilitres"] == pytest.approx(head.brain.sum() * 0.09, rel=1e-3)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["dynamicdps"]["data_misfit"] < metrics["conditional"]["data_misfit"]


def test_an_operator_tied_to_the_whole_scan(head: Head, models: tuple[str, str], tmp_path: Path) -> None:
    """`simulate` records the image grid of all of the head: the operator it writes must fit the head it writes."""
    good = head.volume.save(tmp_path / "good.nii.gz")
    poor = tmp_path / "poor.nii.gz"
    mask = head.volume.with_data(head.brain.astype(np.float32)).save(tmp_path / "mask.nii.gz")
    assert main(["simulate", str(good), "--out", str(poor), "--gamma", "0.8", "--noise-std", "0.05"]) == 0
    out = tmp_path / "out"
    command = ["enhance", str(poor), "--out", str(out), "--prior", models[0], "--conditional", models[1], "--mask", str(mask), *QUICK]
    assert main(command) == 0
    brain = load(out / "enhanced_brain.nii.gz")
    assert brain.shape == head.volume.shape
    np.testing.assert_allclose(brain.affine, head.volume.affine, atol=1e-4)
    assert (np.array(load(out / "enhanced.nii.gz").shape) >= head.volume.shape).all()


def test_the_grid_of_the_result(scan: Path, head: Head, models: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["enhance", str(scan), "--out", str(out), "--prior", models[0], "--conditional", models[1], *QUICK]
    assert main([*command, "--mask", str(scan.with_name("mask.nii.gz")), "--grid", "native"]) == 0
    enhanced = load(out / "enhanced.nii.gz")
    assert enhanced.shape == head.volume.shape
    np.testing.assert_allclose(enhanced.affine, head.volume.affine, atol=1e-4)
    air = head.volume.data < 0.3 * head.volume.data.max()
    far = air & ~head.brain
    ratio = enhanced.data[far].mean() / head.volume.data[far].mean()
    assert np.corrcoef(enhanced.data[far], head.volume.data[far])[0, 1] > 0.9
    assert 0.3 < ratio < 3


def test_a_dicom_folder(models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    write_slices(folder, make_stack(), series=3)
    write_slices(folder, make_stack(), series=4)
    (tmp_path / "operator.json").write_text(json.dumps({"type": "LowField", "noise_std": 0.05}))
    command = ["enhance", str(folder), "--out", str(tmp_path / "out"), "--prior", models[0], "--conditional", models[1], *QUICK]
    command += ["--operator", str(tmp_path / "operator.json"), "--mask", "none"]
    assert main(command) == 2
    assert "--series" in capsys.readouterr().err
    assert main([*command, "--series", "4"]) == 0
    assert (tmp_path / "out" / "enhanced.nii.gz").exists()


def test_calibrate_operator_and_enhance_with_it(models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = make_head((2.5, 2.5, 3.0), (150.0, 180.0, 18.0), noise=0.0, stripped=True).volume
    poor, _ = simulate(truth, ScanOperator(LowField(gamma=0.7), 0.02), seed=0)
    path = poor.save(tmp_path / "poor.nii.gz")
    found = tmp_path / "found.operator.json"
    command = ["calibrate", "operator", str(path), "--out", str(found), "--conditional", models[1], "--mask", "none"]
    assert main([*command, "--fit", "gamma,blur", "--known", "slice_thickness=3"]) == 0
    values = json.loads(found.read_text())
    assert values["slice_thickness"] == 3.0
    assert set(values["intervals"]) == {"gamma", "blur"}
    assert values["intervals"]["gamma"][0] <= values["gamma"] <= values["intervals"]["gamma"][1]
    printed = capsys.readouterr().out
    assert "gamma" in printed
    assert "given" in printed
    assert json.loads((tmp_path / "found.operator.run.json").read_text())["exit"] == 0
    assert not found.with_suffix(".profile.csv").exists()
    assert main([*command, "--fit", "gamma,blur", "--known", "slice_thickness=3", "--profile", "blur"]) == 0
    with found.with_suffix(".profile.csv").open() as file:
        rows = [{name: value if name == "parameter" else float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert {row["parameter"] for row in rows} == {"blur"}
    assert rows == sorted(rows, key=lambda row: row["blur"])
    residuals = [row["residual"] for row in rows]
    # Around the best value the scan is explained worse and worse.
    best = residuals.index(min(residuals))
    assert residuals[best:] == sorted(residuals[best:])
    assert residuals[: best + 1] == sorted(residuals[: best + 1], reverse=True)
    assert main([*command, "--fit", "gamma", "--profile", "blur"]) == 2
    assert main([*command, "--known", "thickness=3"]) == 2
    assert main([*command, "--known", "slice_thickness"]) == 2
    assert main(["calibrate", "operator", str(path), "--out", str(tmp_path / "found.txt")]) == 2
    out = tmp_path / "out"
    path.with_name("poor.json").write_text(json.dumps({"SliceThickness": 3.0}))
    command = ["enhance", str(path), "--out", str(out), "--prior", models[0], "--conditional", models[1], *QUICK]
    assert main([*command, "--mask", "none"]) == 0
    fitted = json.loads((out / "operator.json").read_text())
    assert fitted["known"] == {"slice_thickness": 3.0}
    assert json.loads((out / "run.json").read_text())["operator"]["gamma"] == fitted["gamma"]


def test_coronal_slices(models: tuple[str, str], tmp_path: Path) -> None:
    """The result is isotropic and in place whatever the direction of the slices; the fit finds the operator of that direction."""
    head = make_head((3.0, 10.0, 3.0), (150.0, 180.0, 30.0), stripped=True)
    path = head.volume.save(tmp_path / "coronal.nii.gz")
    out = tmp_path / "out"
    command = ["enhance", str(path), "--out", str(out), "--prior", models[0], "--conditional", models[1], *QUICK, "--mask", "none"]
    assert main([*command, "--operator", "fit"]) == 0
    enhanced = load(out / "enhanced.nii.gz")
    assert enhanced.spacing == pytest.approx((1.0, 1.0, 1.0), abs=1e-4)
    centres = [v.affine @ [*(np.array(v.shape) - 1) / 2, 1] for v in (enhanced, head.volume)]
    np.testing.assert_allclose(*centres, atol=0.6)
    operator = json.loads((out / "operator.json").read_text())
    assert (operator["type"], operator["axis"]) == ("SwapSliceAxis", 1)
    assert operator["inner"]["slice_spacing"] == pytest.approx(10.0)
    assert load(out / "residual.nii.gz").shape == head.volume.shape
    assert main([*command, "--operator", str(out / "operator.json")]) == 0


def test_a_mask_of_nothing(scan: Path, head: Head, models: tuple[str, str], tmp_path: Path) -> None:
    empty = Volume(np.zeros(head.volume.shape, np.float32), head.volume.affine, head.volume.native)
    empty.data[0, 0, 0] = 0.1
    path = empty.save(tmp_path / "empty.nii.gz")
    command = ["enhance", str(scan), "--out", str(tmp_path / "out"), "--prior", models[0], "--conditional", models[1]]
    assert main([*command, "--mask", str(path)]) == 2
    assert main([*command, "--mask", "no-such-thing"]) == 2
    assert not (tmp_path / "out" / "enhanced.nii.gz").exists()


def test_a_budget_of_memory(scan: Path, models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["enhance", str(scan), "--prior", models[0], "--conditional", models[1], *QUICK]
    command += ["--mask", str(scan.with_name("mask.nii.gz"))]
    results = []
    for budget in ("1.2", "8"):
        assert main([*command, "--out", str(tmp_path / budget), "--memory", budget]) == 0
        results.append(json.loads((tmp_path / budget / "run.json").read_text())["settings"]["chunk"])
    assert results[0] < results[1]
    enhanced = [load(tmp_path / budget / "enhanced_brain.nii.gz").data for budget in ("1.2", "8")]
    np.testing.assert_allclose(enhanced[0], enhanced[1], rtol=1e-4, atol=1e-4 * float(enhanced[0].max()))
    assert main([*command, "--out", str(tmp_path / "none"), "--memory", "0.5"]) == 2
    assert "raise --memory" in " ".join(capsys.readouterr().err.split())
