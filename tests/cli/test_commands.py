"""Each command's main job on tiny inputs."""

import json
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dynamicdps.cli import main
from dynamicdps.conditional import train_unet
from dynamicdps.networks import NeighbourConfig, NetworkConfig
from dynamicdps.training import TrainingConfig, train_prior
from dynamicdps.volumes import load

TINY = NetworkConfig(channels=(16, 16), residual_blocks=(1, 1), attention=(False, False), norm_groups=8)
TINY_PRIOR = NeighbourConfig(3, 1, TINY.channels, TINY.residual_blocks, TINY.attention, TINY.norm_groups)
STEPS = TrainingConfig(steps=2, checkpoint_every=2, bfloat16=False)


@pytest.fixture
def models(scan_files: list[Path], tmp_path: Path) -> tuple[str, str]:
    """A prior and a conditional model, trained for two steps."""
    prior = train_prior(scan_files, tmp_path / "prior", network_config=TINY_PRIOR, config=STEPS)
    unet = train_unet(scan_files, tmp_path / "unet", network_config=TINY, config=STEPS)
    return str(prior), str(unet)


@pytest.fixture
def measurement(scan_files: list[Path], tmp_path: Path) -> Path:
    path = tmp_path / "low" / "poor.nii.gz"
    assert main(["simulate", str(scan_files[0]), "--out", str(path), "--degradation", "iqt-out"]) == 0
    return path


def run_json(folder: Path, name: str = "run.json") -> dict[str, object]:
    values: dict[str, object] = json.loads((folder / name).read_text())
    assert values["exit"] == 0
    return values


def test_simulate_writes_scan_operator_and_record(scan_files: list[Path], measurement: Path) -> None:
    scan, poor = load(scan_files[0]), load(measurement)
    assert poor.shape == (12, 14, 12)
    assert poor.spacing == pytest.approx((4.0, 4.0, 1.0))
    operator = json.loads(measurement.with_name("poor.operator.json").read_text())
    assert operator["type"] == "LowField"
    assert operator["gamma"] == 0.4
    assert operator["image_shape"] == list(scan.shape)
    assert run_json(measurement.parent, "poor.run.json")["command"] == "simulate"


def test_simulate_takes_single_parameters(scan_files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "thick.nii.gz"
    command = ["simulate", str(scan_files[0]), "--out", str(out), "--gamma", "0.7", "--in-plane-factor", "2", "--blur", "0"]
    assert main([*command, "--slice-thickness", "4", "--snr", "20", "--noise", "rician"]) == 0
    operator = json.loads((tmp_path / "thick.operator.json").read_text())
    assert operator["noise_std"] == pytest.approx(0.9**0.7 / 20)
    assert (operator["slice_thickness"], operator["noise"], operator["blur"]) == (4.0, "rician", 0.0)
    assert load(out).spacing == pytest.approx((2.0, 2.0, 4.0))


def test_simulate_is_reproducible(scan_files: list[Path], tmp_path: Path) -> None:
    images = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main(["simulate", str(scan_files[0]), "--out", str(tmp_path / f"{name}.nii.gz"), "--seed", str(seed)]) == 0
        images.append(load(tmp_path / f"{name}.nii.gz").data)
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_enhance_writes_the_files_of_the_contract(
    models: tuple[str, str], measurement: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["enhance", str(measurement), "--out", str(out), "--prior", models[0], "--conditional", models[1]]
    assert main([*command, "--samples", "2", "--steps", "2", "--start-sigma", "0.05"]) == 0
    for name in ("enhanced", "initial", "measurement", "residual", "uncertainty", "hallucination"):
        assert (out / f"{name}.nii.gz").exists()
    enhanced = load(out / "enhanced.nii.gz")
    assert enhanced.shape == (48, 56, 12)
    assert (out / "report.html").read_text().lower().startswith("<!doctype html>")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["dynamicdps"]["nfe"] == 4
    assert metrics["dynamicdps"]["nbackward"] == 0
    assert metrics["dynamicdps"]["data_misfit"] < metrics["conditional"]["data_misfit"]
    assert run_json(out)["models"]
    assert not any("no denoising errors" in warning for warning in run_json(out)["warnings"])
    assert str(out / "enhanced.nii.gz") in capsys.readouterr().out
    assert not list(out.glob(".partial*"))


def test_without_a_folder_results_lie_beside_the_scan(models: tuple[str, str], measurement: Path) -> None:
    options = ["--prior", models[0], "--conditional", models[1], "--samples", "1", "--steps", "1", "--start-sigma", "0.05"]
    assert main(["enhance", str(measurement), *options]) == 0
    folder = measurement.with_name("poor_enhanced")
    assert (folder / "enhanced.nii.gz").exists()
    assert main(["rerun", str(folder / "run.json")]) == 0
    assert (measurement.with_name("poor_enhanced-rerun") / "enhanced.nii.gz").read_bytes() == (folder / "enhanced.nii.gz").read_bytes()


def test_a_prior_without_denoising_errors_is_doubted(models: tuple[str, str], measurement: Path, tmp_path: Path) -> None:
    card = Path(models[0]).with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"denoising_rmse": {}}))
    command = ["enhance", str(measurement), "--out", str(tmp_path / "out"), "--prior", models[0], "--conditional", models[1]]
    assert main([*command, "--samples", "1", "--steps", "1", "--start-sigma", "0.05"]) == 0
    assert any("no denoising errors" in warning for warning in run_json(tmp_path / "out")["warnings"])


