"""What a run does, does again, and leaves: with an enhancer that takes no time, in this process."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamicdps.cohort import BidsScan, Enhancer, Outcome, Summary, Task, combine, find_left_out, find_scans, in_process, plan, run_cohort
from dynamicdps.cohort.state import read_state, state_path
from dynamicdps.errors import InputError
from dynamicdps.volumes import load
from tests.cohort.made import Stub, contents, make_study

ROOT = Path(__file__).parents[2]
NAME = "sub-01_rec-dynamicdps"
SCAN = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


def run(study: Path, out: Path, enhancer: Enhancer | None = None, **options: Any) -> Summary:
    return run_cohort(find_scans(study), study, out, enhancer or Stub(), in_process, **options)


def rows(out: Path) -> list[dict[str, str]]:
    header, *lines = (out / "cohort.tsv").read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_what_is_written(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(study, out)
    assert (summary.scans, summary.enhanced, summary.unchanged, summary.failures) == (4, 4, 0, [])
    written = set(contents(out))
    assert {f"sub-01/anat/{NAME}_{end}" for end in ("T1w.nii.gz", "T1w.json", "desc-initial_T1w.nii.gz", "report.html")} <= written
    assert "sub-02/ses-1/anat/sub-02_ses-1_rec-dynamicdps_T1w.nii.gz" in written
    assert {"dataset_description.json", "README", ".bidsignore", "cohort.tsv", "cohort.json", "index.html"} <= written
    assert not list(out.rglob("*partial*"))
    assert not list((out / ".cohort").glob("work-*"))
    about = json.loads((out / f"sub-01/anat/{NAME}_T1w.json").read_text())
    assert about["Sources"] == [f"bids:raw:{SCAN}"]
    assert about["DynamicDPS"]["models"] == {"prior": "0" * 64}
    assert len(about["DynamicDPS"]["input"]) == 64
    description = json.loads((out / "dataset_description.json").read_text())
    assert (description["DatasetType"], description["GeneratedBy"][0]["Name"]) == ("derivative", "DynamicDPS")
    assert (out / description["DatasetLinks"]["raw"]).resolve() == study.resolve()


def test_a_rerun_does_nothing(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study, out)
    before, times = contents(out), {path: path.stat().st_mtime_ns for path in out.rglob("sub-*")}
    summary = run(study, out)
    assert (summary.enhanced, summary.unchanged) == (0, 4)
    assert contents(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("sub-*")} == times


def test_only_what_is_missing_or_changed_is_done(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study, out)
    before = contents(out)
    (out / f"sub-01/anat/{NAME}_desc-initial_T1w.nii.gz").unlink()
    assert run(study, out).enhanced == 1
    assert contents(out) == before
    # Touched, but the same: its hash is taken again and nothing is done.
    os.utime(study / SCAN)
    summary = run(study, out)
    assert (summary.enhanced, summary.unchanged) == (0, 4)
    scan = load(study / SCAN)
    scan.with_data(scan.data * 2).save(study / SCAN)
    assert run(study, out).enhanced == 1
    changed = {name for name, digest in contents(out).items() if before.get(name) != digest}
    assert {name for name in changed if name.startswith("sub-")} == {
        f"sub-01/anat/{NAME}_{end}" for end in ("T1w.nii.gz", "T1w.json", "desc-initial_T1w.nii.gz")
    }
    # What is read beside a scan counts as well.
    (study / SCAN.replace(".nii.gz", ".json")).write_text('{"MagneticFieldStrength": 0.3}')
    assert run(study, out).enhanced == 1


def test_other_parameters_or_seeds_do_all_again(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study, out)
    assert run(study, out, Stub(strength=0.02)).enhanced == 4
    assert run(study, out, Stub(strength=0.02), seed=1).enhanced == 4
    assert run(study, out, Stub(strength=0.02, seconds=0.001), seed=1).unchanged == 4


def test_files_that_are_no_longer_made_go(study: Path, tmp_path: Path) -> None:
    class Less(Stub):
        def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
            facts = super().__call__(scan, folder, seed=seed)
            (folder / "initial.nii.gz").unlink()
            return facts

    out = tmp_path / "out"
    run(study, out)
    run(study, out, Less(strength=0.02))
    assert not list(out.rglob("*desc-initial*"))


def test_a_corrupt_scan_fails_alone(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study, out)
    whole = (study / SCAN).read_bytes()
    (study / SCAN).write_bytes(whole[: len(whole) // 2])
    (failure,) = run(study, out).failures
    assert failure.name == NAME
    assert "expected a NIfTI file" in failure.reason
    assert str(tmp_path) not in failure.reason
    table = rows(out)
    assert [row["status"] for row in table] == ["failed", "done", "done", "done"]
    assert table[0]["reason"] == failure.reason
    # What an older content of it had given is not taken for its result.
    assert not list((out / "sub-01").rglob("*.*"))
    (study / SCAN).write_bytes(whole)
    summary = run(study, out)
    assert (summary.enhanced, summary.unchanged, summary.failures) == (1, 3, [])


class Failing(Stub):
    """Cannot enhance one scan; its settings are others than the stub's."""

    def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
        if scan.source == SCAN:
            raise InputError("too much; expected less; change it")
        return super().__call__(scan, folder, seed=seed)


