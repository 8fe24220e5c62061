"""The real enhancer of a study, with tiny models: what it leaves depends on nothing but the scan, the options and the seed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.cohort import BidsScan, combine, find_scans, in_process, make_enhancer, run_cohort
from dynamicdps.cohort.derivatives import FILES
from dynamicdps.operators import ScanOperator, preset, simulate
from dynamicdps.pipeline import StudyOptions
from tests.cli.tiny import write_tiny
from tests.conftest import make_phantom
from tests.pipeline.head_scans import one_head, scan_from, scanner_of

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
        told.append(enhancer(BidsScan((tmp_path / place / scan.name,), (SOURCE,), (("sub", "01"),)), folder, seed=7))
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


def test_scans_of_one_head_together(options: StudyOptions, tmp_path: Path) -> None:
    """The enhancer makes one image of them, refuses what is of another head, and keeps it where it is told to."""
    study, head, rng = tmp_path / "study", one_head(), np.random.default_rng(0)
    for subject in ("01", "02"):
        for across in (2, 1):
            path = study / f"sub-{subject}/anat/sub-{subject}_run-{across}_T1w.nii.gz"
            scan = scan_from(head, across, np.eye(4), scale=100.0, seed=across)
            if (subject, across) == ("02", 1):
                nothing = 60 + 25 * rng.standard_normal(scan.shape)
                scan = scan.with_data(np.where(scan.data > 5, nothing, 0).clip(0).astype(np.float32))
            scan.save(path)
            ScanOperator(scanner_of(across), 0.02, intensity_scale=100.0).save(
                path.with_name(path.name.replace(".nii.gz", ".operator.json"))
            )
    scans = combine(find_scans(study))
    quick = replace(options, solver="data-step", samples=None, steps=None)
    out = tmp_path / "out"
    summary = run_cohort(scans, study, out, make_enhancer(quick, here=True), in_process)
    (failure,) = summary.failures
    assert failure.name == "sub-02_rec-dynamicdps"
    assert "does not show what the other scans show" in failure.reason
    assert failure.reason.startswith("sub-02/anat/sub-02_run-")
    about = json.loads((out / "sub-01/anat/sub-01_rec-dynamicdps_T1w.json").read_text())["DynamicDPS"]
    places = [f"sub-01/anat/sub-01_run-{across}_T1w.nii.gz" for across in (1, 2)]
    assert [each["scan"] for each in about["scans"]] == places
    assert about["command"].startswith(f"dynamicdps enhance {' '.join(places)} --out DIR ")
    page = (out / "sub-01/anat/sub-01_rec-dynamicdps_report.html").read_text()
    assert str(tmp_path) not in page + json.dumps(about)
    kept = run_cohort(scans, study, out, make_enhancer(quick, here=True, keep_all=True), in_process)
    assert kept.failures == []
    about = json.loads((out / "sub-02/anat/sub-02_rec-dynamicdps_T1w.json").read_text())["DynamicDPS"]
    assert any("--keep-all was given" in warning for warning in about["warnings"])
    assert "--keep-all" in about["command"]


def test_the_parameters_are_all_options_but_the_place_of_the_work(options: StudyOptions) -> None:
    parameters = make_enhancer(options, here=True).parameters()
    assert set(parameters) == {"version", "models", *vars(options)} - {"seed", "device"}
    json.dumps(parameters)
