"""`dynamicdps models`: lists, shows, adds; and models that do not fit a scan."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dynamicdps.cli import main
from dynamicdps.models.model_file import file_hash, read_model
from dynamicdps.pipeline.model_fit import card_warnings, check_contrast
from dynamicdps.priors import load_prior
from dynamicdps.volumes import IntensityScale, Volume
from tests.cli.tiny import write_tiny
from tests.properties import input_error


def said(command: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    capsys.readouterr()
    assert main(command) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["models"], ["models", "list"]):
        listed = said(command, capsys)
        assert all(name in listed for name in ("brain", "unet-range", "esrgan-iqt-in", "bundled"))
    shown = said(["models", "show", "brain"], capsys)
    card = read_model("brain", "prior").card
    assert card["sha256"] in shown
    assert card["data"] in shown
    assert "1, 1, 1" in shown
    assert "none-such" in said(["models", "show", "none-such"], capsys, 2)


def test_add_and_use_by_name(tmp_path: Path, own_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tiny(tmp_path / "given" / "my-prior.safetensors", "prior")
    said(["models", "add", str(path), "--sha256", file_hash(path).upper()], capsys)
    assert sorted(p.name for p in own_models.iterdir()) == ["my-prior.json", "my-prior.safetensors"]
    shutil.rmtree(path.parent)
    assert "my-prior" in said(["models"], capsys)
    assert load_prior("my-prior").domain.suffix == "T1w"
    said(
        ["sample", "--prior", "my-prior", "--n", "1", "--steps", "1", "--height", "16", "--width", "16", "--out", str(tmp_path / "s")],
        capsys,
    )
    # Again is no fault; other weights of that name are.
    again = write_tiny(tmp_path / "given" / "my-prior.safetensors", "prior")
    said(["models", "add", str(again)], capsys)
    other = write_tiny(tmp_path / "given" / "my-prior.safetensors", "prior", data="other")
    values = {name: value + 1 for name, value in read_model(other, "prior").weights.items()}
    from dynamicdps.models.model_file import write_model

    write_model(other, values, read_model(other, "prior").card)
    assert "another model" in said(["models", "add", str(other)], capsys, 2)


@pytest.mark.parametrize("how", ["hash", "card hash", "no card", "name", "bundled", "weights", "large", "missing", "kind"])
def test_what_is_not_added(
    how: str, tmp_path: Path, own_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"name": "my prior", "bundled": "brain"}
    path = write_tiny(tmp_path / f"{names.get(how, 'mine')}.safetensors", "gan" if how == "kind" else "prior")
    card = json.loads(path.with_suffix(".json").read_text())
    words = []
    if how == "hash":
        words = ["--sha256", "0" * 64]
    elif how == "card hash":
        path.with_suffix(".json").write_text(json.dumps(card | {"sha256": "0" * 64}))
    elif how == "no card":
        path.with_suffix(".json").unlink()
    elif how == "weights":
        path.with_suffix(".json").write_text(json.dumps(card | {"network": card["network"] | {"channels": [32, 32]}}))
    elif how == "large":
        monkeypatch.setattr("dynamicdps.models.model_file.MAX_BYTES", 1000)
    elif how == "missing":
        path.unlink()
    message = said(["models", "add", str(path), *words], capsys, 2)
    assert "expected" in message
    assert not own_models.exists()


def test_pickles_are_refused(tmp_path: Path, own_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "model.pt")
    assert "pickles" in said(["models", "add", str(tmp_path / "model.pt")], capsys, 2)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "model.json").write_text(json.dumps({"kind": "prior", "sha256": file_hash(tmp_path / "model.safetensors")}))
    assert "cannot be read" in said(["models", "add", str(tmp_path / "model.safetensors")], capsys, 2)
    assert not own_models.exists()


def test_an_added_model_never_replaces_a_bundled_one(own_models: Path) -> None:
    before = read_model("brain", "prior").path
    write_tiny(own_models / "brain.safetensors", "prior")
    (own_models / "broken.json").write_text("{")
    (own_models / "broken.safetensors").touch()
    assert read_model("brain", "prior").path == before


def test_contrast_of_the_card(tmp_path: Path) -> None:
    model = read_model(write_tiny(tmp_path / "p.safetensors", "prior"), "prior")
    check_contrast("T1w", model)
    check_contrast("unknown", model)
    with input_error("the scan is T2w, the model p was trained on T1w"):
        check_contrast("T2w", model)
    check_contrast("T2w", read_model(write_tiny(tmp_path / "q.safetensors", "prior", contrast="T2w"), "prior"))
    check_contrast("T2w", read_model(write_tiny(tmp_path / "r.safetensors", "prior", contrast="any; learned from T1w"), "prior"))


@pytest.mark.parametrize("name", ["brain", "unet-scanners"])
@pytest.mark.parametrize("contrast", ["T1w", "T2w", "FLAIR", "unknown"])
def test_the_default_models_take_every_contrast(name: str, contrast: str) -> None:
    check_contrast(contrast, read_model(name, ("prior", "volume-unet")))


def test_spacing_and_range_of_the_card(tmp_path: Path, phantom: Volume) -> None:
    model, scale = read_model(write_tiny(tmp_path / "p.safetensors", "prior"), "prior"), IntensityScale(1.0)
    assert card_warnings(model, (1.0, 1.0, 5.0), phantom, scale) == []
    assert card_warnings(model, (1.29, 0.71, 1.0), phantom, scale) == []
    for spacing in ((1.31, 1.0, 1.0), (1.0, 0.69, 1.0), (2.0, 2.0, 1.0)):
        (doubt,) = card_warnings(model, spacing, phantom, scale)
        assert "voxels of" in doubt
    (doubt,) = card_warnings(model, (1.0, 1.0, 1.0), phantom.with_data(phantom.data - 0.5), scale)
    assert "below 0" in doubt
    noise = 0.02 * np.random.default_rng(0).standard_normal(phantom.shape)
    assert card_warnings(model, (1.0, 1.0, 1.0), phantom.with_data(phantom.data + noise), scale) == []


def test_enhance_refuses_another_contrast_and_warns_of_other_voxels(
    tiny_models: tuple[str, str], scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poor = tmp_path / "sub-01_T2w.nii.gz"
    assert main(["simulate", str(scan_files[0]), "--out", str(poor)]) == 0
    command = ["--prior", tiny_models[0], "--conditional", tiny_models[1], "--solver", "data-step", "--out", str(tmp_path / "out")]
    assert "T2w" in said(["enhance", str(poor), *command], capsys, 2)
    assert not (tmp_path / "out" / "enhanced.nii.gz").exists()
    named = poor.rename(tmp_path / "scan.nii.gz")
    (tmp_path / "sub-01_T2w.operator.json").rename(tmp_path / "scan.operator.json")
    coarse = write_tiny(tmp_path / "coarse.safetensors", "prior", spacing_mm=[2.0, 2.0, 2.0])
    printed = said(["enhance", str(named), *command, "--prior", str(coarse)], capsys)
    assert "knows 2 x 2 mm" in printed
    assert "knows 2 x 2 mm" in " ".join(json.loads((tmp_path / "out" / "run.json").read_text())["warnings"])
