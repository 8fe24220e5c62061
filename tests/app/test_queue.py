"""Jobs run one after the other, end when they are told to, and go on after a restart."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dynamicdps as dd
from dynamicdps.app.job import LOG, STAGES, STATE, Job
from dynamicdps.app.queue import MOST_ATTEMPTS, JobQueue
from dynamicdps.operators import preset
from dynamicdps.output_names import ENHANCED, REPORT, RUN
from dynamicdps.pipeline import StudyOptions
from tests.properties import input_error

SECONDS = 120
Dropper = Callable[..., list[Job]]


def until(job: Job, *states: str) -> None:
    """Wait until a job is in one of some states."""
    end = time.monotonic() + SECONDS
    while job.state not in states:
        assert time.monotonic() < end, f"the job is still {job.state}"
        time.sleep(0.02)


def kept(job: Job) -> dict[str, Any]:
    """What is on disk of a job."""
    return dict(json.loads((job.folder / STATE).read_text()))


@pytest.mark.slow
def test_jobs_run_one_after_the_other_and_give_what_enhance_gives(
    queue: JobQueue, drop: Dropper, poor: Path, options: StudyOptions, tmp_path: Path
) -> None:
    seen: list[tuple[str, ...]] = []
    (first,) = drop(poor, poor.with_name("poor.operator.json"))
    (second,) = drop(poor, poor.with_name("poor.operator.json"))
    queue.start()
    queue.enqueue(first, "default")
    queue.enqueue(second, "fast")
    while second.state != "done":
        seen.append((first.state, second.state))
        assert second.state != "failed", second.problem
        time.sleep(0.01)
    assert ("running", "waiting") in seen
    assert ("done", "running") in seen
    assert ("running", "running") not in seen
    assert set(first.seconds) == set(STAGES)
    for job, quality in ((first, "default"), (second, "fast")):
        wanted = dd.enhance(
            poor, prior=options.prior, conditional=options.conditional, quality=quality, steps=1, mask="none", settings=options.settings
        )
        wanted.image.save(tmp_path / "wanted.nii.gz")
        assert (dd.load(job.result / ENHANCED).data == dd.load(tmp_path / "wanted.nii.gz").data).all()
        assert (job.result / REPORT).is_file()
        assert json.loads((job.result / RUN).read_text())["command"] == "enhance"
        assert kept(job)["state"] == "done"
    # Of a scan like that an estimate is known now.
    assert sum(queue.expected(first, "default").values()) == pytest.approx(sum(first.seconds.values()))
    # Once more, and what there was is gone at once.
    queue.enqueue(first, "fast")
    until(first, "running", "done")
    until(first, "done")


def test_cancelling_leaves_nothing_half_written(queue: JobQueue, drop: Dropper, poor: Path) -> None:
    (running,), (waiting,) = drop(poor), drop(poor)
    queue.start()
    queue.enqueue(running, "default")
    queue.enqueue(waiting, "default")
    until(running, "running")
    queue.cancel(waiting)
    assert waiting.state == kept(waiting)["state"] == "cancelled"
    running.result.mkdir()
    (running.result / "partial").touch()
    queue.cancel(running)
    until(running, "cancelled")
    assert kept(running)["state"] == "cancelled"
    assert not running.result.exists()
    assert not running.problem
    with input_error("the job is cancelled"):
        queue.cancel(running)
    queue.remove(running)
    assert not running.folder.exists()
    assert list(queue.jobs) == [waiting.id]


@pytest.mark.slow
def test_a_scan_that_cannot_be_enhanced_says_why_and_the_next_one_runs(queue: JobQueue, drop: Dropper, poor: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "sub-1_T2w.nii.gz"
    wrong.write_bytes(poor.read_bytes())
    (refused,), (job,) = drop(wrong), drop(poor, poor.with_name("poor.operator.json"))
    queue.start()
    queue.enqueue(refused, "default")
    queue.enqueue(job, "default")
    until(refused, "failed")
    assert "T2w" in refused.problem
    assert "trained on" in refused.problem
    assert str(queue.folder) not in refused.problem
    assert not refused.result.exists()
    until(job, "done", "failed")
    assert job.state == "done", job.problem


@pytest.mark.slow
def test_scans_of_two_heads_are_refused_in_words_of_the_page(queue: JobQueue, drop: Dropper, poor: Path, tmp_path: Path) -> None:
    scan, files = dd.load(poor), []
    noise = scan.with_data(np.random.default_rng(0).random(scan.shape, np.float32))
    for name, each in (("one", scan), ("two", noise)):
        preset("iqt-out").save(tmp_path / f"{name}.operator.json")
        files += [each.save(tmp_path / f"{name}.nii.gz"), tmp_path / f"{name}.operator.json"]
    job = queue.together(drop(*files))
    queue.start()
    queue.enqueue(job, "default")
    until(job, "failed")
    assert "does not show what the other scans show" in job.problem
    assert job.problem.endswith("; enhance it alone")


def test_a_fault_of_the_program_names_the_log(queue: JobQueue, drop: Dropper, poor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = drop(poor)
    monkeypatch.setattr(queue, "_what", lambda job: {"scans": [3]})
    queue.start()
    queue.enqueue(job, "default")
    until(job, "failed")
    assert f"see {job.folder / LOG}" in job.problem
    assert "Error" in job.problem


def test_a_restart_keeps_what_was_done_and_begins_again_what_was_broken_off(
    options: StudyOptions, queue: JobQueue, drop: Dropper, poor: Path
) -> None:
    states = ("done", "running", "waiting", "recognised", "failed", "cancelled")
    made = {state: drop(poor)[0] for state in states}
    for state, job in made.items():
        job.state, job.attempts = state, 1
        job.result.mkdir()
        job.save()
    (queue.folder / "no-job").mkdir()
    (queue.folder / "no-job" / STATE).write_text('{"drop": 1}')
    # Of a drop or a removal that was broken off; another folder is none of the program's.
    half, other = queue.folder / "20250101-000000-0123abcd-00000", queue.folder / "mine"
    for folder in (half, other):
        (folder / "scans").mkdir(parents=True)
    again = JobQueue(queue.folder, options)
    assert (half.exists(), other.exists()) == (False, True)
    assert again.unreadable == [queue.folder / "no-job"]
    after = {state: again.jobs[job.id] for state, job in made.items()}
    assert {state: job.state for state, job in after.items()} == {state: state for state in states} | {"running": "waiting"}
    assert after["running"].scans == made["running"].scans
    assert not after["running"].result.exists()
    assert after["done"].result.exists()


@pytest.mark.slow
def test_what_waited_or_was_broken_off_is_done_after_a_restart(options: StudyOptions, queue: JobQueue, drop: Dropper, poor: Path) -> None:
    broken, waiting = (drop(poor, poor.with_name("poor.operator.json"))[0] for _ in range(2))
    broken.state, broken.attempts = "running", 1
    waiting.state, waiting.queued = "waiting", 1.0
    for job in (broken, waiting):
        job.save()
    again = JobQueue(queue.folder, options)
    again.start()
    try:
        for job in (broken, waiting):
            until(again.jobs[job.id], "done", "failed")
            assert again.jobs[job.id].state == "done", again.jobs[job.id].problem
    finally:
        again.stop()


def test_a_job_that_ends_the_program_each_time_is_given_up(options: StudyOptions, queue: JobQueue, drop: Dropper, poor: Path) -> None:
    (job,) = drop(poor)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        job.state, job.attempts = "running", attempt
        job.save()
        job = JobQueue(queue.folder, options).jobs[job.id]
        assert job.state == ("waiting" if attempt < MOST_ATTEMPTS else "interrupted")
    assert f"ended {MOST_ATTEMPTS} times" in job.problem
    again = JobQueue(queue.folder, options)
    assert again.jobs[job.id].state == "interrupted"
    again.enqueue(again.jobs[job.id], "default")
    assert (again.jobs[job.id].state, again.jobs[job.id].attempts) == ("waiting", 0)


def test_stopping_keeps_the_job_for_the_next_start(options: StudyOptions, queue: JobQueue, drop: Dropper, poor: Path) -> None:
    (job,) = drop(poor)
    queue.start()
    queue.enqueue(job, "default")
    until(job, "running")
    queue.stop()
    assert kept(job)["state"] == "running"
    assert JobQueue(queue.folder, options).jobs[job.id].state == "waiting"


def test_what_may_not_be_done_to_a_job(queue: JobQueue, drop: Dropper, poor: Path) -> None:
    (job,) = drop(poor)
    queue.enqueue(job, "default")
    for act in (lambda: queue.enqueue(job, "default"), lambda: queue.remove(job)):
        with input_error("the job is waiting"):
            act()
    with input_error("before they are started"):
        queue.together([job, job])


def test_a_worker_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Also where that was killed and could tell it nothing."""
    what = {"scans": [str(tmp_path / "missing.nii")], "options": {}, "out": str(tmp_path / "out")}
    command = [sys.executable, "-m", "dynamicdps.app.worker", json.dumps(what)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert json.loads(worker.stdout.readline())["stage"] == "load"
    worker.stdin.close()
    began = time.monotonic()
    assert worker.wait(timeout=SECONDS) == 1
    assert time.monotonic() - began < SECONDS
    worker.stdout.close()
    assert os.listdir(tmp_path) == []
