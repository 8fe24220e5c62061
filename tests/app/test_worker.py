"""What the process of a job does with DICOM files, and with several scans."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dynamicdps as dd
from dynamicdps.app.worker import DICOM, work
from dynamicdps.output_names import ENHANCED, MEASUREMENT, RUN, numbered
from dynamicdps.volumes import load_dicom
from tests.cli.conftest import tiny_models  # noqa: F401
from tests.conftest import make_phantom
from tests.volumes.dicom_files import Stack, rewrite, write_slices


@pytest.fixture
def options(tiny_models: tuple[str, str]) -> dict[str, Any]:  # noqa: F811
    models = {"prior": tiny_models[0], "conditional": tiny_models[1]}
    return models | {"steps": 1, "mask": "none", "settings": ["start_sigma=0.05"], "operator": "iqt-out"}


def told(what: dict[str, Any], code: int) -> list[dict[str, Any]]:
    channel = io.StringIO()
    assert work(what, channel) == code
    return [json.loads(line) for line in channel.getvalue().splitlines()]


def written(folder: Path, volume: dd.Volume, *, study: bool = True) -> str:
    """A volume as a folder of DICOM files, with or without a study."""
    stored = (np.maximum(volume.data.transpose(2, 1, 0), 0) * 900).astype(np.uint16)
    files = write_slices(folder, Stack(stored, np.eye(3), volume.spacing, np.zeros(3)))
    for number, file in enumerate(files):
        del file.SliceThickness
        if not study:
            del file.StudyInstanceUID
        rewrite(files, number)
    return str(folder)


@pytest.mark.parametrize("study", [True, False])
def test_a_scan_of_dicom_files_becomes_a_series_where_it_can(options: dict[str, Any], study: bool, tmp_path: Path) -> None:
    """Where it cannot, the other results are there all the same."""
    scan, out = written(tmp_path / "scan", make_phantom((40, 48, 10), (1.2, 1.2, 1.2)), study=study), tmp_path / "out"
    lines = told({"scans": [scan], "options": options, "out": str(out)}, 0)
    assert lines[-1] == {"stage": "write", "done": 1, "planned": 1}
    problems = [line["problem"] for line in lines if "problem" in line]
    enhanced = dd.load(out / ENHANCED)
    if study:
        assert problems == []
        np.testing.assert_allclose(load_dicom(out / DICOM).volume.affine, enhanced.affine, atol=1e-4)
    else:
        (problem,) = problems
        assert problem.startswith("the result was not written as DICOM: ")
        assert not (out / DICOM).exists()


def test_scans_of_one_head_become_one_series_of_the_first_ones_study(options: dict[str, Any], tmp_path: Path) -> None:
    volume = make_phantom((40, 48, 10), (1.2, 1.2, 1.2))
    scans = [written(tmp_path / name, volume.with_data(volume.data * gain)) for name, gain in (("first", 1.0), ("second", 1.1))]
    out = tmp_path / "out"
    lines = told({"scans": scans, "options": options, "out": str(out)}, 0)
    assert [line["problem"] for line in lines if "problem" in line] == []
    assert lines[-1] == {"stage": "write", "done": 1, "planned": 1}
    assert (out / numbered(MEASUREMENT, 2)).is_file()
    # In the first scan's frame of reference, not in the mean place of both.
    movement = np.array(json.loads((out / RUN).read_text())["scans"][0]["pose"]["movement"])
    expected = np.linalg.inv(movement) @ dd.load(out / ENHANCED).affine
    np.testing.assert_allclose(load_dicom(out / DICOM).volume.affine, expected, atol=1e-4)


def test_a_scan_that_cannot_be_used_is_told_in_one_sentence(tmp_path: Path) -> None:
    lines = told({"scans": [str(tmp_path / "missing.nii")], "options": {}, "out": str(tmp_path / "out")}, 2)
    assert "missing.nii does not exist" in lines[-1]["problem"]
    assert not (tmp_path / "out").exists()