def test_a_failure_with_other_settings_keeps_what_was_finished(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study, out)
    before = contents(out)
    for _ in range(2):
        (failure,) = run(study, out, Failing(strength=0.02)).failures
        assert failure.reason == "too much; expected less; change it; what an earlier run had made of it is kept"
        after = contents(out)
        kept = [name for name in before if name.startswith("sub-01")]
        assert len(kept) == 7
        assert all(after[name] == before[name] for name in kept)
        # The table shows no number of the old settings beside those of the new ones, and the page neither report nor picture.
        failed, *others = rows(out)
        assert (failed["status"], failed["gm"], failed["data_misfit"]) == ("failed", "n/a", "n/a")
        assert {row["parameters"] for row in others} == {failed["parameters"]}
        page = (out / "index.html").read_text()
        assert f"{NAME}_report.html" not in page
        assert "sub-02_ses-1_rec-dynamicdps_report.html" in page
        assert page.count("data:image") == 3
    # With the old settings the scan is taken up again as it was.
    assert [each.reason for each in plan(find_scans(study), out, Stub(), seed=0)] == ["changed"] * 4
    times = {name: (out / name).stat().st_mtime_ns for name in kept}
    assert run(study, out).unchanged == 1
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == times
    assert contents(out) == before


def test_what_a_failure_has_kept_is_replaced_by_new_results(study: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    run(study, whole, Stub(strength=0.02))
    run(study, out, Stub(samples=2))
    run(study, out, Failing(strength=0.02))
    run(study, out, Stub(strength=0.02))
    assert contents(out) == contents(whole)


def test_what_a_failure_has_kept_goes_with_other_contents(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study, out)
    run(study, out, Failing(strength=0.02))
    scan = load(study / SCAN)
    scan.with_data(scan.data * 2).save(study / SCAN)
    (failure,) = run(study, out, Failing(strength=0.02)).failures
    assert "kept" not in failure.reason
    assert not list((out / "sub-01").rglob("*.*"))


def test_a_scan_that_cannot_be_read_now_keeps_its_results(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is away changes no contents."""

    def away(paths: tuple[Path, ...]) -> str:
        raise InputError(f"{paths[0].name} cannot be read (Input/output error); expected a file of yours; check it")

    out = tmp_path / "out"
    run(study, out)
    before = contents(out)
    os.utime(study / SCAN)
    with monkeypatch.context() as patch:
        patch.setattr("dynamicdps.cohort.work.input_hash", away)
        (failure,) = run(study, out).failures
    assert "Input/output error" in failure.reason
    assert run(study, out).unchanged == 4
    assert contents(out) == before


def test_a_fault_of_the_program_fails_one_scan_and_keeps_its_trace(study: Path, tmp_path: Path) -> None:
    class Faulty(Stub):
        def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
            if scan.source == SCAN:
                raise KeyError("x")
            return super().__call__(scan, folder, seed=seed)

    out = tmp_path / "out"
    (failure,) = run(study, out, Faulty()).failures
    assert failure.reason == "a fault of the program: KeyError: 'x'"
    assert "Traceback" in (out / f".cohort/errors/{NAME}.txt").read_text()


def test_a_full_disk_fails_scans_and_keeps_the_finished(study: Path, tmp_path: Path) -> None:
    class Full(Stub):
        def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
            if "sub-01" not in scan.source:
                (folder / "enhanced.nii.gz").write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().__call__(scan, folder, seed=seed)

    out = tmp_path / "out"
    summary = run(study, out, Full())
    assert summary.enhanced == 1
    assert {failure.reason.split(";")[0] for failure in summary.failures} == {"there is no space left for the results"}
    assert sorted(path.name for path in out.rglob("*_T1w.nii.gz") if "desc" not in path.name) == [f"{NAME}_T1w.nii.gz"]
    run(study, out)
    whole = tmp_path / "whole"
    run(study, whole)
    assert contents(out) == contents(whole)


FILL = """
import subprocess
import sys
from pathlib import Path
from dynamicdps.cohort import find_scans, in_process, run_cohort
from tests.cohort.made import Stub

study, out, kilobytes = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
out.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(out)], check=True)
try:
    summary = run_cohort(find_scans(study), study, out, Stub(), in_process)
    print(summary.enhanced, *(failure.reason.split(";")[0] for failure in summary.failures), sep="|")
