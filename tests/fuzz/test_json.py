"""JSON that people write: operators, degradations, calibrations, settings, model cards' likes, and the files of a run."""

import copy
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from dynamicdps.cli.run_benchmark import read_settings
from dynamicdps.evaluation.benchmark import variant
from dynamicdps.operators import PRESETS, read_operator
from dynamicdps.operators.presets import read_degradations
from dynamicdps.report import read_report, write_report
from dynamicdps.solvers import read_start_level
from dynamicdps.volumes import Volume
from tests.fuzz.harness import bounded_memory, cases, many, only_input_errors
from tests.fuzz.mutation import damaged, damaged_json_text
from tests.operators.every_operator import SHARED

# One of each type, and compositions.
NAMES = sorted({each.operator.to_json()["type"]: name for name, each in SHARED.items()}.values())
KINDS = [*NAMES, "composition-kspace", "contrast-knots"]
BUNDLED = Path(str(files("dynamicdps.models")))


def fuzz(path: Path, values: Any, read: Callable[[], object], count: int) -> None:
    """Feed a reader damaged versions of a JSON file."""

    @cases(count)
    @given(damaged_json_text(values))
    def check(text: bytes) -> None:
        path.write_bytes(text)
        only_input_errors(read)

    with bounded_memory():
        check()


@many(1_000)
@pytest.mark.parametrize("name", KINDS)
def test_operators(name: str, count: int, place: Path) -> None:
    values = SHARED[name].operator.to_json() | {"image_shape": [8, 8, 4], "image_affine": np.eye(4).tolist(), "intensity_scale": 700.0}
    fuzz(place / "o.json", values, lambda: read_operator(place / "o.json").to_json(), count if count > 200 else 25)


@many(5_000)
@pytest.mark.parametrize("name", ["start-level", "start-bank"])
def test_start_calibrations(name: str, count: int, place: Path) -> None:
    values = read_start_level(None if name == "start-level" else BUNDLED / f"{name}.json").to_json()
    fuzz(place / "s.json", values, lambda: read_start_level(place / "s.json").to_json(), count)


@many(4_000)
def test_degradations(count: int, place: Path) -> None:
    values = {"mine": PRESETS["iqt-out"].to_json(), "about": {"type": "Identity", "about": "a remark"}}
    fuzz(place / "d.json", values, lambda: read_degradations(place / "d.json"), count)


@many(4_000)
def test_settings_of_solvers(count: int, place: Path) -> None:
    values = {
        "dynamicdps": {"samples": 2, "steps": 3, "estimate": "mean", "start_quantile": 0.5},
        "one": {"solver": "dps", "step": 1.0},
        "tv": {},
    }

    def read() -> None:
        settings = read_settings(place / "s.json")
        for label in settings:
            variant(label, settings)

    fuzz(place / "s.json", values, read, count)


RUN = {
    "command": "enhance",
    "arguments": {"scan": "scan.nii.gz", "seed": 0, "device": "cpu", "precision": "float32", "settings": []},
    "argv": ["enhance", "scan.nii.gz", "--out", "out"],
    "version": "1.0",
    "versions": {"python": "3.12", "torch": "2.8"},
    "models": {"prior": "ab" * 32},
    "cards": {"prior": {"name": "brain", "contrast": "T1w", "spacing_mm": [1.0, 1.0, 1.0], "sha256": "ab" * 32}},
    "operator": PRESETS["iqt-out"].to_json() | {"intervals": {"gamma": [0.3, 0.5]}, "warnings": ["unusual"]},
    "solver": "dynamicdps",
    "settings": {"samples": 8, "steps": 5, "estimate": "mean"},
    "start_sigma": 0.1,
    "warnings": ["a warning"],
    "title": "Enhanced scan: scan.nii.gz",
    "initial": "conditional model unet-range",
    "brain": {"method": "none", "millilitres": 1200.0},
    "acquisition": {"field_strength_t": 0.064},
    "durations": {"initial": 1.0, "total": 3.0},
    "exit": 0,
}
STAGE = {"psnr": 30.0, "ssim": 0.9, "nrmse": 0.1, "data_misfit": 1.0, "volume_error": {"csf": 0.1}, "volumes_mm3": {"csf": 1000.0}}
METRICS = {
    "measurement": STAGE,
    "conditional": STAGE | {"range_over_slices": {"psnr": [28.0, 31.0]}},
    "dynamicdps": STAGE | {"nfe": 40, "nbackward": 0, "start_sigma": 0.1, "seconds": 3.2, "volumes_interval_mm3": {"csf": [900, 1100]}},
}
TABLES = {
    "trace.csv": b"step,images,sigma,misfit,step_length\n0,2,0.1,3.5,0.5\n1,2,0.05,1.2,0.5\n",
    "starts.csv": b"image,excess_misfit,start_sigma,misfit,nfe\n0,0.02,0.1,1.1,40\n1,0.03,0.12,1.0,40\n",
}


@pytest.fixture
def run_folder(place: Path) -> Path:
    data = np.random.default_rng(0).random((6, 7, 3)).astype(np.float32)
    for name in ("enhanced", "initial", "measurement"):
        Volume(data, np.eye(4)).save(place / f"{name}.nii.gz")
    (place / "run.json").write_text(json.dumps(RUN))
    (place / "metrics.json").write_text(json.dumps(METRICS))
    (place / "start-level.json").write_text(json.dumps(read_start_level().to_json()))
    for name, content in TABLES.items():
        (place / name).write_bytes(content)
    return place


@many(6_000)
def test_folders_of_runs(count: int, run_folder: Path) -> None:
    texts = {"run.json": damaged_json_text(RUN), "metrics.json": damaged_json_text(METRICS)}
    texts |= {name: damaged(content) for name, content in TABLES.items()}
    texts["enhanced.nii.gz"] = damaged((run_folder / "enhanced.nii.gz").read_bytes())
    whole = {name: (run_folder / name).read_bytes() for name in texts}

    @cases(count if count > 200 else 100)
    @given(st.data())
    def check(data: DataObject) -> None:
        # Mostly the record of the run, which has the most parts.
        name = data.draw(st.sampled_from(["run.json", "run.json", "metrics.json", *texts]))
        (run_folder / name).write_bytes(data.draw(texts[name]))
        try:
            only_input_errors(lambda: read_report(run_folder))
        finally:
            (run_folder / name).write_bytes(whole[name])

    with bounded_memory():
        check()


@many(300)
def test_pages_of_runs(count: int, run_folder: Path) -> None:
    """What is read can be shown."""

    @cases(count if count > 200 else 40)
    @given(st.sampled_from(["run.json", "metrics.json"]), st.data())
    def check(name: str, data: DataObject) -> None:
        values = copy.deepcopy(RUN if name == "run.json" else METRICS)
        (run_folder / name).write_bytes(data.draw(damaged_json_text(values)))
        try:
            only_input_errors(lambda: write_report(run_folder, read_report(run_folder)))
        finally:
            (run_folder / name).write_text(json.dumps(values))

    with bounded_memory(512):
        check()
