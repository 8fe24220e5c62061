"""`dynamicdps-bids`: a dataset of several contrasts and sessions, what it refuses, and what describes it to others."""

import csv
import json
import shutil
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamicdps import __version__
from dynamicdps.cli import main, main_bids
from dynamicdps.cli.commands import BidsApp
from dynamicdps.cli.parse import DYNAMICDPS_BIDS, read_command
from dynamicdps.cli.run_bids import shares
from dynamicdps.cohort import in_process
from dynamicdps.cohort.lock import locked, locked_subjects
from dynamicdps.errors import InputError
from tests.cli.test_cohort import no_bids_names
from tests.cohort.made import SMALL, Stub, contents, left_behind, make_study
from tests.conftest import make_phantom

CONTAINERS = Path(__file__).parents[2] / "containers"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Subject 1: T1w, T2w, FLAIR; 2: two sessions of T1w and one of FLAIR alone; 3: no T1w; 4: a name of no standard."""
    folder = make_study(tmp_path / "study", 2)
    for place in (
        *("sub-01/anat/sub-01_T2w", "sub-01/anat/sub-01_FLAIR", "sub-02/ses-1/anat/sub-02_ses-1_acq-low_T2w"),
        *("sub-02/ses-3/anat/sub-02_ses-3_FLAIR", "sub-03/anat/sub-03_T2w", "sub-04/anat/scan one"),
    ):
        make_phantom(SMALL, seed=len(place)).save(folder / f"{place}.nii.gz")
    return folder


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """An enhancer that takes no time, in this process."""
    monkeypatch.setattr("dynamicdps.cli.run_bids.in_process", lambda tasks, enhancer: in_process(tasks, Stub()))
    monkeypatch.setattr("dynamicdps.cli.run_cohort.open_client", lambda config: nullcontext(SimpleNamespace(dashboard_link="")))
    monkeypatch.setattr("dynamicdps.cli.run_cohort.on_cluster", lambda client, tasks, enhancer: in_process(tasks, Stub()))


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row.get("source", ""): row for row in csv.DictReader(file, delimiter="\t")}


def test_participants_one_by_one_and_the_group(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for label, enhanced in (("01", 1), ("sub-02", 2)):
        assert main_bids([str(study), str(out), "participant", "--participant_label", label, "--n_cpus", "1"]) == 0
        said = capsys.readouterr().out
        assert f"{enhanced} scans: {enhanced} enhanced, 0 unchanged, 0 failed" in said
        assert ("not enhanced: sub-01/anat/sub-01_FLAIR.nii.gz: its suffix is FLAIR" in said) == (label == "01")
    assert not (out / "index.html").exists()
    assert json.loads((out / "logs" / "sub-01.run.json").read_text())["exit"] == 0
    assert main_bids([str(study), str(out), "group"]) == 0
    assert "3 scans: 3 enhanced" in capsys.readouterr().out
    listed = rows(out / "not_enhanced.tsv")
    assert {source: row["reason"].split(";")[0] for source, row in listed.items()} == {
        "sub-01/anat/sub-01_FLAIR.nii.gz": "its suffix is FLAIR",
        "sub-01/anat/sub-01_T2w.nii.gz": "its suffix is T2w",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-low_T2w.nii.gz": "its suffix is T2w",
        "sub-02/ses-3": "there is no T1w scan in sub-02/ses-3/anat",
        "sub-02/ses-3/anat/sub-02_ses-3_FLAIR.nii.gz": "its suffix is FLAIR",
        "sub-03": "there is no T1w scan in sub-03/anat",
        "sub-03/anat/sub-03_T2w.nii.gz": "its suffix is T2w",
        "sub-04": "there is no T1w scan in sub-04/anat",
        "sub-04/anat/scan one.nii.gz": "its name is none of BIDS",
    }
    assert {(row["participant_id"], row["session_id"]) for row in listed.values()} >= {("sub-01", "n/a"), ("sub-02", "ses-3")}
    # Whatever lies in an anat folder is in one of the two tables.
    images = {path.relative_to(study).as_posix() for path in study.glob("sub-*/**/*.nii.gz")}
    assert images <= rows(out / "cohort.tsv").keys() | listed.keys()
    page = (out / "index.html").read_text()
    assert "3 scans: 3 enhanced, 0 of them flagged, 0 failed. Left out: 9," in page
    assert "its suffix is FLAIR" in page
    assert no_bids_names(out) == []
    assert left_behind(out) == []


def test_the_results_are_those_of_cohort(study: Path, tmp_path: Path) -> None:
    """Byte for byte, but for the list of what is not enhanced and the page that shows it."""
    app, cohort = tmp_path / "app", tmp_path / "cohort"
    for label in ("02", "01"):
        assert main_bids([str(study), str(app), "participant", "--participant-label", label, "--n-cpus", "1", "--mem-mb", "9000"]) == 0
    assert main_bids([str(study), str(app), "group"]) == 0
    assert main(["cohort", str(study), str(cohort), "--workers", "1"]) == 0
    apart = {"index.html", "not_enhanced.tsv", "not_enhanced.json", "logs/sub-01.run.json", "logs/sub-02.run.json"}
    mine, theirs = contents(app), contents(cohort)
    assert {name: digest for name, digest in mine.items() if name not in apart} == {
        name: digest for name, digest in theirs.items() if name not in apart
    }


def test_scans_of_a_session_together(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One row where they are enhanced, and each with the reason where they are not."""
    for label in ("01", "02/ses-1"):
        place = next((study / f"sub-{label}").rglob("*_T1w.nii.gz"))
        shutil.copy(place, place.with_name(place.name.replace("_T1w", "_acq-coronal_T1w")))
    (study / "sub-02/ses-1/anat/sub-02_ses-1_acq-coronal_T1w.nii.gz").write_bytes(b"not an image")
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        main_bids([str(study), str(out), "participant", "--combine", "--n_cpus", "1"])
    assert "3 scans: 2 enhanced, 0 unchanged, 1 failed" in capsys.readouterr().out
    assert main_bids([str(study), str(out), "group", "--combine"]) == 0
    assert "3 scans: 2 enhanced" in capsys.readouterr().out
    assert "sub-01/anat/sub-01_T1w.nii.gz | sub-01/anat/sub-01_acq-coronal_T1w.nii.gz" in rows(out / "cohort.tsv")
    listed = rows(out / "not_enhanced.tsv")
    for name in ("sub-02_ses-1_T1w", "sub-02_ses-1_acq-coronal_T1w"):
        assert "sub-02_ses-1_acq-coronal_T1w.nii.gz cannot be read" in listed[f"sub-02/ses-1/anat/{name}.nii.gz"]["reason"]
    # On the page once, as the failure that it is.
    assert (out / "index.html").read_text().count("cannot be read as an image") == 1