except OSError as error:
    print("table", error.errno, sep="|")
left = {path.name.split("_rec")[0] for path in out.glob("sub-*/**/*") if path.is_file()}
whole = {path.name.split("_rec")[0] for path in out.glob("sub-*/**/*_T1w.json")}
print(left == whole)
subprocess.run(["mount", "-o", "remount,size=20m", str(out)], check=True)
summary = run_cohort(find_scans(study), study, out, Stub(), in_process)
print(summary.enhanced + summary.unchanged, len(summary.failures))
subprocess.run(["cp", "-r", str(out), sys.argv[4]], check=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [24, 40, 64, 96, 128])
def test_a_disk_that_is_full_at_any_moment(kilobytes: int, study: Path, tmp_path: Path) -> None:
    """A small disk of its own: whatever found no room is missing as a whole, and the rest is done when there is some."""
    (tmp_path / "fill.py").write_text(FILL)
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*private, "true"], check=False).returncode:
        pytest.skip("this system gives no mounts of one's own")
    command = [
        *private,
        sys.executable,
        str(tmp_path / "fill.py"),
        str(study),
        str(tmp_path / "out"),
        str(kilobytes),
        str(tmp_path / "copy"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    first, whole, after = done.stdout.splitlines()
    assert first.startswith("table|") or set(first.split("|")[1:]) == {"there is no space left for the results"}, first
    assert whole == "True"
    assert after == "4 0"
    run(study, tmp_path / "wanted")
    assert contents(tmp_path / "copy") == contents(tmp_path / "wanted")


def test_a_second_run_on_the_folder_is_refused_and_disturbs_nothing(study: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    refused = 0

    def twice(tasks: Iterator[Task], enhancer: Enhancer) -> Iterator[Outcome]:
        nonlocal refused
        for outcome in in_process(tasks, enhancer):
            with pytest.raises(InputError, match="is working in"):
                run(study, out, Stub(strength=0.5))
            refused += 1
            yield outcome

    assert run_cohort(find_scans(study), study, out, Stub(), twice).enhanced == refused == 4
    run(study, whole)
    assert contents(out) == contents(whole)


def test_a_scan_whose_worker_died_after_finishing_it_counts_as_enhanced(study: Path, tmp_path: Path) -> None:
    """Another worker finds it done already; a scan that was only touched has not been enhanced."""

    def again(tasks: Iterator[Task], enhancer: Enhancer) -> Iterator[Outcome]:
        for task in tasks:
            for outcome in (*in_process(iter([task]), enhancer), *in_process(iter([task]), enhancer)):
                last = outcome
            assert not last.again
            yield last

    out = tmp_path / "out"
    summary = run_cohort(find_scans(study), study, out, Stub(), again)
    assert (summary.enhanced, summary.unchanged) == (4, 0)
    os.utime(study / SCAN)
    summary = run_cohort(find_scans(study), study, out, Stub(), again)
    assert (summary.enhanced, summary.unchanged) == (0, 4)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(stop: int, study: Path, tmp_path: Path) -> None:
    def interrupted(tasks: Iterator[Task], enhancer: Enhancer) -> Iterator[Outcome]:
        for index, outcome in enumerate(in_process(tasks, enhancer)):
            if index == stop:
                raise KeyboardInterrupt
            yield outcome

    out, whole = tmp_path / "out", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        run_cohort(find_scans(study), study, out, Stub(), interrupted)
    assert len(rows(out)) == stop + 1
    summary = run(study, out)
    assert (summary.unchanged, summary.enhanced) == (stop + 1, 3 - stop)
    run(study, whole)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("moved", range(4))
def test_a_run_that_dies_while_files_are_moved(moved: int, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `kill -9` would leave it, after each of the moves."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    run(study, whole, Stub(strength=0.02))
    run(study, out)

    class KilledError(BaseException):
        pass

    replace_file, count = Path.replace, iter(range(1000))

    def dying(self: Path, target: Path) -> Path:
        if target.name.startswith("sub-") and target.suffix != ".jpg" and ".cohort" not in target.parts and next(count) == moved:
            raise KilledError
        return replace_file(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        patch.setattr("dynamicdps.cohort.run.write_overview", lambda out, failures: None)
        with pytest.raises(KilledError):
            run(study, out, Stub(strength=0.02))
    # An unfinished scan has no sidecar: it comes last.
    assert not (out / f"sub-01/anat/{NAME}_T1w.json").exists()
    state = read_state(state_path(out, NAME))
    assert state is not None
    assert state.status == "publishing"
    # Even where the old settings come back: some files may be of the new ones.
    assert run(study, out).enhanced == 1
    run(study, out, Stub(strength=0.02))
    assert contents(out) == contents(whole)


def test_the_order_of_scans_is_of_no_matter(study: Path, tmp_path: Path) -> None:
    def reversed_order(tasks: Iterator[Task], enhancer: Enhancer) -> Iterator[Outcome]:
        return in_process(iter(list(tasks)[::-1]), enhancer)

    one, two = tmp_path / "one", tmp_path / "two"
    run(study, one)
    run_cohort(find_scans(study), study, two, Stub(), reversed_order)
    assert contents(one) == contents(two)


def test_a_part_of_the_study_is_added_to_the_table(study: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    run(study, whole)
    for subject in ("02", "01", "03"):
        run_cohort(find_scans(study, subjects=[subject]), study, out, Stub(), in_process)
    assert contents(out) == contents(whole)
    shutil.rmtree(out / "sub-03")
    run_cohort(find_scans(study, subjects=["01"]), study, out, Stub(), in_process)
    assert [row["participant_id"] for row in rows(out)] == ["sub-01", "sub-02", "sub-02"]


def test_contrasts_of_a_study_share_a_folder(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study, out)
    before = contents(out)
    shutil.copy(study / SCAN, study / SCAN.replace("T1w", "T2w"))
    (scan,) = find_scans(study, suffix="T2w")
    assert (scan.name, scan.stem, scan.suffix) == (f"{NAME}_T2w", NAME, "T2w")
    assert [each.name for each in find_scans(study)] == [row["scan"] for row in rows(out)]
    left_out = {each.source: each.reason for each in find_left_out(study, [scan], suffix="T2w")}
    assert scan.source not in left_out
    assert left_out[SCAN] == "its suffix is T1w; only T2w scans are enhanced; another run with --contrast T1w enhances it"
    run_cohort([scan], study, out, Stub(), in_process)
    after = contents(out)
    t1w = {place for place in before if place.startswith("sub-")}
    assert all(after[place] == before[place] for place in t1w)
    added = {place.rpartition("/")[2] for place in after if place.startswith("sub-")} - {place.rpartition("/")[2] for place in t1w}
    assert {f"{NAME}_T2w.nii.gz", f"{NAME}_T2w.json", f"{NAME}_desc-initial_T2w.nii.gz", f"{NAME}_T2w_report.html"} <= added
    (row,) = [row for row in rows(out) if row["scan"] == scan.name]
    assert (row["participant_id"], row["status"]) == ("sub-01", "done")
    assert plan([scan], out, Stub(), seed=0)[0].reason == "unchanged"


def test_a_synthesised_contrast_is_named_after_its_scan_beside_the_scan_s_own(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copy(study / SCAN, study / SCAN.replace("T1w", "T2w"))
    (own,) = find_scans(study, suffix="T2w")
    made = replace(own, to="T1w")
    assert (own.name, made.name, made.image_suffix) == (f"{NAME}_T2w", f"{NAME}FromT2w", "T1w")
    assert own.seed(0) != made.seed(0)
    run_cohort([own, made], study, out, Stub(), in_process)
    written = {place.rpartition("/")[2] for place in contents(out)}
    assert {f"{NAME}_T2w.nii.gz", f"{NAME}FromT2w_T1w.nii.gz", f"{NAME}FromT2w_T1w.json"} <= written
    about = json.loads((out / made.folder / f"{made.name}_T1w.json").read_text())
    assert (about["SynthesisedContrast"], about["ScanContrast"]) == ("T1w", "T2w")
    assert "synthesised" in about["Description"]


def test_results_of_a_run_that_was_taken_over_are_thrown_away(study: Path, tmp_path: Path) -> None:
    """A worker that outlives its client must not write over what the next run has made."""
    from dynamicdps.cohort import process_scan

    out = tmp_path / "out"
    run(study, out)
    before = contents(out)
    task = replace(plan(find_scans(study), out, Stub(strength=0.5), seed=0)[0].task, work=out / ".cohort/work-of-a-dead-run")
    assert process_scan(task, Stub(strength=0.5)).state.status == "failed"
    assert contents(out) == before

    class Late(Stub):
        def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
            # The next run takes the folder away; saving a volume makes it again.
            shutil.rmtree(task.work)
            return super().__call__(scan, folder, seed=seed)

    task.work.mkdir()
    (task.work / "alive").touch()
    assert process_scan(task, Late(strength=0.5)).state.status == "failed"
    assert contents(out) == before
    assert not task.work.exists()
    assert run(study, out).unchanged == 4


def test_scans_of_a_session_make_one_row(study: Path, tmp_path: Path) -> None:
    """They are done, done again and failed as one; what is alone is, byte for byte, as without them."""
    alone, out = tmp_path / "alone", tmp_path / "out"
    run(study, alone)
    places = [f"sub-03/anat/sub-03_acq-{plane}_T1w.nii.gz" for plane in ("axial", "coronal")]
    (study / "sub-03/anat/sub-03_T1w.nii.gz").rename(study / places[0])
    scan = load(study / places[0])
    scan.with_data(scan.data * 0.9).save(study / places[1])

    def together(**options: Any) -> Summary:
        return run_cohort(combine(find_scans(study)), study, out, Stub(**options), in_process)

    assert (together().enhanced, len(rows(out))) == (4, 4)
    name = "sub-03_rec-dynamicdps"
    row = next(row for row in rows(out) if row["scan"] == name)
    assert (row["source"], row["acquisition"], row["status"]) == (" | ".join(places), "n/a", "done")
    about = json.loads((out / f"sub-03/anat/{name}_T1w.json").read_text())
    assert about["Sources"] == [f"bids:raw:{place}" for place in places]
    assert (out / f"sub-03/anat/{name}_desc-residual2_T1w.nii.gz").is_file()
    before, others = contents(out), contents(alone)
    assert {place for place in others if place.startswith(("sub-01", "sub-02"))}
    assert all(before[place] == digest for place, digest in others.items() if place.startswith(("sub-01", "sub-02")))
    assert together().unchanged == 4
    # One of them has changed, or something that is read beside it: all are done again.
    (study / places[1].replace(".nii.gz", ".json")).write_text('{"MagneticFieldStrength": 0.3}')
    assert (together().enhanced, together().unchanged) == (1, 4)
    whole = (study / places[1]).read_bytes()
    (study / places[1]).write_bytes(whole[: len(whole) // 2])
    (failure,) = together().failures
    assert failure.reason.startswith(places[1])
    assert [row["status"] for row in rows(out)] == ["done", "done", "done", "failed"]
    (study / places[1]).unlink()
    (study / places[1].replace(".nii.gz", ".json")).unlink()
    # Alone it has its own name again.
    assert together().enhanced == 1
    assert (out / "sub-03/anat/sub-03_acq-axial_rec-dynamicdps_T1w.nii.gz").is_file()


def test_a_plan_writes_nothing(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert [each.reason for each in plan(find_scans(study), out, Stub(), seed=0)] == ["new"] * 4
    assert not out.exists()
    run(study, out)
    (study / SCAN).write_bytes(b"")
    assert [each.reason for each in plan(find_scans(study), out, Stub(), seed=0)] == ["changed", *["unchanged"] * 3]
    run(study, out)
    assert plan(find_scans(study), out, Stub(), seed=0)[0].reason == "failed before"


def test_a_folder_that_cannot_be_written(study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write into"):
        run(study, tmp_path / "file" / "out")


def test_volumes_and_intervals_are_the_enhancers(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study, out)
    assert rows(out)[0]["gm_low"] == "n/a"
    run(study, out, Stub(strength=0.1, samples=4))
    row = rows(out)[0]
    for tissue in ("csf", "gm", "wm"):
        low, middle, high = (float(row[name]) for name in (f"{tissue}_low", tissue, f"{tissue}_high"))
        assert (low, high) == pytest.approx((0.9 * middle, 1.1 * middle), abs=0.2)
    brain = load(out / f"sub-01/anat/{NAME}_T1w.nii.gz").data
    # Voxels of 1 mm: the three volumes are those of the brain.
    total = sum(float(row[tissue]) for tissue in ("csf", "gm", "wm"))
    assert total == pytest.approx(np.count_nonzero(brain), rel=0.02)
