"""`dynamicdps segment` with a network of random weights."""

import json
from pathlib import Path

import pytest
import torch

from dynamicdps.cli import commands, main
from dynamicdps.cli.guard import written
from dynamicdps.conditional import VolumeConfig
from dynamicdps.conditional.volume_network import VolumeUNet
from dynamicdps.diffusion import write_model
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.volumes import load
from tests.conftest import make_phantom

SMALL = VolumeConfig(channels=(8, 8), blocks=(1, 1), planes=0, outputs=len(CLASSES))


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return write_model(
        tmp_path / "mine" / "shapes.safetensors", VolumeUNet(SMALL).state_dict(), {"kind": "segmenter", "network": SMALL.to_json()}
    ).path


def test_segment_writes_its_files_and_is_repeated(segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out = make_phantom((48, 56, 30)).save(tmp_path / "scan.nii.gz"), tmp_path / "out"
    # What random weights find is no brain: the mask says where it is.
    words = ["segment", str(scan), "--out", str(out), "--mask", "none", "--repeats", "2"]
    words += ["--segmenter", segmenter.stem]
    assert main(words) == 2
    assert "there is no segmenter model 'shapes'" in capsys.readouterr().err
    assert not out.exists()
    assert main(["models", "add", str(segmenter)]) == 0
    assert main(words) == 0
    assert {p.name for p in out.iterdir()} == set(written(commands.Segment(scan, out))[1])
    assert load(out / "dseg.nii.gz").shape == (48, 56, 30)
    printed = capsys.readouterr().out
    assert "hippocampus" in printed
    assert str(out / "dseg.nii.gz") in printed
    run = json.loads((out / "run.json").read_text())
    assert (run["command"], run["exit"]) == ("segment", 0)
    assert main(["rerun", str(out / "run.json"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "volumes.tsv").read_bytes() == (out / "volumes.tsv").read_bytes()
    assert main([*words[:4], "--segmenter", str(segmenter), "--repeats", "0"]) == 2
    assert "brain" in capsys.readouterr().err
