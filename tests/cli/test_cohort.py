"""`dynamicdps cohort`: a tiny study with tiny models, and what it refuses."""

import json
import re
import shutil
from contextlib import nullcontext
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bidsschematools import rules, schema

from dynamicdps.cli import main, run_cohort
from dynamicdps.cli.commands import Cohort
from dynamicdps.cli.run_cohort import cluster_config
from dynamicdps.cohort import BidsScan, find_scans, in_process, make_enhancer
from dynamicdps.cohort.derivatives import FILES, place_of
from dynamicdps.conditional import load_conditional, train_unet
from dynamicdps.errors import InputError
from dynamicdps.models import model_cache, model_file
from dynamicdps.networks import NeighbourConfig, NetworkConfig
from dynamicdps.output_names import BRAIN_MASK
from dynamicdps.pipeline import StudyOptions
from dynamicdps.priors import load_prior
from dynamicdps.training import TrainingConfig, train_prior
from dynamicdps.volumes import load
from tests.cohort.made import Stub, contents, make_study
from tests.conftest import make_phantom
from tests.properties import input_error

TINY = NetworkConfig(channels=(16, 16), residual_blocks=(1, 1), attention=(False, False), norm_groups=8)
TINY_PRIOR = NeighbourConfig(3, 1, TINY.channels, TINY.residual_blocks, TINY.attention, TINY.norm_groups)
STEPS = TrainingConfig(steps=2, checkpoint_every=2, bfloat16=False)
SCAN = "sub-01/anat/sub-01_T1w.nii.gz"
ENHANCED = "sub-01/anat/sub-01_rec-dynamicdps"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", 2)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """An enhancer that takes no time, in this process."""
    monkeypatch.setattr("dynamicdps.cli.run_cohort.open_client", lambda config: nullcontext(SimpleNamespace(dashboard_link="")))
    monkeypatch.setattr("dynamicdps.cli.run_cohort.on_cluster", lambda client, tasks, enhancer: in_process(tasks, Stub()))


@cache
def bids_patterns() -> list[re.Pattern[str]]:
    """File names of raw data and of derivatives, by the standard's own schema."""
    known = schema.load_schema()
    files = known.rules.files
    found = [rule for group in (files.common, files.raw, files.deriv) for rule in rules.regexify_filename_rules(group, known, level=2)]
    return [re.compile(rule["regex"]) for rule in found]


def no_bids_names(out: Path) -> list[str]:
    """Files whose name is none of BIDS, without those that .bidsignore names."""
    ignored = (out / ".bidsignore").read_text().split()
    names = [name for name in contents(out) if not any(fnmatch(Path(name).name, pattern) for pattern in [*ignored, ".bidsignore"])]
    assert names
    return [name for name in names if not any(pattern.fullmatch(name) for pattern in bids_patterns())]