@dataclass(frozen=True)
class Modelless(Stub):
    """What a worker of another process can be sent."""

    models: tuple[tuple[str, str], ...] = ()


@pytest.mark.slow
def test_several_workers_leave_the_same(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamicdps.cli.run_bids.make_enhancer", lambda options, here, memory, keep_all: Modelless())
    for workers in ("1", "2"):
        out = str(tmp_path / workers)
        assert main_bids([str(study), out, "participant", "--n_cpus", workers, "--omp_nthreads", "1", "--mem_mb", "8000"]) == 0
        assert main_bids([str(study), out, "group"]) == 0
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    del one["logs/participants.run.json"], two["logs/participants.run.json"]
    assert one == two


def test_a_failure_is_told_and_listed(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "sub-01/anat/sub-01_T1w.nii.gz").write_bytes(b"not an image")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        main_bids([str(study), str(out), "participant", "--n_cpus", "1", "--participant_label", "01"])
    assert stopped.value.code == 1
    assert json.loads((out / "logs" / "sub-01.run.json").read_text())["exit"] == 1
    assert main_bids([str(study), str(out), "group"]) == 0
    listed = rows(out / "not_enhanced.tsv")
    assert "cannot be read as an image" in listed["sub-01/anat/sub-01_T1w.nii.gz"]["reason"]
    assert "has not been run" in listed["sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz"]["reason"]
    page = (out / "index.html").read_text()
    assert "<strong>failed</strong>" in page
    # Once: as the failure that it is.
    assert page.count("cannot be read as an image") == 1
    assert str(tmp_path) not in (out / "not_enhanced.tsv").read_text() + page


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["STUDY", "OUT", "participants"], "participant|group is 'participants'; expected group or participant"),
        (["STUDY", "OUT"], "got no participant|group"),
        (["nowhere", "OUT", "participant"], "is no folder"),
        (["STUDY", "OUT", "group"], "expected those of the level participant"),
        (["STUDY", "STUDY", "participant"], "is the dataset"),
        (["STUDY", "OUT", "participant", "--participant_label", "01", "99"], "has no participant sub-99"),
        (["STUDY", "OUT", "participant", "--session_label", "9"], "holds no scan"),
        (["STUDY", "OUT", "participant", "--participant-label", "03"], "holds no scan"),
        (["STUDY", "OUT", "participant", "--n_cpus", "0"], "--n-cpus is 0"),
        (["STUDY", "OUT", "participant", "--mem_mb", "-5"], "--mem-mb is -5"),
        (["STUDY", "OUT", "participant", "--solver", "none-such"], "data-step"),
        (["STUDY", "OUT", "participant", "--participants", "01"], "did you mean --participant-label"),
    ],
)
def test_what_is_refused(words: list[str], part: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"STUDY": str(study), "OUT": str(tmp_path / "out")}
    try:
        code: Any = main_bids([places.get(word, word) for word in words])
    except SystemExit as stopped:
        code = stopped.code
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2
    assert line.startswith("dynamicdps-bids: ")
    assert part in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"Name": "x"}', '{"Name": 1, "BIDSVersion": "1.10.0"}'])
