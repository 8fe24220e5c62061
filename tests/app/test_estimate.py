"""How long a job takes, by those that are done."""

from pathlib import Path

import pytest

from dynamicdps.app.estimate import expected_seconds, passes_of, qualities_of, seconds_left, solver_seconds_left
from dynamicdps.app.job import STAGES, Job, JobScan, Recognised
from dynamicdps.pipeline import StudyOptions

PASSES = {"fast": 5, "default": 10, "best": 64}
SECONDS = dict(zip(STAGES, (5.0, 3.0, 0.0, 20.0, 40.0, 2.0, 4.0), strict=True))


def job(slices: int = 20, **values: object) -> Job:
    found = Recognised("NIfTI", (100, 100, slices), (1.0, 1.0, 5.0), "RAS", None, True, False, {})
    return Job(Path("job"), "drop", [JobScan("a.nii", "scans/1/a.nii", found)], **values)  # type: ignore[arg-type]


def done(slices: int = 20, **values: object) -> Job:
    return job(slices, **{"state": "done", "seconds": SECONDS} | values)


def test_nothing_is_expected_before_the_first_job() -> None:
    for others in ([], [job()], [done(state="failed")]):
        assert expected_seconds(job(), "default", others, PASSES) == {}  # type: ignore[arg-type]
    assert expected_seconds(job(), "best", [done()], {"default": 10}) == {}


def test_the_same_scan_takes_as_long_again() -> None:
    assert expected_seconds(job(), "default", [done()], PASSES) == SECONDS  # type: ignore[arg-type]


def test_time_grows_with_the_field_of_view_and_with_passes() -> None:
    found = expected_seconds(job(40), "best", [done(20)], PASSES)  # type: ignore[arg-type]
    assert found == {stage: 2 * seconds for stage, seconds in SECONDS.items()} | {"load": 5.0, "solve": 2 * 40 * 6.4}


def test_jobs_of_the_same_quality_count_alone() -> None:
    others = [done(), done(quality="fast", seconds=dict.fromkeys(STAGES, 1.0))]
    assert expected_seconds(job(), "fast", others, PASSES) == dict.fromkeys(STAGES, 1.0)  # type: ignore[arg-type]


def test_the_latest_jobs_count() -> None:
    others = [done(queued=float(i), seconds=dict.fromkeys(STAGES, float(i))) for i in range(20)]
    assert expected_seconds(job(), "default", others, PASSES)["open"] == 17.0  # type: ignore[arg-type]


def test_what_is_left_of_a_running_job() -> None:
    running = job(stage="initial", stage_began=100.0)
    assert seconds_left(running, SECONDS, 105.0) == 15 + 40 + 2 + 4
    assert seconds_left(running, SECONDS, 500.0) == 40 + 2 + 4
    assert seconds_left(running, {}, 105.0) is None
    solving = job(stage="solve", stage_began=100.0, told=106.0, done=2, planned=10)
    assert seconds_left(solving, {}, 106.0) is None
    assert seconds_left(solving, SECONDS, 107.0) == 23 + 2 + 4
    assert [solver_seconds_left(solving, now) for now in (106.0, 107.0, 500.0)] == [24, 23, 0]
    assert solver_seconds_left(running, 105.0) is None
    assert seconds_left(job(), SECONDS, 0.0) is None


def test_passes_are_those_of_the_solver() -> None:
    assert {quality: passes_of(StudyOptions(), quality) for quality in qualities_of(StudyOptions())} == PASSES
    other = StudyOptions(solver="dds")
    assert qualities_of(other) == ["default"]
    assert passes_of(other, "default") > 1


@pytest.mark.parametrize("values", [{}, {"problem": "x", "state": "failed"}, {"seconds": SECONDS, "state": "done", "attempts": 2}])
def test_a_job_is_read_as_it_was_saved(values: dict[str, object], tmp_path: Path) -> None:
    made = job(**values)  # type: ignore[arg-type]
    made.folder = tmp_path
    made.save()
    assert Job.read(tmp_path) == made
