"""deepbet's networks are called as their authors call them; here with networks that only threshold."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dynamicdps.volumes import deepbet, extract_brain
from tests.properties import input_error
from tests.volumes.head import dice, make_head


class Threshold(nn.Module):
    """Two channels, background and brain, from intensities normalised to mean 0.449."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        brain = (x > self.level).to(x.dtype)
        return torch.cat([1 - brain, brain], 1)


def networks(folder: Path, level: float) -> tuple[Path, Path]:
    paths = folder / "bbox_model.pt", folder / "model.pt"
    for path in paths:
        with warnings.catch_warnings():
            # torch deprecates the format, which deepbet uses.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.script(Threshold(level)), path)
    return paths


def test_brain_lies_where_the_networks_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepbet, "BOX_SIZE", 32)
    monkeypatch.setattr(deepbet, "FINE_SIZE", 64)
    files = networks(tmp_path, 0.55)
    monkeypatch.setattr(deepbet, "weights", lambda: files)
    head = make_head(stripped=True, noise=0.0)
    found = extract_brain(head.volume, "deepbet")
    assert (found.method, found.warnings) == ("deepbet", [])
    assert dice(found.inside, head.brain) > 0.9


def test_a_brain_of_the_wrong_size_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepbet, "BOX_SIZE", 32)
    monkeypatch.setattr(deepbet, "FINE_SIZE", 64)
    head = make_head()
    files = networks(tmp_path, -10.0)
    monkeypatch.setattr(deepbet, "weights", lambda: files)
    found = extract_brain(head.volume)
    assert found.method == "classical"
    assert any("ml of brain" in warning for warning in found.warnings)
    assert any("ml of brain" in warning for warning in extract_brain(head.volume, "deepbet").warnings)
    networks(tmp_path, 10.0)
    assert any("finds no brain" in warning for warning in extract_brain(head.volume).warnings)
    with input_error("finds no brain"):
        extract_brain(head.volume, "deepbet")
    assert dice(found.inside, head.brain) > 0.94


def test_four_slices_are_not_shown_to_a_network_of_whole_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepbet, "weights", lambda: (Path("missing"), Path("missing")))
    assert extract_brain(make_head(field_of_view=(200.0, 230.0, 20.0)).volume).method == "classical"
