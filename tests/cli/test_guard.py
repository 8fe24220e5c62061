"""What is refused before anything is computed: results in the place of their inputs, and seeds out of their range."""

import json
import os
from pathlib import Path

import pytest

from dynamicdps.cli import commands, main
from dynamicdps.cli.guard import written
from tests.cli.test_bad_input import refused
from tests.cli.tiny import write_tiny
from tests.conftest import make_phantom


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scan, its operator and a prior under the names that commands write."""
    place = tmp_path / "out"
    for name in ("scan", "initial", "enhanced", "brain_mask", "samples"):
        make_phantom((24, 20, 6)).save(place / f"{name}.nii.gz")
    for name in ("operator.json", "start-level.json", "conditions.json", "scan.json", "enhanced.operator.json"):
        (place / name).write_text("{}")
    write_tiny(place / "prior.safetensors", "prior")
    (place / "link.nii.gz").symlink_to(place / "enhanced.nii.gz")
    return place


@pytest.mark.parametrize(
    "words",
    [
        "simulate scan.nii.gz --out scan.nii.gz",
        "simulate scan.nii.gz --out ../out/scan.nii.gz",
        "simulate link.nii.gz --out enhanced.nii.gz",
        "enhance enhanced.nii.gz --out .",
        "enhance link.nii.gz --out .",
        "enhance scan.nii.gz --out . --initial initial.nii.gz",
        "enhance scan.nii.gz --out . --mask brain_mask.nii.gz",
        "enhance scan.nii.gz --out . --grid initial.nii.gz",
        "enhance scan.nii.gz --out . --operator fit --start-calibration start-level.json",
        "evaluate scan.nii.gz --truth initial.nii.gz --measurement scan.nii.gz --operator metrics.json --out .",
        "calibrate start scan.nii.gz --out prior.json --prior prior.safetensors",
        "calibrate operator scan.nii.gz --out scan.json",
        "train prior scan.nii.gz --out . --weights prior.safetensors",
        "sample --out . --prior samples.nii.gz",
        "benchmark scan.nii.gz --out . --degradations conditions.json",
    ],
)
def test_no_result_takes_the_place_of_an_input(
    words: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "metrics.json").write_text("{}")
    before = contents(folder)
    assert "written over" in refused(words.split(), capsys)
    assert contents(folder) == before


def test_hard_links_and_other_folders(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    os.link("scan.nii.gz", "other.nii.gz")
    assert "written over" in refused(["simulate", "scan.nii.gz", "--out", "other.nii.gz"], capsys)
    assert main(["simulate", "scan.nii.gz", "--out", "low/scan.nii.gz"]) == 0


def test_what_lies_in_the_folder_for_results_may_be_read(folder: Path, tiny_models: tuple[str, str]) -> None:
    """A measurement, and an operator that `calibrate operator` put there."""
    low = folder / "low.nii.gz"
    assert main(["simulate", str(folder / "scan.nii.gz"), "--out", str(low)]) == 0
    (folder / "low.operator.json").rename(folder / "operator.json")
    before = (folder / "operator.json").read_bytes()
    words = ["--prior", tiny_models[0], "--conditional", tiny_models[1], "--solver", "data-step", "--mask", "none"]
    assert main(["enhance", str(low), "--out", str(folder), "--operator", str(folder / "operator.json"), *words]) == 0
    assert (folder / "operator.json").read_bytes() == before
    assert main(["evaluate", str(folder / "enhanced.nii.gz"), "--truth", str(folder / "scan.nii.gz"), "--out", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0


def test_a_rerun_is_guarded_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low = tmp_path / "low" / "scan.nii.gz"
    assert main(["simulate", str(folder / "scan.nii.gz"), "--out", str(low)]) == 0
    before = contents(folder)
    assert "written over" in refused(["rerun", str(low.with_name("scan.run.json")), "--out", str(folder)], capsys)
    assert contents(folder) == before


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_that_is_written_is_known(tiny_models: tuple[str, str], tmp_path: Path) -> None:
    good, out = make_phantom((24, 20, 6)).save(tmp_path / "good.nii.gz"), tmp_path / "out"
    prior, unet = tiny_models
    low = tmp_path / "low" / "a.nii.gz"
    assert main(["simulate", str(good), "--out", str(low)]) == 0
    assert names(low.parent) == set(written(commands.Simulate(good, low))[1])
    words = ["--prior", prior, "--conditional", unet, "--samples", "2", "--steps", "1", "--set", "keep_samples=true", "--mask", "none"]
    assert main(["enhance", str(low), "--out", str(out / "e"), *words, "--grid", "native"]) == 0
    assert names(out / "e") <= set(written(commands.Enhance((low,), out=out / "e"))[1])
    assert {"enhanced.nii.gz", "samples.nii.gz", "brain_mask.nii.gz"} <= names(out / "e")
    assert main(["sample", "--out", str(out / "s"), "--prior", prior, "--n", "1", "--steps", "1", "--height", "32", "--width", "32"]) == 0
    assert names(out / "s") == set(written(commands.Sample(out / "s"))[1])
    assert main(["evaluate", str(good), "--truth", str(good), "--out", str(out / "v")]) == 0
    assert names(out / "v") == set(written(commands.Evaluate(good, good, out / "v"))[1])
    smallest = ["--steps", "1", "--channels", "16", "16", "--residual-blocks", "1", "1"]
    assert (
        main(["train", "prior", str(good), str(make_phantom((24, 20, 6)).save(tmp_path / "b.nii.gz")), "--out", str(out / "t"), *smallest])
        == 0
    )
    assert names(out / "t") <= set(written(commands.TrainPrior((good,), out / "t"))[1])


SEEDED = [
    "simulate scan.nii.gz --out a/b.nii.gz",
    "enhance scan.nii.gz --out a",
    "demo --out a",
    "sample --out a",
    "train prior scan.nii.gz --out a",
    "train operator-fit scan.nii.gz --out a",
    "calibrate start scan.nii.gz --out a/c.json",
    "benchmark scan.nii.gz --out a",
    "cohort . a",
]


@pytest.mark.parametrize("command", SEEDED)
@pytest.mark.parametrize("seed", ["99999999999999999999", "9223372036854775808", "-1"])
def test_seeds_out_of_range(
    command: str, seed: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    said = refused([*command.split(), "--seed", seed], capsys)
    assert said == f"dynamicdps: --seed is {seed}; expected a whole number from 0 to 9223372036854775807"
    assert not (folder / "a").exists()


def test_the_largest_seed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "low" / "a.nii.gz"
    assert main(["simulate", str(folder / "scan.nii.gz"), "--out", str(out), "--seed", str(2**63 - 1)]) == 0
    assert json.loads(out.with_name("a.run.json").read_text())["arguments"]["seed"] == 2**63 - 1
