"""`dynamicdps train`: what is refused, and which process speaks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dynamicdps.cli import main
from dynamicdps.diffusion.processes import Processes
from tests.conftest import make_phantom

TINY = ["--channels", "16", "16", "--residual-blocks", "1", "1", "--steps", "2", "--batches", "2", "--accumulate", "3"]


@pytest.fixture
def scans(tmp_path: Path) -> list[str]:
    return [str(make_phantom((24, 20, 6), seed=seed).save(tmp_path / f"{seed}.nii.gz")) for seed in (1, 2)]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--steps", "0"], "--steps"),
        (["--max-minutes", "0"], "--max-minutes"),
        (["--batches", "0"], "--batches"),
        (["--accumulate", "-1"], "--accumulate"),
        (["--device", "abacus"], "abacus"),
    ],
)
@pytest.mark.parametrize("model", ["prior", "unet", "esrgan"])
def test_what_is_refused(
    model: str, options: list[str], word: str, scans: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", model, *scans, "--out", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err.strip()
    assert word in said
    assert "expected" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_writes_and_speaks(
    rank: int, scans: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two batches for two processes: each takes one, here with sums over itself alone."""

    @contextmanager
    def pretended(device: str) -> Iterator[Processes]:
        yield Processes(rank, 2, torch.device(device))

    monkeypatch.setattr("dynamicdps.cli.run_train.join", pretended)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: None)
    monkeypatch.setattr("torch.distributed.broadcast", lambda tensor, source: None)
    out = tmp_path / "out"
    assert main(["train", "unet", *scans, "--out", str(out), *TINY]) == 0
    said = capsys.readouterr()
    if rank:
        assert not out.exists()
        assert (said.out, said.err) == ("", "")
        return
    assert str(out / "unet.safetensors") in said.out
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert (facts["processes"], facts["exit"], list(facts["models"])) == (2, 0, ["conditional"])
    card = json.loads((out / "unet.json").read_text(encoding="utf-8"))
    assert (card["steps"], card["batches"]) == (2, 2)
