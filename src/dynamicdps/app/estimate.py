"""How long a job will take, from those that are done."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import get_args

from dynamicdps.app.job import STAGES, Job, Quality
from dynamicdps.pipeline import StudyOptions
from dynamicdps.pipeline.checks import solver_config

LATEST = 5


def qualities_of(options: StudyOptions) -> list[Quality]:
    """Qualities that a solver has: all of dynamicdps, of its peers the default alone."""
    return list(get_args(Quality)) if options.solver == "dynamicdps" else ["default"]


def passes_of(options: StudyOptions, quality: Quality) -> int:
    """Denoiser passes a slice, to which the solver's time is proportional.

    Raises:
        InputError: the options do not fit the solver.
    """
    config = solver_config(replace(options, quality=quality))
    samples = 1 if getattr(config, "estimate", None) == "deterministic" else getattr(config, "samples", 1)
    return int(samples * (getattr(config, "steps", 1) or 1))


def expected_seconds(job: Job, quality: Quality, others: Sequence[Job], passes: Mapping[Quality, int]) -> dict[str, float]:
    """Seconds by stage: those of the latest jobs that are done, in proportion to the field of view, and in the solver to its passes.

    Args:
        job: what is to be done.
        quality: with which it would be.
        others: jobs, of which those that are done count, where there are any those of the same quality alone.
        passes: of the solver, by quality.

    Returns:
        The median over these jobs; empty where there are none, or the solver has no such quality.
    """
    done = [other for other in others if other.state == "done" and other.millilitres > 0 and other.quality in passes]
    alike = [other for other in done if other.quality == quality] or done
    latest = sorted(alike, key=lambda other: other.queued)[-LATEST:]
    if not latest or quality not in passes:
        return {}
    seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for other in latest:
        size = job.millilitres / other.millilitres
        for stage in STAGES:
            factor = 1.0 if stage == "load" else size * passes[quality] / passes[other.quality] if stage == "solve" else size
            seconds[stage].append(factor * other.seconds.get(stage, 0.0))
    return {stage: median(each) for stage, each in seconds.items()}


def seconds_left(job: Job, expected: Mapping[str, float], now: float) -> float | None:
    """Seconds until a running job is done.

    Args:
        job: with its stage.
        expected: seconds by stage, or nothing.
        now: by `time.monotonic`.

    Returns:
        Of the solver what its pace tells, of the other stages what is expected; `None` where nothing is.
    """
    if job.stage not in expected:
        return None
    solver = solver_seconds_left(job, now)
    this = max(expected[job.stage] - (now - job.stage_began), 0.0) if solver is None else solver
    return this + sum(expected[stage] for stage in STAGES[STAGES.index(job.stage) + 1 :])


def solver_seconds_left(job: Job, now: float) -> float | None:
    """Seconds that the solver of a running job still takes, by its pace; `None` in other stages and before its first part is done."""
    if job.stage != "solve" or not job.done:
        return None
    # Its parts take long: until the next one is told of, time goes on.
    pace = (job.told - job.stage_began) / job.done
    return max(pace * (job.planned - job.done) - (now - job.told), 0.0)
