"""The scan stays as it is; what was found is recorded and can be switched off."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.volumes import PreparationConfig, Volume, alignment, deepbet, preparation, prepare
from tests.properties import input_error
from tests.volumes.head import dice, make_head


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepbet, "weights", lambda: None)


def test_every_step_and_its_record() -> None:
    head = make_head(shading=0.4)
    before = head.volume.data.copy()
    prepared = prepare(head.volume)
    assert prepared.volume is head.volume
    np.testing.assert_array_equal(prepared.volume.data, before)
    assert dice(prepared.mask.data > 0.5, head.brain) > 0.85
    assert prepared.mask.shape == head.volume.shape

    assert prepared.bias is not None
    np.testing.assert_allclose(prepared.corrected.data * prepared.bias.field.data, before, rtol=1e-4, atol=1e-3)
    # The scale is of the brain without its shading, whose 99th percentile is white matter of 0.8 * 700, and noise.
    assert prepared.scale.scale * 0.95 == pytest.approx(0.8 * 700, rel=0.2)

    assert [step.name for step in prepared.log] == ["mask", "bias", "intensity"]
    log = json.loads(json.dumps([step.to_json() for step in prepared.log]))
    assert log[0]["found"]["method"] == "classical"
    assert log[1]["found"]["range"] == pytest.approx(prepared.bias.range, abs=1e-4)
    assert log[2] == {
        "name": "intensity",
        "parameters": {"percentile_value": 0.95},
        "found": {"scale": prepared.scale.scale},
        "warnings": [],
    }
    assert prepared.warnings == log[0]["warnings"] != []


def test_steps_can_be_left_out(tmp_path: Path) -> None:
    head = make_head()
    path = head.volume.with_data(head.brain).save(tmp_path / "mask.nii.gz")
    prepared = prepare(head.volume, PreparationConfig(mask=str(path), mask_edge_mm=0.0, bias=False, intensity_value=0.5))
    np.testing.assert_array_equal(prepared.mask.data, head.brain)
    assert prepared.bias is None
    assert prepared.scan_to_template is None
    assert prepared.corrected is head.volume
    assert [step.name for step in prepared.log] == ["mask", "intensity"]
    expected = np.percentile(head.volume.data[head.brain], 99) / 0.5
    assert prepared.scale.scale == pytest.approx(expected, rel=1e-5)


def test_alignment_gets_the_even_brain_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make_head(shading=0.4, stripped=True)
    movement = np.array([[0.0, -1.0, 0.0, 5.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    seen: list[Volume] = []

    def align(volume: Volume, mask: Volume) -> np.ndarray:
        seen.extend([volume, mask])
        return movement

    monkeypatch.setattr(preparation, "align_to_template", align)
    prepared = prepare(head.volume, PreparationConfig(align=True))
    np.testing.assert_array_equal(seen[0].data, prepared.corrected.data)
    assert seen[1] is prepared.mask
    np.testing.assert_array_equal(prepared.scan_to_template, movement)
    assert prepared.log[-1].found == {"rotation_deg": 90.0, "scan_to_template": movement.tolist()}


def test_template_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    brain = alignment.template()
    assert brain.spacing == (4.0, 4.0, 4.0)
    assert brain.data.max() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("wrong", [{"mask_edge_mm": -1.0}, {"bias_order": 0}, {"intensity_value": 0.0}, {"mask_edge_mm": float("nan")}])
def test_numbers_have_ranges(wrong: dict[str, float]) -> None:
    with input_error("expected"):
        replace(PreparationConfig(), **wrong)


def test_a_mask_that_is_no_file_is_refused(phantom: Volume) -> None:
    with input_error("no mask"):
        prepare(phantom, PreparationConfig(mask="nothing.nii"))