def test_validation(content: str | None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    description = study / "dataset_description.json"
    if content is None:
        description.unlink()
    else:
        description.write_text(content)
    words = [str(study), str(tmp_path / "out"), "participant", "--participant_label", "01", "--n_cpus", "1"]
    assert main_bids(words) == 2
    assert "--skip-bids-validation" in capsys.readouterr().err
    for spelling in ("--skip-bids-validation", "--skip_bids_validation"):
        assert main_bids([*words, spelling]) == 0


def test_both_spellings_of_every_option() -> None:
    values: dict[str, list[str]] = {"skip_bids_validation": [], "keep_all": []}
    plain = read_command(["a", "b", "group"], DYNAMICDPS_BIDS)
    names = [known.name for known in fields(BidsApp) if "_" in known.name and known.name != "bids_dir"]
    assert {"participant_label", "session_label", "skip_bids_validation", "n_cpus", "omp_nthreads", "mem_mb", "start_quantile"} <= set(
        names
    )
    for name in names:
        under, dashed = (
            read_command(["a", "b", "group", f"--{spelling}", *values.get(name, ["1"])], DYNAMICDPS_BIDS)
            for spelling in (name, name.replace("_", "-"))
        )
        assert under == dashed != plain


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_bids(["--version"]) == 0
    assert capsys.readouterr().out == f"dynamicdps-bids {__version__}\n"
    with pytest.raises(SystemExit) as stopped:
        main_bids(["--help"])
    assert not stopped.value.code
    assert "participant|group" in capsys.readouterr().out


@given(
    cores=st.none() | st.integers(1, 64),
    threads=st.none() | st.integers(1, 64),
    memory=st.none() | st.integers(1, 500_000),
    scans=st.integers(1, 50),
)
def test_cores_and_memory_are_shared(cores: int | None, threads: int | None, memory: int | None, scans: int) -> None:
    """No more than is given is used, but that one worker needs one core."""
    arguments = BidsApp(Path("a"), Path("b"), "participant", n_cpus=cores, omp_nthreads=threads, mem_mb=memory)
    workers, each, bound = shares(arguments, scans)
    assert 1 <= workers <= scans
    assert each == threads if threads else each >= 1
    if cores is not None:
        assert workers * each <= max(cores, each)
    if memory is None:
        assert bound is None
    else:
        assert bound is not None
        assert workers * bound <= memory / 1000 * (1 + 1e-9)
        assert workers == 1 or bound >= 4


def test_runs_beside_each_other(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other participants go on; the same one, the group and a cohort are refused meanwhile."""
    out = tmp_path / "out"
    words = [str(study), str(out), "participant", "--n_cpus", "1", "--participant_label"]
    assert main_bids([*words, "02"]) == 0
    with locked_subjects(out / ".cohort", ["02"]):
        assert main_bids([*words, "01"]) == 0
        for refused in ([*words, "02"], [*words, "01", "02"], [str(study), str(out), "group"]):
            assert main_bids(refused) == 2
        assert main(["cohort", str(study), str(out), "--workers", "1"]) == 2
        assert capsys.readouterr().err.count("another run is working on") == 4
    with locked(out / ".cohort"), pytest.raises(InputError, match="is working in"), locked_subjects(out / ".cohort", ["01"], seconds=0.1):
        pass
    assert main_bids([str(study), str(out), "group"]) == 0


def test_work_of_a_killed_job_is_taken_away_and_that_of_others_is_not(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [str(study), str(out), "participant", "--n_cpus", "1", "--participant_label"]
    assert main_bids([*words, "01"]) == 0
    work = out / ".cohort" / "work-beside-0"
    mine, theirs = work / "sub-01_rec-dynamicdps.abc", work / "sub-02_ses-1_rec-dynamicdps.abc"
    for each in (mine, theirs):
        each.mkdir(parents=True)
    (work / "alive").touch()
    shutil.rmtree(out / "sub-01")
    assert main_bids([*words, "01"]) == 0
    assert not mine.exists()
    assert theirs.exists()
    assert main(["cohort", str(study), str(out), "--workers", "1"]) == 0
    assert left_behind(out) == []


def test_the_boutiques_descriptor() -> None:
    """It has what its schema requires, and a command line of it is one of ours; `bosh validate` says the rest."""
    about = json.loads((CONTAINERS / "dynamicdps-bids.json").read_text())
    required = {"name", "description", "command-line", "schema-version", "inputs", "tool-version"}
    assert required <= about.keys()
    assert (about["schema-version"], about["tool-version"]) == ("0.5", __version__)
    assert len({each["id"] for each in about["inputs"]}) == len(about["inputs"])
    assert {each["value-key"] for each in about["inputs"]} == set(about["command-line"].split()[1:])
    example = {"File": "x", "String": "x", "Number": "1", "Flag": ""}
    line, given = about["command-line"], {}
    for each in about["inputs"]:
        assert {"id", "name", "type"} <= each.keys()
        value = each.get("value-choices", [example[each["type"]]])[0]
        line = line.replace(each["value-key"], f"{each.get('command-line-flag', '')} {value}")
        given[each["id"]] = value
    program, *words = line.split()
    assert program == DYNAMICDPS_BIDS.name
    read = read_command(words, DYNAMICDPS_BIDS)
    # Every input arrives at the option of its name.
    for name, value in given.items():
        got = getattr(read, name)
        assert value in ("", *(map(str, got) if isinstance(got, tuple) else [str(got)]))
    assert read.skip_bids_validation


def test_the_containers_take_files_that_are_there() -> None:
    root = CONTAINERS.parent
    definition = (CONTAINERS / "dynamicdps-bids.def").read_text()
    files = definition.partition("%files\n")[2].partition("\n\n")[0].split()[::2]
    assert files
    assert all((root / name).exists() for name in files)
    copied = [line.split()[1:-1] for line in (root / "Containerfile").read_text().splitlines() if line.startswith("COPY ")]
    assert sorted(files) == sorted(name.removeprefix("./") for names in copied for name in names)