def test_enhance_starts_from_any_volume(models: tuple[str, str], measurement: Path, scan_files: list[Path], tmp_path: Path) -> None:
    """The initial volume may be in other units and on another grid."""
    scan = load(scan_files[0])
    other = scan.with_data(scan.data * 700).save(tmp_path / "other.nii.gz")
    out = tmp_path / "out"
    command = ["enhance", str(measurement), "--out", str(out), "--prior", models[0], "--initial", str(other)]
    assert main([*command, "--solver", "data-step"]) == 0
    initial = load(out / "initial.nii.gz")
    np.testing.assert_allclose(initial.data, scan.data, atol=0.02)
    assert not (out / "uncertainty.nii.gz").exists()


def test_train_and_sample(scan_files: list[Path], tmp_path: Path) -> None:
    scans = [str(path) for path in scan_files]
    size = ["--channels", "16", "16", "--residual-blocks", "1", "1"]
    prior = tmp_path / "p"
    assert main(["train", "prior", *scans, "--out", str(prior), "--steps", "2", *size]) == 0
    assert main(["train", "prior", *scans, "--out", str(prior), "--steps", "3", "--resume", *size]) == 0
    card = json.loads((prior / "prior.json").read_text())
    assert card["steps"] == 3
    assert card["denoising_rmse"]
    assert (prior / "samples.png").exists()
    assert len((prior / "log.csv").read_text().splitlines()) == 3
    tuned = tmp_path / "tuned"
    command = ["train", "prior", *scans, "--out", str(tuned), "--steps", "1", "--learning-rate", "1e-12", *size]
    assert main([*command, "--weights", str(prior / "prior.safetensors")]) == 0
    before, after = (load_file(folder / "prior.safetensors") for folder in (prior, tuned))
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before)
    unet = tmp_path / "u"
    assert main(["train", "unet", *scans, "--out", str(unet), "--steps", "2", "--degradation", "range", *size]) == 0
    assert json.loads((unet / "unet.json").read_text())["degradation"] == "range"
    for sampler in ("heun", "ancestral"):
        out = tmp_path / sampler
        command = [
            "sample",
            "--prior",
            str(prior / "prior.safetensors"),
            "--out",
            str(out),
            "--n",
            "3",
            "--steps",
            "2",
            "--sampler",
            sampler,
        ]
        assert main([*command, "--height", "24", "--width", "16"]) == 0
        assert load(out / "samples.nii.gz").shape == (16, 24, 3)
        assert (out / "samples.png").stat().st_size > 1000
        run_json(out)


def test_calibrate_and_benchmark(models: tuple[str, str], scan_files: list[Path], tmp_path: Path) -> None:
    scans = [str(scan_files[0]), str(scan_files[2])]
    start = tmp_path / "start.json"
    command = ["calibrate", "start", *scans, "--out", str(start), "--prior", models[0], "--conditional", models[1]]
    assert main([*command, "--degradations", "iqt-in", "--slices-per-scan", "1", "--samples", "1", "--steps", "1"]) == 0
    rule = json.loads(start.read_text())
    assert rule["kind"] == "start-level"
    assert rule["sigma"] == sorted(rule["sigma"])
    assert "; T1w; " in rule["source"]
    out = tmp_path / "bench"
    command = ["benchmark", *scans, "--out", str(out), "--prior", models[0], "--conditions", f"{models[1]}/iqt-out"]
    assert main([*command, "--slices-per-scan", "2", "--solvers", "conditional,data-step"]) == 0
    header, *rows = (out / "results.csv").read_text().splitlines()
    assert header == "subject,slice,condition,solver,psnr,ssim,nrmse,data_misfit,nfe,nbackward,start_sigma,seconds,batch_size"
    assert len(rows) == 2 * 2 * 2
    summary = json.loads((out / "summary.json").read_text())
    assert summary["subjects"] == 2
    (condition,) = summary["conditions"].values()
    assert set(condition) == {"conditional", "data-step"}
    assert "against_conditional" in condition["data-step"]
    assert (out / "table.md").read_text().count("|") > 20


