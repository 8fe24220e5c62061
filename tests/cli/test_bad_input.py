"""A user's mistake: exit code 2, one sentence on standard error, nothing left behind."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from dynamicdps.cli import main
from dynamicdps.cli.guard import check
from dynamicdps.cli.parse import read_command
from dynamicdps.cli.registry import chosen
from tests.conftest import make_phantom

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def poor(scan_files: list[Path], tmp_path: Path) -> str:
    path = tmp_path / "low" / "poor.nii.gz"
    assert main(["simulate", str(scan_files[0]), "--out", str(path)]) == 0
    return str(path)


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(command) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("dynamicdps: ")
    assert "expected" in lines[0]
    assert "Traceback" not in captured.err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--degradation", "none-such"], "iqt-in"),
        (["--gamma", "-1"], "gamma"),
        (["--in-plane-factor", "0.5"], "in_plane_factor"),
        (["--snr", "0"], "--snr"),
        (["--snr", "20", "--noise-std", "0.1"], "--snr"),
        (["--slice-thickness", "0"], "slice_thickness"),
    ],
)
def test_simulate(arguments: list[str], word: str, scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out.nii.gz"
    assert word in refused(["simulate", str(scan_files[0]), "--out", str(out), *arguments], capsys)
    assert not out.parent.exists()


def test_simulate_names(scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["simulate", str(scan_files[0]), "--out", str(tmp_path / "out.png")], capsys)
    refused(["simulate", str(tmp_path / "missing.nii.gz"), "--out", str(tmp_path / "out.nii.gz")], capsys)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--solver", "none-such"], "data-step"),
        (["--prior", "none-such"], "none-such"),
        (["--conditional", "none-such"], "none-such"),
        (["--operator", "none-such"], "none-such"),
        (["--operator", "iqt-in", "--initial", "missing.nii.gz"], "missing.nii.gz"),
        (["--samples", "0"], "--samples"),
        (["--steps", "-3"], "--steps"),
        (["--start-sigma", "0"], "start level"),
        (["--start-step", "2000"], "--start-step"),
        (["--start-step", "20", "--start-sigma", "0.1"], "--start-sigma"),
        (["--start-calibration", "missing.json"], "missing.json"),
        (["--device", "abacus"], "abacus"),
        (["--set", "steps"], "NAME=VALUE"),
        (["--set", "colour=red"], "colour"),
        (["--set", "steps=many"], "many"),
        (["--set", "gradient=uphill"], "uphill"),
        (["--start-quantile", "2"], "start_quantile"),
        (["--solver", "tv", "--start-sigma", "0.1"], "start_sigma"),
        (["--solver", "dps", "--estimate", "sample"], "estimate"),
    ],
)
def test_enhance(arguments: list[str], word: str, poor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert word in refused(["enhance", poor, "--out", str(out), *arguments], capsys)
    assert not list(out.glob("*.nii.gz"))


def odd_files(folder: Path) -> dict[str, Path]:
    """Files that are no single MR scan."""
    ball = make_phantom((12, 14, 12)).data
    voxels = {
        "several": np.stack([ball, ball], axis=-1),
        "ct": np.where(ball > 0, 40, -1000).astype(np.int16),
        "colours": np.zeros(ball.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "hole": ball.copy(),
    }
    voxels["hole"][6, 7, 6] = np.nan
    for name, data in voxels.items():
        nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"{name}.nii.gz")
    return {name: folder / f"{name}.nii.gz" for name in voxels}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("several", [], "holds 2 volumes (12 x 14 x 12 x 2); expected one; choose with --volume N, from 1 to 2"),
        ("several", ["--volume", "3"], "there is no volume 3"),
        ("several", ["--series", "3"], "expected a folder of DICOM files"),
        ("ct", [], "looks like CT"),
        ("colours", [], "is a colour picture (R, G, B)"),
        ("hole", [], "not finite"),
    ],
)
def test_odd_files_are_named_for_what_they_are_before_a_network_is_built(
    name: str,
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def built(*_: Any) -> None:
        raise AssertionError("a network was built for nothing")

    monkeypatch.setattr("dynamicdps.pipeline.enhancement.open_prior", built)
    assert words in refused(["enhance", str(odd_files(tmp_path)[name]), *arguments], capsys)
    assert not (tmp_path / f"{name}_enhanced").exists()


def test_enhance_with_the_operator_of_another_scan(
    poor: str, scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.nii.gz"
    assert main(["simulate", str(scan_files[1]), "--out", str(other)]) == 0
    assert "shape" in refused(["enhance", poor, "--out", str(tmp_path / "o"), "--operator", str(tmp_path / "other.operator.json")], capsys)


def test_out_that_is_a_file(poor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("mine")
    refused(["enhance", poor, "--out", str(tmp_path / "taken")], capsys)
    assert (tmp_path / "taken").read_text() == "mine"


def test_train(scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out = str(scan_files[0]), str(tmp_path / "t")
    refused(["train", "prior", "--out", out], capsys)
    refused(["train", "prior", scan, "--out", out, "--steps", "0"], capsys)
    refused(["train", "prior", scan, "--out", out, "--channels", "17"], capsys)
    refused(["train", "prior", scan, "--out", out, "--resume"], capsys)
    refused(["train", "unet", scan, "--out", out, "--degradation", "thick-5mm"], capsys)
    refused(["train", "unet", str(tmp_path / "missing.nii"), "--out", out], capsys)


def test_others(scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out = str(scan_files[0]), str(tmp_path / "o")
    refused(["sample", "--out", out, "--n", "0"], capsys)
    refused(["sample", "--out", out, "--prior", "none-such"], capsys)
    assert "PDw" in refused(["sample", "--out", out, "--contrast", "PDw"], capsys)
    assert "PDw" in refused(["calibrate", "start", scan, scan, "--out", str(tmp_path / "c.json"), "--contrast", "PDw"], capsys)
    refused(["calibrate", "start", scan, "--out", str(tmp_path / "c.txt")], capsys)
    refused(["calibrate", "start", "--out", str(tmp_path / "c.json")], capsys)
    refused(["calibrate", "start", scan, "--out", str(tmp_path / "c.json"), "--degradations", "thick-5mm"], capsys)
    refused(["evaluate", scan, "--truth", str(scan_files[1]), "--out", out], capsys)
    refused(["evaluate", scan, "--truth", scan, "--measurement", scan, "--out", out], capsys)
    refused(["benchmark", "--out", out], capsys)
    refused(["benchmark", scan, "--out", out, "--solvers", "none-such"], capsys)
    refused(["benchmark", scan, "--out", out, "--conditions", "iqt-out"], capsys)
    refused(["benchmark", scan, "--out", out, "--slices-per-scan", "0"], capsys)
    refused(["benchmark", scan, "--out", out, "--slab", "0"], capsys)
    settings = tmp_path / "settings.json"
    assert "missing.json" in refused(["benchmark", scan, "--out", out, "--settings", str(tmp_path / "missing.json")], capsys)
    for text, word in (("[]", "settings.json"), ("{", "settings.json"), ('{"dps": {"colour": 1}}', "colour"), ('{"none": {}}', "none")):
        settings.write_text(text)
        assert word in refused(["benchmark", scan, "--out", out, "--settings", str(settings)], capsys)
    refused(["calibrate", "start", scan, "--out", str(tmp_path / "c.json"), "--rule", "bank", "--tau", "0"], capsys)


def test_what_is_no_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes, folder, out = tmp_path / "notes.txt", tmp_path / "empty", str(tmp_path / "out")
    notes.write_text("about")
    said = refused(["enhance", str(notes), "--out", out, "--operator", "iqt-in"], capsys)
    assert "no known type" in said
    assert all(word in said for word in (".nii.gz", ".mgz", "DICOM", ".npz"))
    folder.mkdir()
    (folder / "scan.nii.gz").touch()
    said = refused(["enhance", str(folder), "--out", out, "--operator", "iqt-in"], capsys)
    assert "no DICOM image, looked for among all 1 files" in said
    assert "name an image file" in said


def test_a_record_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["rerun", str(tmp_path / "missing.json")], capsys)
    assert "missing.json" in said
    assert "Errno" not in said


def test_a_wrong_number_of_an_operator_names_its_file(poor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scanner.json").write_text('{"type": "LowField", "gamma": -1}')
    said = refused(["enhance", poor, "--out", str(tmp_path / "o"), "--operator", str(tmp_path / "scanner.json")], capsys)
    assert f"{tmp_path / 'scanner.json'}: gamma" in said


# Needed only at the end, or after the brain was found.
LATE = [
    (["--grid", "none-such"], "none-such"),
    (["--grid", "notes.txt"], "notes.txt"),
    (["--mask", "none-such"], "none-such"),
    (["--initial", "missing.nii.gz"], "missing.nii.gz"),
    (["--prior", "none-such"], "none-such"),
    (["--conditional", "none-such"], "none-such"),
    (["--device", "cpu:x"], "cpu:x"),
    (["--dicom", "archive"], "is no folder of DICOM files"),
    (["--dicom-stamp"], "without --dicom"),
]


@pytest.mark.parametrize(("arguments", "word"), LATE)
def test_what_is_needed_late_is_refused_before_the_scan_is_opened(
    arguments: list[str], word: str, poor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("about")
    monkeypatch.setattr("dynamicdps.pipeline.enhancement.open_measurement", opened)
    assert word in refused(["enhance", poor, "--out", str(tmp_path / "out"), *arguments], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--fit", "colour"], "colour"),
        (["--known", "colour=1"], "colour"),
        (["--known", "gamma=much"], "much"),
        (["--profile", "colour"], "colour"),
        (["--profile", "noise_std"], "noise_std"),
        (["--profile", "gamma", "--known", "gamma=1"], "gamma"),
        (["--mask", "none-such"], "none-such"),
        (["--initial", "missing.nii.gz"], "missing.nii.gz"),
        (["--conditional", "none-such"], "none-such"),
    ],
)
def test_calibrate_operator_before_the_scan_is_opened(
    arguments: list[str], word: str, poor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("dynamicdps.cli.run_fit.open_measurement", opened)
    assert word in refused(["calibrate", "operator", poor, "--out", str(tmp_path / "out" / "a.json"), *arguments], capsys)
    assert not (tmp_path / "out").exists()


def test_images_to_calibrate_on_are_counted_first(
    scan_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begun(*_: Any, **__: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("dynamicdps.cli.run_calibrate.calibrate_start", begun)
    command = ["calibrate", "start", str(scan_files[0]), "--out", str(tmp_path / "c" / "c.json"), "--slices-per-scan"]
    assert "--slices-per-scan is 0" in refused([*command, "0"], capsys)
    said = refused([*command, "1", "--conditional", "unet-range", "--degradations", "iqt-in"], capsys)
    assert "1 calibration images are too few; expected at least 2" in said
    assert not (tmp_path / "c").exists()


def test_all_scans_of_a_benchmark_are_read_first(
    scan_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "sub-9.nii.gz"
    broken.write_bytes(scan_files[0].read_bytes()[:500])
    said = refused(["benchmark", str(scan_files[0]), str(broken), "--out", str(tmp_path / "out")], capsys)
    assert "sub-9.nii.gz" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["none-such"], ["enhance"], ["enhance", "x.nii.gz", "--out", "o", "--none-such"]])
def test_wrong_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("script", ["image_train.py", "image_sample_all.py", "image_sample.py"])
def test_the_papers_three_commands(script: str) -> None:
    done = subprocess.run([sys.executable, REPOSITORY / script, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "--out" in done.stdout


@pytest.mark.parametrize("script", ["image_train.py", "image_sample_all.py", "image_sample.py"])
def test_without_words_they_show_a_command_that_works(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, REPOSITORY / script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    example = shlex.split(done.stdout.removeprefix("for example: "))
    assert example[:2] == ["python", script]
    # Its words are a command whose files are there.
    monkeypatch.chdir(tmp_path)
    name = {"image_train.py": ["train", "prior"], "image_sample_all.py": ["sample"], "image_sample.py": ["enhance"]}[script]
    check(chosen(read_command([*name, *example[2:]])))
