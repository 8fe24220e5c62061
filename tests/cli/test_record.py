"""Which runs are recorded in run.json, and what those that are refused or interrupted leave."""

import json
from pathlib import Path
from typing import Any

import pytest

from dynamicdps.cli import main
from tests.cli.test_bad_input import refused
from tests.cli.test_guard import contents
from tests.conftest import make_phantom

TINY = ["--channels", "16", "16", "--residual-blocks", "1", "1"]


@pytest.fixture
def good(tmp_path: Path) -> str:
    return str(make_phantom((24, 20, 6)).save(tmp_path / "good.nii.gz"))


def exit_code(folder: Path) -> object:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["exit"]


def test_a_refused_run_leaves_no_folder(good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(make_phantom((20, 20, 6)).save(tmp_path / "other.nii.gz"))
    out = tmp_path / "a" / "b"
    refused(["evaluate", other, "--truth", good, "--out", str(out)], capsys)
    refused(["sample", "--out", str(out), "--prior", "none-such"], capsys)
    refused(["train", "prior", good, "--out", str(out), *TINY, "--resume"], capsys)
    refused(["calibrate", "start", other, "--out", str(out / "c.json"), "--prior", "none-such"], capsys)
    assert not (tmp_path / "a").exists()
    # A folder that was there stays.
    out.mkdir(parents=True)
    refused(["sample", "--out", str(out), "--prior", "none-such"], capsys)
    assert list(out.iterdir()) == []


def test_a_refused_run_leaves_the_record_of_a_finished_one(good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(make_phantom((20, 20, 6)).save(tmp_path / "other.nii.gz"))
    out = tmp_path / "out"
    assert main(["evaluate", good, "--truth", good, "--out", str(out)]) == 0
    before = contents(out)
    refused(["evaluate", other, "--truth", good, "--out", str(out)], capsys)
    assert contents(out) == before


def test_a_refused_training_leaves_the_record_of_the_first(good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second, out = str(make_phantom((24, 20, 6), seed=1).save(tmp_path / "b.nii.gz")), tmp_path / "out"
    command = ["train", "prior", good, second, "--out", str(out), *TINY, "--steps", "1"]
    assert main(command) == 0
    before = contents(out)
    refused([*command, "--resume", "--seed", "1"], capsys)
    assert contents(out) == before


def test_a_fault_is_recorded(good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr("dynamicdps.cli.run_evaluate.evaluate_volume", faulty)
    with pytest.raises(KeyError):
        main(["evaluate", good, "--truth", good, "--out", str(tmp_path / "out")])
    assert exit_code(tmp_path / "out") == 1


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_run_is_recorded(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dynamicdps.cli.run_evaluate.evaluate_volume", interrupted)
    assert main(["evaluate", good, "--truth", good, "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "dynamicdps: interrupted; it was not finished; run it again\n"
    assert exit_code(tmp_path / "out") == 130


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second, out = str(make_phantom((24, 20, 6), seed=1).save(tmp_path / "b.nii.gz")), tmp_path / "out"
    command = ["train", "unet", good, second, "--out", str(out), *TINY, "--checkpoint-every", "1"]
    with monkeypatch.context() as patch:
        patch.setattr("dynamicdps.cli.run_train.train_unet", interrupted)
        assert main([*command, "--steps", "2"]) == 130
        assert capsys.readouterr().err == "dynamicdps: interrupted; it was not finished; run it again\n"
    assert main([*command, "--steps", "1"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("dynamicdps.cli.run_train.train_unet", interrupted)
        assert main([*command, "--steps", "2", "--resume"]) == 130
        assert "the last checkpoint is kept; run the same command with --resume to go on" in capsys.readouterr().err
    assert exit_code(out) == 130
    assert main([*command, "--steps", "2", "--resume"]) == 0


def test_what_many_scans_have_given_is_kept(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dynamicdps.cli.run_benchmark.run_benchmark", interrupted)
    assert main(["benchmark", good, "--out", str(tmp_path / "out"), "--conditions", "identity/iqt-in", "--solvers", "data-step"]) == 130
    assert capsys.readouterr().err == "dynamicdps: interrupted; what was finished is kept; run the same command again to go on\n"


def test_only_its_sentence_is_said_of_what_is_refused(good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "prior", good, "--out", str(tmp_path / "out"), *TINY, "--resume"]) == 2
    assert capsys.readouterr().err.startswith("dynamicdps: ")
