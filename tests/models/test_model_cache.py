"""Models are loaded once for many scans, and anew where their files change."""

from pathlib import Path

import pytest
import torch

from dynamicdps.conditional import load_conditional
from dynamicdps.models import model_cache, model_file
from dynamicdps.models.model_cache import holding_models
from dynamicdps.models.model_file import read_model, write_model
from dynamicdps.networks import NetworkConfig, SliceUNet
from dynamicdps.priors import load_prior


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Weights that were read, in their order; nothing held before."""
    read: list[Path] = []
    load_file = model_file.load_file

    def counted(path: Path) -> dict[str, torch.Tensor]:
        read.append(path)
        return load_file(path)

    monkeypatch.setattr(model_file, "load_file", counted)
    monkeypatch.setattr(model_cache, "_held", {})
    return read


def write(path: Path, kind: str, seed: int, tiny: NetworkConfig) -> Path:
    torch.manual_seed(seed)
    card = {"kind": kind, "network": tiny.to_json(), "data_mean": 0.3 + seed / 100, "data_std": 0.2}
    return write_model(path, SliceUNet(tiny).state_dict(), card).path


def test_models_are_read_once_while_they_are_held(loads: list[Path], tmp_path: Path, tiny_network: NetworkConfig) -> None:
    prior = write(tmp_path / "prior.safetensors", "prior", 0, tiny_network)
    unet = write(tmp_path / "unet.safetensors", "unet", 1, tiny_network)
    found = []
    for _ in range(3):
        with holding_models():
            found.append((load_prior(str(prior)), load_conditional(unet), read_model(prior, "prior")))
    assert loads.count(prior) == 1
    assert loads.count(unet) == 1
    assert all(one is other for row in found for one, other in zip(row, found[0], strict=True))
    # Another precision is another denoiser.
    with holding_models():
        assert load_prior(str(prior), "cpu", torch.bfloat16) is not found[0][0]
    # Outside nobody is given what others hold.
    assert load_prior(str(prior)) is not found[0][0]


def test_a_model_that_has_changed_is_read_again(loads: list[Path], tmp_path: Path, tiny_network: NetworkConfig) -> None:
    path = write(tmp_path / "prior.safetensors", "prior", 0, tiny_network)
    x, sigma = torch.full((1, 1, 8, 8), 0.4), torch.tensor([0.1])
    with holding_models():
        before = load_prior(str(path))(x, sigma)
        torch.testing.assert_close(load_prior(str(path))(x, sigma), before, rtol=0, atol=0)
        write(path, "prior", 7, tiny_network)
        assert not torch.equal(load_prior(str(path))(x, sigma), before)
        with pytest.raises(ValueError, match="there is no"):
            read_model(tmp_path / "none.safetensors", "prior")
