"""Names and links never lead out of the folder that a command was given."""

import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dynamicdps.cli import main
from dynamicdps.cohort import find_scans, in_process
from dynamicdps.cohort.derivatives import is_within, withdraw
from dynamicdps.evaluation.benchmark.cut import subject_name
from dynamicdps.evaluation.benchmark.folder import slice_path
from dynamicdps.json_file import write_json
from tests.cohort.made import Stub, make_study
from tests.conftest import make_phantom


def tree(folder: Path, leave_out: Path) -> dict[str, bytes]:
    """Every file below a folder but those of the results."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_relative_to(leave_out)
    }


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamicdps.cli.run_cohort.open_client", lambda config: nullcontext(SimpleNamespace(dashboard_link="")))
    monkeypatch.setattr("dynamicdps.cli.run_cohort.on_cluster", lambda client, tasks, enhancer: in_process(tasks, Stub()))


def test_is_within(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    (out / "a").mkdir(parents=True)
    other.mkdir()
    (out / "link").symlink_to(other)
    assert is_within(out / "a" / "b.json", out)
    assert is_within(out / "not" / "yet" / "there", out)
    for place in ("../x", "a/../../x", "link/x", "..", "a/.."):
        assert not is_within(out / place, out)
    assert not is_within(other / "x", out)
    # A link in the last place is taken away itself, not what it leads to.
    assert is_within(out / "link", out)


def test_states_of_a_cohort_delete_nothing_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "sub-01").mkdir(parents=True)
    for path in (out / "sub-01" / "mine", tmp_path / "theirs", tmp_path / "other" / "theirs"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("kept")
    (out / "link").symlink_to(tmp_path / "other")
    withdraw({"sub-01/mine": 1, "../theirs": 1, str(tmp_path / "theirs"): 1, "link/theirs": 1, "..": 0}, out)
    assert not (out / "sub-01" / "mine").exists()
    assert (tmp_path / "theirs").exists()
    assert (tmp_path / "other" / "theirs").exists()


def test_names_of_subjects_in_plain_folders(stub: None, tmp_path: Path) -> None:
    """Whatever the files are called, their labels are letters and digits."""
    data, out = tmp_path / "data", tmp_path / "out"
    names = ("..nii.gz", "a/...nii.gz", "sub-..%2f..%2fescaped.nii.gz", "sub-01_ses-..;rm_T1w.nii.gz", "b c/\u202eevil$(touch x).nii.gz")
    for seed, name in enumerate(names):
        path = make_phantom((16, 18, 6), seed=seed).save(data / f"plain{seed}.nii.gz")
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(data / name)
    scans = find_scans(data, pattern="**/*.nii.gz")
    assert len(scans) >= 3
    assert all(is_within(out / scan.folder / scan.name, out) and ".." not in scan.folder for scan in scans)
    before = tree(tmp_path, out)
    assert main(["cohort", str(data), str(out), "--pattern", "**/*.nii.gz", "--workers", "1"]) == 0
    assert tree(tmp_path, out) == before


def test_links_in_a_dataset_and_in_its_results(stub: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, out, elsewhere = make_study(tmp_path / "study", 1), tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    out.mkdir()
    (out / "sub-01").symlink_to(elsewhere)
    before = tree(tmp_path, out)
    with pytest.raises(SystemExit):
        main(["cohort", str(study), str(out), "--workers", "1"])
    assert "leads out of" in capsys.readouterr().out
    assert tree(tmp_path, out) == before


def test_files_that_are_links_are_replaced(scan_files: list[Path], tmp_path: Path) -> None:
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    out.mkdir()
    theirs.write_text("kept")
    for name in ("low.nii.gz", "low.run.json", "low.operator.json", ".partial-low.nii.gz", ".partial-low.run.json"):
        (out / name).symlink_to(theirs)
    assert main(["simulate", str(scan_files[0]), "--out", str(out / "low.nii.gz")]) == 0
    assert theirs.read_text() == "kept"
    assert not any(path.is_symlink() for path in out.iterdir())
    (out / ".partial-a.json").symlink_to(theirs)
    write_json(out / "a.json", {"a": 1})
    assert theirs.read_text() == "kept"


def test_names_in_a_benchmark(tmp_path: Path) -> None:
    """Subjects, conditions and solvers become parts of file names, not folders."""
    names = ("..", "../x", "/etc/x", "a/../../b", "..\\x")
    for condition in (f"{a}/{b}" for a in names for b in ("iqt-in", "..")):
        for subject in map(subject_name, map(Path, ("..nii.gz", "...nii.gz", "../../x.nii", "sub-01_T1w.nii"))):
            for solver in ("dynamicdps", "truth"):
                assert is_within(slice_path(tmp_path, subject, condition, solver), tmp_path)
    degradations = tmp_path / "d.json"
    degradations.write_text(json.dumps({"../../escaped": {"type": "LowField", "gamma": 0.5}}))
    scan = make_phantom().save(tmp_path / "sub-01.nii.gz")
    command = ["benchmark", str(scan), "--out", str(tmp_path / "out"), "--degradations", str(degradations)]
    assert main([*command, "--conditions", "identity/../../escaped"]) == 2
    assert not (tmp_path / "out").exists()


def test_dicom_series_give_no_names(tiny_models: tuple[str, str], tmp_path: Path) -> None:
    from tests.volumes.dicom_files import Stack, write_slices

    volume = make_phantom((40, 48, 8))
    stack = Stack((np.maximum(volume.data, 0) * 900).astype(np.uint16).transpose(2, 1, 0), np.eye(3), (1.0, 1.0, 1.0), np.zeros(3))
    files = write_slices(tmp_path / "in" / "dicom", stack)
    for file in files:
        file.SeriesDescription, file.ProtocolName, file.SequenceName = "../../escaped", "/escaped", "../escaped"
        del file.ScanningSequence
        file.RescaleIntercept = 0
        file.save_as(str(file.filename))
    out = tmp_path / "in" / "out"
    before, around = tree(tmp_path, out), sorted(os.listdir(tmp_path))
    words = ["--prior", tiny_models[0], "--conditional", tiny_models[1], "--solver", "data-step", "--mask", "none", "--operator", "fit"]
    assert main(["enhance", str(tmp_path / "in" / "dicom"), "--out", str(out), *words]) == 0
    assert tree(tmp_path, out) == before
    assert sorted(os.listdir(tmp_path)) == around


def test_brackets_in_names_are_printed(scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "[bold]scan[1][/] :smile:.nii.gz"
    assert main(["simulate", str(scan_files[0]), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
