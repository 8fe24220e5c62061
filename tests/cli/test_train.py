"""`dynamicdps train`: what is refused, and which process speaks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dynamicdps.cli import main
from dynamicdps.networks.precision import has_bfloat16
from dynamicdps.segmentation import load_brain_network
from dynamicdps.training.processes import Processes
from tests.conftest import make_phantom
from tests.segmentation.labels import make_labels

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


# One process and one part of a batch, which an ESRGAN wants.
SMALLEST = {
    "prior": ["--channels", "16", "16", "--residual-blocks", "1", "1"],
    "unet": ["--channels", "16", "16", "--residual-blocks", "1", "1"],
    "esrgan": ["--channels", "8", "--growth", "4", "--blocks", "1", "--pretrain-steps", "1"],
}


@pytest.mark.parametrize("model", SMALLEST)
def test_a_training_goes_on_with_its_own_settings(model: str, scans: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["train", model, *scans, "--out", str(out), *SMALLEST[model], "--learning-rate", "0.001", "--seed", "7"]
    assert main([*command, "--steps", "2", "--cooldown", "1"]) == 0
    before = (out / "checkpoint.safetensors").read_bytes()
    for changes, words in (
        (["--seed", "8"], "seed 7, now 8"),
        (["--learning-rate", "0.002"], "learning_rate 0.001, now 0.002"),
        (["--batches", "2"], "batches 1, now 2"),
        *([(["--no-bfloat16"], "bfloat16 true, now false")] if has_bfloat16() else []),
    ):
        capsys.readouterr()
        assert main([*command, "--steps", "3", "--resume", *changes]) == 2
        assert words in capsys.readouterr().err
    assert (out / "checkpoint.safetensors").read_bytes() == before
    assert main([*command, "--steps", "3", "--cooldown", "2", "--checkpoint-every", "1", "--max-minutes", "60", "--resume"]) == 0
    settings = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert (settings["steps"], settings["cooldown"], settings["seed"]) == (3, 2, 7)


@pytest.mark.parametrize("model", SMALLEST)
def test_a_training_that_diverges_says_so(model: str, scans: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["train", model, *scans, "--out", str(out), *SMALLEST[model], "--steps", "9", "--learning-rate", "1e38"]
    assert main(command) == 2
    assert "--no-bfloat16" in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["exit"] == 2


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


def test_networks_of_volumes_and_of_heads_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are small here: a patch of 16 voxels, and heads of 24."""
    monkeypatch.setattr("dynamicdps.conditional.volume_training.PATCH", 16)
    monkeypatch.setattr("dynamicdps.conditional.volume_training.VALIDATION_PATCHES", 1)
    monkeypatch.setattr("dynamicdps.segmentation.training.VALIDATION_HEADS", 1)
    monkeypatch.setattr("dynamicdps.segmentation.training.SHAPE", (24, 24, 24))
    scans = [str(make_phantom((24, 20, 12), seed=seed).save(tmp_path / f"{seed}.nii.gz")) for seed in (1, 2)]
    sizes = ["--channels", "16", "16", "--residual-blocks", "1", "1", "--steps", "2", "--no-bfloat16"]
    assert main(["train", "unet", *scans, "--degradation", "scanners", "--out", str(tmp_path / "unet"), *sizes]) == 0
    card = json.loads((tmp_path / "unet" / "unet.json").read_text())
    assert (card["kind"], card["degradation"], card["steps"]) == ("volume-unet", "scanners", 2)
    maps = [str(make_labels((40, 44, 36)).save(tmp_path / f"labels{k}.nii.gz")) for k in (1, 2)]
    assert main(["train", "segmenter", *maps, "--out", str(tmp_path / "segmenter"), *sizes]) == 0
    card = json.loads((tmp_path / "segmenter" / "brain-mask.json").read_text())
    assert (card["kind"], card["steps"]) == ("segmenter", 2)
    assert load_brain_network(tmp_path / "segmenter" / "brain-mask.safetensors") is not None
