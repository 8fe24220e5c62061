"""Models on disk: what is written is read, and what is damaged is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dynamicdps.models.model_file import file_hash, read_model, write_model
from dynamicdps.models.names import bundled
from dynamicdps.networks import NetworkConfig, SliceUNet
from dynamicdps.priors import NetworkDenoiser, SlicePrior, load_prior
from tests.cli.tiny import write_tiny
from tests.properties import input_error


def card_of(config: NetworkConfig) -> dict[str, Any]:
    return {"kind": "prior", "network": config.to_json(), "data_mean": 0.25, "data_std": 0.3, "denoising_rmse": {"0.1": 0.02}}


@pytest.fixture
def network(tiny_network: NetworkConfig) -> SliceUNet:
    torch.manual_seed(0)
    out = SliceUNet(tiny_network)
    for parameter in out.parameters():
        nn.init.normal_(parameter, std=0.1)
    return out.eval().requires_grad_(False)


@pytest.fixture
def model(tmp_path: Path, network: SliceUNet, tiny_network: NetworkConfig) -> Path:
    return write_model(tmp_path / "models" / "tiny.safetensors", network.state_dict(), card_of(tiny_network)).path


def test_round_trip(model: Path, network: SliceUNet, tiny_network: NetworkConfig) -> None:
    read = read_model(model, "prior")
    assert read.name == "tiny"
    weights = network.state_dict()
    assert read.weights.keys() == weights.keys()
    for name, value in read.weights.items():
        assert value.dtype == torch.float16
        assert torch.equal(value, weights[name].half())
    assert {name: read.card[name] for name in ("kind", "data_mean", "data_std")} == {"kind": "prior", "data_mean": 0.25, "data_std": 0.3}
    assert NetworkConfig.from_json(read.card["network"]) == tiny_network
    assert read.card["parameters"] == sum(v.numel() for v in weights.values())
    assert read.card["sha256"] == file_hash(model)
    assert sorted(p.name for p in model.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_a_network_of_a_file_is_made_of_its_weights_alone(model: Path) -> None:
    """No random number is drawn, and nothing stays without memory."""
    before = torch.get_rng_state()
    read = read_model(model, "prior")
    found = read.build(SliceUNet.from_json)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(value.is_meta for value in (*found.parameters(), *found.buffers()))
    for name, value in found.state_dict().items():
        assert torch.equal(value, read.weights[name].float())


def test_denoiser_of_a_file(model: Path, network: SliceUNet, generator: torch.Generator) -> None:
    x, sigma = torch.rand(2, 1, 18, 22, generator=generator), torch.tensor([0.05, 0.8])
    prior = load_prior(model)
    assert isinstance(prior, SlicePrior)
    assert isinstance(prior.denoiser, NetworkDenoiser)
    assert not prior.denoiser.training
    assert prior.domain.errors == {0.1: 0.02}
    assert not any(p.requires_grad for p in prior.denoiser.parameters())
    torch.testing.assert_close(prior(x, sigma), NetworkDenoiser(network, 0.25, 0.3)(x, sigma), atol=0.01, rtol=0.01)


def edit_card(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        card = path.with_suffix(".json")
        values = json.loads(card.read_text(encoding="utf-8"))
        change(values)
        card.write_text(json.dumps(values), encoding="utf-8")

    return damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def missing_card(path: Path) -> None:
    path.with_suffix(".json").unlink()


def card_is_a_list(path: Path) -> None:
    path.with_suffix(".json").write_text("[]", encoding="utf-8")


def card_is_no_json(path: Path) -> None:
    path.with_suffix(".json").write_text("{", encoding="utf-8")


def weights_are_text(path: Path) -> None:
    path.write_text("weights", encoding="utf-8")


def missing_weights(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "cannot be read as a model"),
        (weights_are_text, "cannot be read as a model"),
        (missing_card, "cannot be read as a model"),
        (card_is_a_list, "cannot be read as a model"),
        (card_is_no_json, "cannot be read as a model"),
        (flip_a_bit, "differs from the hash"),
        (missing_weights, "there is no prior model"),
        (edit_card(lambda card: card.pop("sha256")), "cannot be read as a model"),
        (edit_card(lambda card: card.update(sha256="0" * 64)), "differs from the hash"),
        (edit_card(lambda card: card.update(kind="unet")), "of kind 'unet'"),
        (edit_card(lambda card: card.pop("network")), "model card"),
        (edit_card(lambda card: card.update(network={"channels": 3})), "model card"),
        (edit_card(lambda card: card.pop("data_mean")), "model card"),
        (edit_card(lambda card: card.update(data_std="wide")), "model card"),
        (edit_card(lambda card: card.update(denoising_rmse=3)), "model card"),
        (edit_card(lambda card: card["network"].update(channels=[8, 16])), "does not fit the network"),
    ],
)
def test_damaged_models_are_refused(model: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(model)
    with input_error(message):
        load_prior(model)


@pytest.mark.parametrize(
    "error", [0, -1, math.nan, math.inf, -0.0, 10**400, None, True, "0.02", "small", [0.02], {}], ids=lambda each: repr(each)[:9]
)
def test_errors_that_are_none_are_refused(model: Path, error: Any) -> None:
    """The interpolation of such numbers is NaN or 0, with which solvers would take no data step."""
    edit_card(lambda card: card.update(denoising_rmse={"0.01": 0.006, "0.1": error, "1": 0.1}))(model)
    with input_error("denoising_rmse in the model card .*tiny.json"):
        load_prior(model)


@pytest.mark.parametrize("level", ["0", "-0.1", "nan", "inf", "low", "", "0.010"])
def test_levels_that_are_none_are_refused(model: Path, level: str) -> None:
    edit_card(lambda card: card.update(denoising_rmse={"0.01": 0.006, level: 0.02}))(model)
    with input_error("denoising_rmse in the model card .*tiny.json"):
        load_prior(model)


@pytest.mark.parametrize("table", [[], None, "none", 3, [[0.1, 0.02]]], ids=str)
def test_a_table_of_errors_that_is_none_is_refused(model: Path, table: Any) -> None:
    edit_card(lambda card: card.update(denoising_rmse=table))(model)
    with input_error("denoising_rmse in the model card .*tiny.json"):
        load_prior(model)


@pytest.mark.parametrize("change", [lambda card: card.pop("denoising_rmse"), lambda card: card.update(denoising_rmse={})])
def test_a_card_may_hold_no_errors(model: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit_card(change)(model)
    assert load_prior(model).domain.errors == {}


def test_errors_may_come_in_any_order(model: Path) -> None:
    edit_card(lambda card: card.update(denoising_rmse={"1": 0.1, "0.01": 6e-3, "0.1": 1}))(model)
    assert load_prior(model).domain.errors == {1.0: 0.1, 0.01: 0.006, 0.1: 1.0}


@pytest.mark.parametrize("kind", ["prior", "unet"])
def test_unknown_names_are_refused(kind: str, tmp_path: Path) -> None:
    for name in ("no-such-model", tmp_path, tmp_path / "missing.safetensors"):
        with input_error(f"there is no {kind} model"):
            read_model(name, kind)


@pytest.mark.parametrize("kind", ["prior", "unet"])
def test_bundled_models_are_whole(kind: str) -> None:
    for name, path in bundled(kind).items():
        model = read_model(name, kind)
        assert model.path == path
        assert model.card["data"] not in ("", "unnamed"), "a bundled model names the data it was trained on"
        assert path.stat().st_size < 40e6


def test_interrupted_writing_leaves_the_old_model(model: Path, tiny_network: NetworkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in model.parent.iterdir()}

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dynamicdps.models.model_file.file_hash", break_off)
    with pytest.raises(KeyboardInterrupt):
        write_model(model, {"weight": torch.zeros(3)}, card_of(tiny_network))
    assert {p.name: p.read_bytes() for p in model.parent.iterdir() if not p.name.startswith(".partial-")} == before


def test_a_card_has_numbers_for_each_contrast() -> None:
    usual, t2w, unknown = load_prior(), load_prior(contrast="T2w"), load_prior(contrast="unknown")
    assert [prior.domain.suffix for prior in (usual, t2w, unknown)] == ["T1w", "T2w", "unknown"]
    assert t2w.domain.contrast.startswith("T2w")
    assert sorted(t2w.domain.errors) == sorted(usual.domain.errors)
    # A contrast of which it has seen less is denoised less well.
    assert all(t2w.domain.errors[level] > error for level, error in usual.domain.errors.items())
    assert t2w.domain.planes == usual.domain.planes
    x = torch.rand((1, 1, 8, 32, 32), generator=torch.Generator().manual_seed(0))
    told = [prior(x, torch.tensor([0.3])) for prior in (usual, t2w, unknown, load_prior(contrast="T1w"))]
    assert torch.equal(told[0], told[3])
    assert not any(torch.equal(told[0], other) for other in told[1:3])


def test_a_contrast_may_have_a_start_calibration_of_its_own(tmp_path: Path) -> None:
    rules = [{"kind": "start-level", "rule": "misfit", "misfit": [0.01], "sigma": [level]} for level in (0.2, 0.3)]
    others = {"T2w": {"start_level": rules[1]}, "FLAIR": {}}
    path = write_tiny(tmp_path / "p.safetensors", "prior", contrast="T1w", suffix="T1w", start_level=rules[0], contrasts=others)
    found = {contrast: load_prior(path, contrast=contrast).domain.start_level for contrast in ("T1w", "T2w", "FLAIR", "unknown")}
    assert found == {"T1w": rules[0], "T2w": rules[1], "FLAIR": rules[0], "unknown": rules[0]}


@pytest.mark.parametrize("contrast", ["T2w", "FLAIR", "PDw"])
def test_a_prior_of_one_contrast_knows_no_other(tmp_path: Path, contrast: str) -> None:
    path = write_tiny(tmp_path / "p.safetensors", "prior")
    assert load_prior(path, contrast="unknown").domain.errors == load_prior(path, contrast="T1w").domain.errors == {0.1: 0.05}
    with input_error(f"trained on T1w scans, not on {contrast}"):
        load_prior(path, contrast=contrast)


def test_a_prior_of_unknown_contrasts_takes_all(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "p.safetensors", "prior", contrast="many", suffix="unknown")
    assert load_prior(path).domain.suffix == "unknown"
    assert load_prior(path, contrast="T2w").domain.errors == {0.1: 0.05}


@pytest.mark.parametrize("contrasts", [[], {"T2w": 3}, {"T2w": {"denoising_rmse": {"0.1": -1}}}])
def test_damaged_numbers_of_a_contrast(tmp_path: Path, contrasts: object) -> None:
    path = write_tiny(tmp_path / "p.safetensors", "prior", contrast="T1w and T2w", contrasts=contrasts)
    with input_error("card"):
        load_prior(path, contrast="T2w")
