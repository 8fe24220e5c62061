import json
from pathlib import Path

import pytest
import torch

from dynamicdps.evaluation.benchmark import (
    Condition,
    Interpolation,
    find_condition,
    merge_conditions,
    read_conditions,
    training_match,
    write_conditions,
)
from dynamicdps.operators import PRESETS, AnisotropicBlur, LowField, ScanOperator, preset
from dynamicdps.operators.presets import read_degradations
from dynamicdps.operators.sampling import interpolate
from tests.properties import input_error

MODELS = Path(__file__).parents[3] / "src" / "dynamicdps" / "models"


@pytest.mark.parametrize(
    ("model", "degradation", "expected"),
    [
        ("unet-iqt-in", "iqt-in", "in"),
        ("unet-iqt-in", "iqt-out", "out"),
        ("unet-iqt-in", "blur-mismatch", "out"),
        ("unet-range", "iqt-in", "in range"),
        ("unet-range", "blur-mismatch", "in range"),
        ("unet-range", "thick-5mm", "in range"),
    ],
)
def test_bundled_models_and_degradations(model: str, degradation: str, expected: str) -> None:
    card = json.loads((MODELS / f"{model}.json").read_text())
    assert training_match(card, preset(degradation)) == expected


@pytest.mark.parametrize(
    "changes", [{"gamma": 0.3}, {"blur": 2.1}, {"in_plane_factor": 5.0}, {"noise_std": 0.1}, {"slice_thickness": 6.0}, {"noise": "rician"}]
)
def test_out_of_a_range_by_one_parameter(changes: dict[str, float]) -> None:
    card = json.loads((MODELS / "unet-range.json").read_text())
    assert training_match(card, ScanOperator(LowField(), 0.01)) == "in range"
    scanner = ScanOperator.from_json({"type": "LowField", "noise_std": 0.01, **changes})
    assert training_match(card, scanner) == "out"


def test_cards_that_say_nothing_and_other_operators() -> None:
    assert training_match({}, preset("iqt-in")) == "unknown"
    assert training_match({"degradation_parameters": {"type": "Nothing"}}, preset("iqt-in")) == "unknown"
    assert training_match({"degradation_parameters": {"gamma": 3}}, preset("iqt-in")) == "unknown"
    blur = ScanOperator(AnisotropicBlur(1.0, 2.0), 0.01)
    assert training_match({"degradation_parameters": {"gamma": [0.3, 1.0]}}, blur) == "out"
    assert training_match({"degradation_parameters": blur.to_json()}, blur) == "in"


def test_identity_is_the_interpolated_measurement() -> None:
    condition = find_condition("identity/iqt-out", PRESETS)
    assert (condition.training, condition.model_hash) == ("untrained", "")
    truth = torch.rand(2, 1, 24, 20, generator=torch.Generator().manual_seed(0))
    y = condition.scanner.operator(truth) - 0.72
    image = condition.model.enhance(y, condition.scanner.operator, truth.shape)
    torch.testing.assert_close(image, interpolate(y, (4.0, 4.0, 1.0), truth.shape).clamp_min(0))
    assert float(image.min()) == 0


def test_names_of_models() -> None:
    """A short name, and a file."""
    condition = find_condition("unet/iqt-in", PRESETS)
    by_file = find_condition(f"{MODELS / 'unet-iqt-in.safetensors'}/iqt-out", PRESETS)
    assert (condition.training, by_file.training) == ("in", "out")
    assert condition.model_hash == by_file.model_hash == json.loads((MODELS / "unet-iqt-in.json").read_text())["sha256"]


@pytest.mark.parametrize(
    ("name", "word"), [("iqt-out", "MODEL/DEGRADATION"), ("/iqt-out", "MODEL/DEGRADATION"), ("unet/none", "none"), ("none/iqt-in", "none")]
)
def test_names_that_do_not_exist(name: str, word: str) -> None:
    with input_error(word):
        find_condition(name, PRESETS)


def test_a_condition_keeps_its_meaning(tmp_path: Path) -> None:
    """In a folder that is continued one name is one thing; other conditions may come."""
    first, second = (Condition(f"identity/{name}", Interpolation(), PRESETS[name], "untrained") for name in ("iqt-in", "iqt-out"))
    write_conditions(tmp_path, [first])
    (tmp_path / "results.csv").touch()
    assert list(write_conditions(tmp_path, [second])) == ["identity/iqt-in", "identity/iqt-out"]
    with input_error("identity/iqt-in has another model or degradation"):
        write_conditions(tmp_path, [Condition("identity/iqt-in", Interpolation(), PRESETS["iqt-out"], "untrained")])
    assert read_conditions(tmp_path)["identity/iqt-in"]["operator"]["gamma"] == 0.8
    with input_error("another model"):
        merge_conditions([{"a": {"model": "1"}}, {"b": {}}, {"a": {"model": "2"}}])
    # Nothing was measured: the note of a run that ended before its first cell binds nobody.
    (tmp_path / "results.csv").unlink()
    assert list(write_conditions(tmp_path, [second])) == ["identity/iqt-out"]


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}'])
def test_damaged_notes(text: str, tmp_path: Path) -> None:
    (tmp_path / "conditions.json").write_text(text)
    with input_error("conditions.json"):
        read_conditions(tmp_path)


def test_degradations_of_a_file_become_conditions(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"iqt-out": {"type": "LowField", "gamma": 0.5}, "blurred": {"type": "AnisotropicBlur", "std_x": 1.0}}))
    found = {**PRESETS, **read_degradations(path)}
    assert find_condition("identity/iqt-out", found).scanner.to_json()["gamma"] == 0.5
    assert isinstance(find_condition("identity/blurred", found).scanner.operator, AnisotropicBlur)
    assert PRESETS["iqt-out"].to_json()["gamma"] == 0.4
