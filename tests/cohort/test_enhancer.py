"""The real enhancer of a study, with tiny models: what it leaves depends on nothing but the scan, the options and the seed."""

import json
import shutil
from pathlib import Path

import pytest

from dynamicdps.cohort import make_enhancer
from dynamicdps.cohort.derivatives import FILES
from dynamicdps.operators import preset, simulate
from dynamicdps.pipeline import StudyOptions
from tests.cli.tiny import write_tiny
from tests.conftest import make_phantom

SOURCE = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture
def options(tmp_path: Path) -> StudyOptions:
    models = {kind: str(write_tiny(tmp_path / "secret" / f"{kind}.safetensors", kind)) for kind in ("prior", "unet")}
    return StudyOptions(prior=models["prior"], conditional=models["unet"], samples=2, steps=1, mask="none")


@pytest.mark.parametrize("fitted", [False, True])
def test_neither_times_nor_places_nor_memory_are_left(options: StudyOptions, fitted: bool, tmp_path: Path) -> None:
    measurement, operator = simulate(make_phantom(), preset("iqt-out"), seed=0)
    scan = measurement.save(tmp_path / "one" / "sub-01_T1w.nii.gz")
    if not fitted:
        operator.save(scan.with_name("sub-01_T1w.operator.json"))
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    made, told = [], []
    for place, memory in (("one", None), ("other", 4.0)):
        enhancer = make_enhancer(options, here=True, memory=memory)
        folder = tmp_path / f"made-{place}"
        told.append(enhancer(tmp_path / place / scan.name, folder, source=SOURCE, seed=7))
        made.append({name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()})
    assert told[0] == told[1]
    assert made[0] == made[1]
    assert "--operator fit" in told[0]["command"] if fitted else "--operator" not in told[0]["command"]
    assert told[0]["command"].startswith(f"dynamicdps enhance {SOURCE} --out DIR ")
    assert told[0]["initial"] == "conditional model unet.safetensors"
    for text in (json.dumps(told[0]), made[0]["report.html"].decode(), (tmp_path / "made-one" / "run.json").read_text()):
        assert str(tmp_path) not in text
    record, metrics = (json.loads((tmp_path / "made-one" / name).read_text()) for name in ("run.json", "metrics.json"))
    assert record["durations"] == {}
    assert not any("seconds" in stage for stage in metrics.values())


def test_the_parameters_are_all_options_but_the_place_of_the_work(options: StudyOptions) -> None:
    parameters = make_enhancer(options, here=True).parameters()
    assert set(parameters) == {"version", "models", *vars(options)} - {"seed", "device"}
    json.dumps(parameters)