def test_benchmark_continues_where_it_stopped(
    models: tuple[str, str], scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finished cells are kept, and the whole is what it would have been in one go; thick slices are benchmarked as slabs."""
    scans = [str(scan_files[0]), str(scan_files[2])]
    options = ["--prior", models[0], "--slices-per-scan", "1", "--slab", "6", "--solvers", "data-step,short"]
    settings = tmp_path / "settings.json"
    settings.write_text('{"short": {"solver": "diffpir", "steps": 2, "start_sigma": 0.1}}')
    options += ["--conditions", f"{models[1]}/iqt-in,{models[1]}/thick-5mm", "--settings", str(settings)]

    def table(out: Path, *scans: str) -> list[str]:
        assert main(["benchmark", *scans, "--out", str(out), *options]) == 0
        return [",".join(row.split(",")[:-2]) for row in (out / "results.csv").read_text().splitlines()]

    parts, whole = tmp_path / "parts", tmp_path / "whole"
    first = table(parts, scans[0])
    assert len(first) == 1 + 2 * (1 + 6)
    before = (parts / "results.csv").read_text().splitlines()
    assert sorted(table(parts, *scans)) == sorted(table(whole, *scans))
    assert (parts / "results.csv").read_text().splitlines()[: len(before)] == before
    assert main(["benchmark", *scans, "--out", str(parts), *options, "--seed", "1"]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("solver", ["dynamicdps", "diffpir", "tv"])
def test_enhance_by_any_solver(solver: str, models: tuple[str, str], measurement: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {
        "dynamicdps": ["--estimate", "deterministic", "--set", "data-method=l-bfgs", "--set", "line_search=armijo"],
        "diffpir": ["--steps", "3", "--start-sigma", "0.1", "--set", "weight=2"],
        "tv": ["--set", "iterations=5"],
    }
    command = ["enhance", str(measurement), "--out", str(out), "--prior", models[0], "--conditional", models[1], "--solver", solver]
    assert main([*command, *options[solver]]) == 0
    metrics = json.loads((out / "metrics.json").read_text())[solver]
    assert metrics["nfe"] == {"dynamicdps": 5, "diffpir": 3, "tv": 0}[solver]
    assert (out / "enhanced.nii.gz").exists()
    warned = run_json(out)["warnings"]
    assert any("contrast was undone" in str(w) for w in warned) == (solver != "dynamicdps")  # type: ignore[attr-defined]


def test_the_papers_bank_is_built_and_used(models: tuple[str, str], measurement: Path, scan_files: list[Path], tmp_path: Path) -> None:
    bank = tmp_path / "bank.json"
    command = ["calibrate", "start", str(scan_files[0]), "--out", str(bank), "--prior", models[0], "--rule", "bank", "--steps", "4"]
    assert main([*command, "--degradations", "iqt-in", "--slices-per-scan", "1"]) == 0
    assert len(json.loads(bank.read_text())["means"]) == 20
    out = tmp_path / "out"
    command = ["enhance", str(measurement), "--out", str(out), "--prior", models[0], "--conditional", models[1]]
    assert main([*command, "--samples", "1", "--steps", "1", "--start-calibration", str(bank)]) == 0


def test_evaluate(measurement: Path, scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, out = str(scan_files[0]), tmp_path / "eval"
    operator = str(measurement.with_name("poor.operator.json"))
    assert main(["evaluate", truth, "--truth", truth, "--measurement", str(measurement), "--operator", operator, "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())["dynamicdps"]
    assert metrics["ssim"] == pytest.approx(1)
    assert metrics["data_misfit"] == pytest.approx(1, abs=0.1)
    assert metrics["volume_error"] == {"csf": 0.0, "gm": 0.0, "wm": 0.0}
    assert "SSIM" in capsys.readouterr().out


def test_evaluate_shows_what_lies_beside_the_result(
    models: tuple[str, str], measurement: Path, scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prior", models[0], "--conditional", models[1], "--samples", "1", "--steps", "1", "--start-sigma", "0.05"]
    assert main(["enhance", str(measurement), "--out", str(tmp_path / "out"), *words]) == 0
    scored = {}
    for name in ("enhanced", "initial"):
        image, out = str(tmp_path / "out" / f"{name}.nii.gz"), tmp_path / name
        capsys.readouterr()
        assert main(["evaluate", image, "--truth", str(scan_files[0]), "--out", str(out)]) == 0
        scored[name] = json.loads((out / "metrics.json").read_text())
        printed = capsys.readouterr().out
        assert all(stage in printed for stage in scored[name])
    assert list(scored["enhanced"]) == ["measurement", "conditional", "dynamicdps"]
    # Of an image that is no result nothing is taken from its folder.
    assert list(scored["initial"]) == ["dynamicdps"]
    assert scored["enhanced"]["conditional"] == scored["initial"]["dynamicdps"]
    assert scored["enhanced"]["measurement"]["psnr"] != scored["enhanced"]["dynamicdps"]["psnr"]


def test_what_the_page_warns_of_is_printed_and_recorded(
    models: tuple[str, str], measurement: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator that is far too sure of its noise leaves a misfit, and a scanner that sees everything leaves an empty map."""
    sure = tmp_path / "sure.json"
    sure.write_text('{"type": "Identity", "noise_std": 0.000001}')
    words = ["--prior", models[0], "--conditional", models[1], "--solver", "conditional", "--operator", str(sure)]
    assert main(["enhance", str(measurement), "--out", str(tmp_path / "out"), *words]) == 0
    printed = capsys.readouterr().out
    recorded = run_json(tmp_path / "out")["warnings"]
    page = unescape((tmp_path / "out" / "report.html").read_text())
    assert isinstance(recorded, list)
    assert any("does not explain the measurement" in warning for warning in recorded)
    for warning in recorded:
        assert f"warning: {warning}" in printed
        # The page begins each with a capital.
        assert warning[1:] in page
    assert len(recorded) == len(set(recorded))
    assert main(["report", str(tmp_path / "out")]) == 0
    assert run_json(tmp_path / "out")["warnings"] == recorded


def test_thick_slices_are_solved_as_a_volume(models: tuple[str, str], scan_files: list[Path], tmp_path: Path) -> None:
    poor, out = tmp_path / "thick.nii.gz", tmp_path / "out"
    assert main(["simulate", str(scan_files[0]), "--out", str(poor), "--degradation", "thick-5mm"]) == 0
    command = ["enhance", str(poor), "--out", str(out), "--prior", models[0], "--conditional", models[1]]
    assert main([*command, "--samples", "1", "--steps", "2", "--start-sigma", "0.1"]) == 0
    truth, enhanced = load(scan_files[0]), load(out / "enhanced.nii.gz")
    assert enhanced.shape == truth.shape
    np.testing.assert_allclose(enhanced.affine, truth.affine, atol=1e-4)
    assert load(out / "residual.nii.gz").shape == load(poor).shape
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["dynamicdps"]["data_misfit"] < 1.5
    assert metrics["dynamicdps"]["nfe"] == 2


def test_demo(scan_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The bundled models on a phantom in place of the bundled scan, which takes minutes."""
    monkeypatch.setattr("dynamicdps.pipeline.demonstration.demo_scan", lambda: scan_files[0])
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out), "--samples", "2"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["measurement", "conditional", "dynamicdps"]
    before, after = metrics["conditional"], metrics["dynamicdps"]
    assert after["psnr"] > before["psnr"] + 1
    assert after["data_misfit"] < 0.1 * before["data_misfit"]
    assert after["nfe"] == 10
    assert set(after["volume_error"]) == {"csf", "gm", "wm"}
    for name in ("enhanced", "initial", "measurement", "residual", "uncertainty"):
        assert (out / f"{name}.nii.gz").exists()
    assert (out / "report.html").stat().st_size > 50_000
    assert run_json(out)["models"]
    printed = capsys.readouterr().out
    assert "dynamicdps" in printed
    assert str(out / "report.html") in printed