def test_a_study(stub: None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["cohort", str(study), str(out), "--workers", "1"]
    assert main([*command, "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert "3 of 3 scans to do" in listed
    assert "also has" not in listed
    assert not out.exists()
    assert main(command) == 0
    assert "3 scans: 3 enhanced, 0 unchanged, 0 failed" in capsys.readouterr().out
    assert no_bids_names(out) == []
    assert all((out / f"{ENHANCED}_{ending}").is_file() for ending in ("dseg.nii.gz", "dseg.tsv", "structures.tsv"))
    values = json.loads((out / "run.json").read_text())
    assert (values["command"], values["exit"], values["enhanced"], values["failures"]) == ("cohort", 0, 3, {})
    assert main([*command, "--subject", "02", "--session", "2", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "unchanged     sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz" in said
    assert "0 of 1 scans to do" in said


def test_t2w_scans_beside_t1w_ones(stub: None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / SCAN).rename(study / SCAN.replace("T1w", "T2w"))
    out = tmp_path / "out"
    assert main(["cohort", str(study), str(out), "--workers", "1", "--contrast", "T2w"]) == 0
    said = capsys.readouterr().out
    assert "also has 2 T1w scans, which are not enhanced; --contrast T1w" in " ".join(said.split())
    assert main(["cohort", str(study), str(out), "--workers", "1"]) == 0
    again = capsys.readouterr().out
    assert "also has 1 T2w scans" in " ".join(again.split())
    said += again
    assert "1 scans: 1 enhanced" in said
    assert "2 scans: 2 enhanced" in said
    assert no_bids_names(out) == []
    scan = find_scans(study, suffix="T2w")[0]
    # The stub finds no brain.
    assert any(pattern.fullmatch(place_of(scan, FILES[BRAIN_MASK])) for pattern in bids_patterns())


def test_scans_of_a_session_together(stub: None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for plane in ("coronal", "sagittal"):
        shutil.copy(study / SCAN, study / SCAN.replace("_T1w", f"_acq-{plane}_T1w"))
    out = tmp_path / "out"
    command = ["cohort", str(study), str(out), "--workers", "1", "--combine"]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "5 scans make 3 when those of a session are combined" in said
    places = sorted(path.relative_to(study).as_posix() for path in (study / "sub-01").rglob("*.nii.gz"))
    assert f"{' | '.join(places)} -> {ENHANCED}_T1w.nii.gz" in said
    assert main(command) == 0
    assert "3 scans: 3 enhanced" in capsys.readouterr().out
    assert no_bids_names(out) == []
    assert main([*command, "--dry-run"]) == 0
    assert "0 of 3 scans to do" in capsys.readouterr().out
    assert json.loads((out / f"{ENHANCED}_T1w.json").read_text())["Sources"] == [f"bids:raw:{place}" for place in places]


def test_a_failure_is_told_at_the_end(stub: None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / SCAN).write_bytes(b"not an image")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        main(["cohort", str(study), str(out), "--workers", "1"])
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert "3 scans: 2 enhanced, 0 unchanged, 1 failed" in said
    assert f"failed: {SCAN}: {SCAN} cannot be read as an image" in said
    assert json.loads((out / "run.json").read_text())["exit"] == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--solver", "none-such"], "data-step"),
        (["--prior", "none-such"], "none-such"),
        (["--subject", "99"], "holds no scan"),
        (["--cluster", "none-such"], "slurm"),
        (["--workers", "0"], "workers"),
        (["--threads", "0"], "threads"),
        (["--pattern", "../*"], "--pattern"),
        (["--show-job-script"], "no job script"),
        (["--keep-all"], "--combine"),
    ],
)
def test_what_is_refused(
    arguments: list[str], word: str, stub: None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cohort", str(study), str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert word in said
    assert "expected" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


WRONG = [
    ["--samples", "0"],
    ["--steps", "-1"],
    ["--solver", "none-such"],
    ["--solver", "tv", "--estimate", "sample"],
    ["--set", "colour=red"],
    ["--set", "steps=many"],
    ["--start-quantile", "2"],
    ["--start-calibration", "missing.json"],
    ["--operator", "none-such"],
    ["--operator", "notes.txt"],
    ["--mask", "none-such"],
    ["--mask", "notes.txt"],
    ["--grid", "none-such"],
    ["--grid", "notes.txt"],
    ["--prior", "none-such"],
    ["--conditional", "none-such"],
    ["--device", "abacus"],
    ["--device", "abacus", "--cluster", "slurm"],
    ["--shading", "on", "--operator", "iqt-in"],
    ["--seed", "-1"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_option_leaves_finished_results_alone(
    arguments: list[str], stub: None, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("about")
    out = tmp_path / "out"
    assert main(["cohort", str(study), str(out), "--workers", "1"]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["cohort", str(study), str(out), "--workers", "1", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_device_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where jobs are submitted there may be no GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert make_enhancer(StudyOptions(device="cuda"), here=False)
    with pytest.raises(InputError, match="not on this machine"):
        make_enhancer(StudyOptions(device="cuda"), here=True)


@pytest.mark.parametrize(
    ("place", "words"),
    [("study", "is the dataset"), (".", "holds the dataset"), ("study/sub-01", "scans of the dataset"), ("other", "something else")],
)
def test_no_raw_data_are_written_over(
    place: str, words: str, stub: None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "other", 1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["cohort", str(study), str(tmp_path / place), "--workers", "1"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "derivatives" in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_results_beside_plain_scans(stub: None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of scans is refused; one in the dataset that is the command's own is not, the second time neither."""
    command = ["--pattern", "**/*.nii.gz", "--workers", "1"]
    assert main(["cohort", str(study), str(study / "sub-02"), *command]) == 2
    assert "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz" in capsys.readouterr().err
    for unchanged in (0, 3):
        assert main(["cohort", str(study), str(study / "derivatives"), *command]) == 0
        assert f"{unchanged} unchanged" in capsys.readouterr().out


def test_a_file_of_the_results_is_no_option(stub: None, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["cohort", str(study), str(out), "--workers", "1"]) == 0
    assert main(["cohort", str(study), str(out), "--grid", str(out / f"{ENHANCED}_T1w.nii.gz")]) == 2
    assert "written over" in capsys.readouterr().err


def test_an_interrupted_study_is_recorded(
    stub: None, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr("dynamicdps.cli.run_cohort.on_cluster", interrupted)
    assert main(["cohort", str(study), str(out), "--workers", "1"]) == 130
    assert "what was finished is kept" in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text())["exit"] == 130


def test_a_job_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed as it is, brackets and all."""
    command = ["cohort", "anywhere", str(tmp_path), "--cluster", "lsf", "--threads", "2", "--show-job-script"]
    assert main(command) == 0
    assert '#BSUB -R "span[hosts=1]"' in capsys.readouterr().out


def test_a_worker_holds_its_models_from_scan_to_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load_file = model_file.load_file

    def counted(path: Path) -> dict[str, torch.Tensor]:
        read.append(path.stem)
        return load_file(path)

    def enhance(scans: tuple[Path, ...], options: StudyOptions) -> None:
        load_prior(options.prior)
        load_conditional(options.conditional)
        raise InputError("that was all")

    monkeypatch.setattr(model_file, "load_file", counted)
    monkeypatch.setattr(model_cache, "_held", {})
    monkeypatch.setattr("dynamicdps.cohort.enhancer.enhance", enhance)
    enhancer = make_enhancer(StudyOptions(), here=True)
    read.clear()
    for number in range(3):
        with pytest.raises(InputError, match="that was all"):
            enhancer(BidsScan((tmp_path / f"{number}.nii",), ("",), (("sub", str(number)),)), tmp_path, seed=0)
    assert sorted(read) == ["brain", "unet-scanners"]


def test_one_local_worker_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    config = cluster_config(Cohort(tmp_path, tmp_path, device="cuda"))
    assert (config.workers, config.gpus) == (3, (0, 1, 2))
    assert cluster_config(Cohort(tmp_path, tmp_path)).gpus == ()
    queued = cluster_config(Cohort(tmp_path, tmp_path, device="cuda", cluster="slurm", workers=5))
    assert (queued.workers, queued.gpus) == (5, ())


@pytest.mark.slow
def test_a_study_enhanced_by_workers(scan_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real enhancer with tiny models: the same bytes from one worker and from two, and from a run that is gone on with."""
    prior = train_prior(scan_files, tmp_path / "prior", network_config=TINY_PRIOR, config=STEPS)
    unet = train_unet(scan_files, tmp_path / "unet", network_config=TINY, config=STEPS)
    study = tmp_path / "study"
    for number in (1, 2):
        good = make_phantom(seed=number).save(tmp_path / f"good-{number}.nii.gz")
        poor = study / f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz"
        assert main(["simulate", str(good), "--out", str(poor), "--seed", str(number)]) == 0
    options = ["--prior", str(prior), "--conditional", str(unet), "--samples", "2", "--steps", "2", "--mask", "none"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["cohort", str(study), str(one), "--workers", "1", *options]) == 0
    assert main(["cohort", str(study), str(two), "--workers", "2", "--subject", "02", *options]) == 0
    assert main(["cohort", str(study), str(two), "--workers", "2", *options]) == 0
    assert "2 scans: 1 enhanced, 1 unchanged, 0 failed" in capsys.readouterr().out
    assert contents(one) == contents(two)
    assert no_bids_names(one) == []
    for ending in ("T1w.nii.gz", "desc-initial_T1w.nii.gz", "desc-residual_T1w.nii.gz", "desc-uncertainty_T1w.nii.gz", "report.html"):
        assert (one / f"{ENHANCED}_{ending}").is_file()
    assert load(one / f"{ENHANCED}_T1w.nii.gz").shape == (48, 56, 12)
    about = json.loads((one / f"{ENHANCED}_T1w.json").read_text())["DynamicDPS"]
    assert set(about["models"]) == {"prior", "conditional"}
    assert about["operator"]["type"] == "LowField"
    assert about["command"].startswith(f"dynamicdps enhance {SCAN} --out DIR")
    page = (one / f"{ENHANCED}_report.html").read_text()
    for text in (page, json.dumps(about), (one / "cohort.tsv").read_text()):
        assert str(tmp_path) not in text
    assert about["command"] in page
    header, row, _ = ((one / "cohort.tsv").read_text()).splitlines()
    values = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    columns = json.loads((one / "cohort.json").read_text())
    for tissue in ("csf", "gm", "wm"):
        # Of two posterior samples.
        low, middle, high = (float(values[name]) for name in (f"{tissue}_low", tissue, f"{tissue}_high"))
        assert low <= middle <= high
        assert low < high
        assert "95 % interval" in columns[f"{tissue}_low"]["Description"]
        assert about["volumes_mm3"][tissue] == middle
        assert about["volumes_interval_mm3"][tissue] == [low, high]
    assert float(values["data_misfit"]) > 0


def test_a_contrast_that_these_scans_do_not_lead_to(study: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    words = ["cohort", str(study), out]
    with input_error("--to T1w is given for a T1w scan"):
        run_cohort.as_asked(Cohort(study, tmp_path / "out", to="t1w"), find_scans(study))
    with input_error("--to is 'T2w'; expected T1w"):
        run_cohort.as_asked(Cohort(study, tmp_path / "out", to="T2w"), find_scans(study))
    assert main([*words, "--to", "t1w"]) == 2
    assert not Path(out).exists()
    shutil.copy(study / SCAN, study / SCAN.replace("T1w", "T2w"))
    scans = find_scans(study, suffix="T2w")
    with input_error("--to is given with --combine"):
        run_cohort.as_asked(Cohort(study, tmp_path / "out", to="T1w", combine=True), scans)
    assert [scan.to for scan in run_cohort.as_asked(Cohort(study, tmp_path / "out", to="t1w"), scans)] == ["T1w"]
