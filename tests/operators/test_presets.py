import json
from pathlib import Path

import pytest

from dynamicdps.operators import PRESETS, Composition, LowField, ScanOperator, preset
from dynamicdps.operators.presets import choose_degradation, read_degradations
from tests.properties import input_error


def test_bundled_degradations() -> None:
    """Kim et al. 2025, and thick slices with a signal-to-noise ratio of 25 in white matter, which lies near 0.9."""
    plain = {"in_plane_factor": 4.0}
    expected = {
        "iqt-in": ScanOperator(LowField(gamma=0.8, blur=1.0, **plain), 0.001),
        "iqt-out": ScanOperator(LowField(gamma=0.4, blur=1.0, **plain), 0.001),
        "blur-mismatch": ScanOperator(LowField(gamma=0.8, blur=2.0, **plain), 0.001),
        "thick-5mm": ScanOperator(LowField(gamma=0.7, in_plane_factor=1.5, slice_thickness=5.0), 0.9**0.7 / 25),
        "64mt": ScanOperator(LowField(gamma=1.44, in_plane_factor=1.6, slice_thickness=4.8, slice_spacing=5.0), 0.0186),
    }
    assert {name: each.to_json() for name, each in PRESETS.items()} == {name: each.to_json() for name, each in expected.items()}
    assert preset("iqt-in") is PRESETS["iqt-in"]


def test_any_type_of_operator_by_name(tmp_path: Path) -> None:
    both = Composition((LowField(in_plane_factor=2.0), LowField(gamma=0.5)))
    values = {
        "mine": {"about": "a remark", "type": "LowField", "gamma": 0.5},
        "both": both.to_json(),
        "scanner": LowField(blur=1.0).to_json() | {"image_shape": [4, 4, 4], "intensity_scale": 2.0},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    found = read_degradations(path)
    assert list(found) == ["mine", "both", "scanner"]
    assert found["mine"].to_json() == ScanOperator(LowField(gamma=0.5), 0.001).to_json()
    assert found["both"].to_json() == ScanOperator(both, 0.001).to_json()
    assert choose_degradation("mine", {**PRESETS, **found}) is found["mine"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "cannot be read"),
        ("[]", "by name"),
        ('{"a": {"gamma": 0.5}}', "a in"),
        ('{"a": {"type": "LowField", "gama": 0.5}}', "gama"),
        ('{"a": {"type": "LowField", "gamma": -1}}', "gamma"),
        ('{"a/b": {"type": "LowField"}}', "a/b"),
        ('{" ": {"type": "LowField"}}', "names a degradation"),
        ('{"a": {"type": "Composition", "operators": [{"type": "LowField", "gama": 0.5}]}}', "gama"),
    ],
)
def test_files_that_are_no_degradations(text: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with input_error(word):
        read_degradations(path)


def test_missing_file_and_name(tmp_path: Path) -> None:
    with input_error("missing.json"):
        read_degradations(tmp_path / "missing.json")
    with input_error("there is no degradation 'other'"):
        choose_degradation("other", PRESETS)
