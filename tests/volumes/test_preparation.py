"""What was done to a scan, in numbers and in words."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dynamicdps.volumes import Volume, alignment, open_brain
from dynamicdps.volumes.preparation import Step, brain_step, in_words, intensity_step, orientation_step
from tests.volumes.head import make_head
from tests.volumes.zero_filled import measured, zero_filled


def test_orientation_is_that_of_the_file(phantom: Volume, tmp_path: Path) -> None:
    turned = np.diag([-2.0, 3.0, 5.0, 1.0])[[1, 0, 2, 3]]
    nib.save(nib.Nifti1Image(np.arange(288, dtype=np.float32).reshape(9, 8, 4), turned), tmp_path / "turned.nii.gz")
    step = orientation_step(open_brain(tmp_path / "turned.nii.gz", mask="none").whole)
    assert step.found == {"file": "PRS", "voxels": [8, 9, 4], "spacing_mm": [3.0, 2.0, 5.0]}
    assert orientation_step(phantom).found["file"] == "RAS"


def test_the_voxels_of_a_zero_filled_scan_that_were_acquired() -> None:
    waves, scan = measured((80, 100))
    assert "acquired_voxels" not in orientation_step(scan).found
    assert orientation_step(zero_filled(waves, (128, 128))).found["acquired_voxels"] == pytest.approx([80, 100, 4], rel=0.1)


def test_the_brain_and_how_it_was_found(tmp_path: Path) -> None:
    head = make_head()
    path = head.volume.save(tmp_path / "head.nii.gz")
    mask = head.volume.with_data(head.brain).save(tmp_path / "mask.nii.gz")
    step = brain_step(open_brain(path, mask=str(mask)), str(mask))
    assert step.parameters == {"mask": str(mask)}
    assert step.found["method"] == str(mask)
    assert step.found["brain_ml"] == pytest.approx(head.brain.sum() * 0.045, abs=0.06)


def test_a_step_on_one_line() -> None:
    step = Step("shading", {"shading": "auto"}, {"kept": True, "spread": 0.123456, "range_in_brain": [0.9, 1.1], "coefficients": [[[1.0]]]})
    record = json.loads(json.dumps(step.to_json()))
    assert record["warnings"] == []
    assert in_words(record) == "shading: kept yes, spread 0.1235, range in brain 0.9 / 1.1"
    assert in_words(intensity_step(812.3456789).to_json()) == "intensity: scanner units 812.3"


def test_template_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    brain = alignment.template()
    assert brain.spacing == (4.0, 4.0, 4.0)
    assert brain.data.max() == pytest.approx(1, abs=0.1)
