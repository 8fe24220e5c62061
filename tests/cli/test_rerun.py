"""run.json is enough to repeat a run, and to say what differs."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import torch

from dynamicdps.cli import main
from dynamicdps.cli.commands import Enhance, Simulate, Train, TrainPrior
from dynamicdps.cli.parse import read_command
from dynamicdps.cli.run_rerun import restore
from dynamicdps.models.model_file import file_hash
from dynamicdps.pipeline import EnhanceOptions
from dynamicdps.pipeline.options import as_words


@pytest.fixture
def first(tiny_models: tuple[str, str], scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Output folder of a tiny run."""
    poor = tmp_path / "low" / "poor.nii.gz"
    assert main(["simulate", str(scan_files[0]), "--out", str(poor)]) == 0
    command = ["enhance", str(poor), "--prior", tiny_models[0], "--conditional", tiny_models[1], "--out", str(tmp_path / "first")]
    assert main([*command, "--samples", "2", "--steps", "2", "--seed", "3"]) == 0
    capsys.readouterr()
    return tmp_path / "first"


def test_the_record(first: Path, tiny_models: tuple[str, str]) -> None:
    record = json.loads((first / "run.json").read_text())
    poor = first.parent / "low" / "poor.nii.gz"
    files = (poor, poor.with_name("poor.operator.json"), *map(Path, tiny_models))
    assert record["inputs"] == {str(path): file_hash(path) for path in files}
    assert record["argv"][:2] == ["enhance", str(poor)]
    assert record["argv"][-1] == "3"
    assert record["machine"]["threads"] == torch.get_num_threads()
    assert set(record["machine"]) == {"system", "processor", "instructions", "gpu", "threads"}
    assert (record["arguments"]["precision"], record["arguments"]["seed"]) == ("float32", 3)
    assert record["models"]["prior"] == file_hash(Path(tiny_models[0]))


def test_argv_is_that_of_main(scan_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "something", "else"])
    words = ["simulate", str(scan_files[0]), "--out", str(tmp_path / "a.nii.gz")]
    assert main(words) == 0
    assert json.loads((tmp_path / "a.run.json").read_text())["argv"] == words
    monkeypatch.setattr(sys, "argv", ["dynamicdps", *words])
    assert main() == 0
    assert json.loads((tmp_path / "a.run.json").read_text())["argv"] == words


def test_the_same_bytes(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerun", str(first / "run.json"), "--out", str(tmp_path / "second")]) == 0
    printed = capsys.readouterr().out
    assert "differs" not in printed
    assert "0 have others" in printed
    for name in ("enhanced", "initial", "residual", "uncertainty"):
        assert (first / f"{name}.nii.gz").read_bytes() == (tmp_path / "second" / f"{name}.nii.gz").read_bytes()
    assert main(["rerun", str(first / "run.json")]) == 0
    assert (tmp_path / "first-rerun" / "enhanced.nii.gz").read_bytes() == (first / "enhanced.nii.gz").read_bytes()


def test_files_hold_no_time(first: Path) -> None:
    """The fields of RFC 1952 and the names inside."""
    head = (first / "enhanced.nii.gz").read_bytes()[:10]
    assert head[4:8] == bytes(4)
    assert gzip.decompress((first / "enhanced.nii.gz").read_bytes())[:4] == (348).to_bytes(4, "little")


def test_what_differs_is_said(first: Path, tiny_models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poor = tmp_path / "low" / "poor.nii.gz"
    record = json.loads((first / "run.json").read_text())
    record["versions"]["torch"] = "0.1"
    record["machine"]["processor"] = "abacus"
    (first / "run.json").write_text(json.dumps(record))
    assert main(["simulate", record["inputs"] and str(tmp_path / "scans" / "sub-0.nii.gz"), "--out", str(poor), "--seed", "9"]) == 0
    capsys.readouterr()
    assert main(["rerun", str(first / "run.json"), "--out", str(tmp_path / "second")]) == 0
    printed = capsys.readouterr().out
    assert f"differs: {poor} has other contents" in printed
    assert f"differs: torch is {torch.__version__.split('+')[0]}" in printed
    assert "was abacus" in printed
    assert "differs: " + tiny_models[0] not in printed
    assert "enhanced.nii.gz" in printed.split("have others")[1]


def test_other_commands(scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(scan_files[0]), "--out", str(tmp_path / "a" / "s.nii.gz"), "--seed", "4"]) == 0
    assert main(["rerun", str(tmp_path / "a" / "s.run.json"), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / "s.nii.gz").read_bytes() == (tmp_path / "b" / "s.nii.gz").read_bytes()
    assert "2 files have the same bytes, 0 have others" in capsys.readouterr().out
    command = ["evaluate", str(scan_files[0]), "--truth", str(scan_files[0]), "--out", str(tmp_path / "e")]
    assert main(command) == 0
    assert main(["rerun", str(tmp_path / "e" / "run.json"), "--out", str(tmp_path / "f")]) == 0


WRONG_WORDS = (
    *('["demo", "--seed", "a"]', '["demo", 3]', '"demo"', "[]", '["demo", "--precision", "int8"]', '["demo", "--help"]'),
    '["enhance", "x", "--out", "o"]',
)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"command": "demo"}', '{"command": "report", "argv": ["report", "x"]}']
    + [f'{{"command": "demo", "argv": {argv}}}' for argv in WRONG_WORDS],
)
def test_what_is_no_record(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(text)
    assert main(["rerun", str(tmp_path / "run.json"), "--out", str(tmp_path / "new")]) == 2
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main(["rerun", str(tmp_path / "none.json")]) == 2


def test_the_same_folder_is_refused(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerun", str(first / "run.json"), "--out", str(first)]) == 2
    assert "another folder" in capsys.readouterr().err


def test_options_come_back_from_their_words() -> None:
    options = EnhanceOptions(keep_all=True, settings=("a=1", "b=2"), start_sigma=0.5, operator="fit", samples=4)
    command = read_command(["enhance", "a.nii", *as_words(options)])
    assert command == Enhance(scan=(Path("a.nii"),), **vars(options))


def test_words_come_back_with_another_folder() -> None:
    enhance = {"command": "enhance", "argv": ["enhance", "a.nii", "b.nii", "--out", "o", "--set", "a=1", "--start-sigma", "1"]}
    assert restore(enhance, Path("new")) == Enhance(
        scan=(Path("a.nii"), Path("b.nii")), out=Path("new"), settings=("a=1",), start_sigma=1.0
    )
    train = {"command": "train prior", "argv": ["train", "prior", "a", "b", "--out", "o", "--channels", "16", "32", "--no-bfloat16"]}
    expected = TrainPrior(scans=(Path("a"), Path("b")), out=Path("new"), channels=(16, 32), bfloat16=False)
    assert restore(train, Path("new")) == Train(expected)
    simulate = {"command": "simulate", "argv": ["simulate", "a.nii", "--out", "low/b.nii"]}
    assert restore(simulate, Path("new")) == Simulate(scan=Path("a.nii"), out=Path("new/b.nii"))
