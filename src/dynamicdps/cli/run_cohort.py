"""`dynamicdps cohort`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from dynamicdps.cli.commands import BidsApp, Cohort
from dynamicdps.cli.progress import progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.cohort import (
    BidsScan,
    ClusterConfig,
    ClusterLostError,
    Summary,
    combine,
    find_scans,
    job_script,
    make_enhancer,
    on_cluster,
    open_client,
    plan,
    run_cohort,
)
from dynamicdps.cohort.bids import SUFFIX, other_contrasts, suffix_of
from dynamicdps.cohort.clusters import QUEUES, require_dask
from dynamicdps.cohort.derivatives import DESCRIPTION, FILES, is_own, place_of
from dynamicdps.errors import InputError
from dynamicdps.output_names import ENHANCED
from dynamicdps.pipeline.cross_contrast import check_from, check_to

SHOWN_FAILURES = 20
# What a worker may need: image, posterior samples and the network's activations.
MEMORY_BYTES = 4 * 1024**3


def run(arguments: Cohort) -> None:
    config = cluster_config(arguments)
    if arguments.show_job_script:
        say(job_script(config).rstrip())
        return
    folder, dataset = arguments.out.resolve(), arguments.bids_dir.resolve()
    suffix = suffix_of(arguments.contrast)
    check_folder(folder, dataset, arguments.pattern, suffix)
    scans = find_scans(
        dataset,
        subjects=arguments.subject,
        sessions=arguments.session,
        acquisitions=arguments.acquisition,
        pattern=arguments.pattern,
        leave_out=folder,
        suffix=suffix,
    )
    scans = as_asked(arguments, scans)
    enhancer = make_enhancer(arguments, here=arguments.cluster == "local", keep_all=arguments.keep_all)
    if arguments.dry_run:
        planned = plan(scans, folder, enhancer, seed=arguments.seed)
        for each in planned:
            say(f"{each.reason:13} {each.task.scan.source} -> {place_of(each.task.scan, FILES[ENHANCED])}")
        say(f"{sum(each.reason != 'unchanged' for each in planned)} of {len(planned)} scans to do; nothing was written")
        tell_other_contrasts(dataset, arguments.pattern, suffix)
        return
    require_dask()
    # Whoever is refused because another run is at it leaves that run's record alone.
    with recorded(folder, "cohort", arguments) as record:
        record.facts["models"] = dict(enhancer.models)
        with open_client(config) as client, progress_bar("cohort", "scans") as bar, record.timed("cohort"):
            _announce(config, client.dashboard_link)
            with going_on_later():
                summary = run_cohort(
                    scans,
                    dataset,
                    folder,
                    enhancer,
                    partial(on_cluster, client),
                    seed=arguments.seed,
                    threads=arguments.threads,
                    progress=bar,
                )
        record.facts |= facts_of(summary)
        tell(summary, folder)
        tell_other_contrasts(dataset, arguments.pattern, suffix)
        say(f"{folder / 'cohort.tsv'}\n{folder / 'index.html'}")
        if summary.failures:
            raise SystemExit(1)


def as_asked(arguments: Cohort | BidsApp, scans: list[BidsScan]) -> list[BidsScan]:
    """The scans with the contrast of their images, those of one session together where that is asked for.

    Raises:
        InputError: all of several scans are to be kept where none are together, or a contrast is asked for that these scans lead not to.
    """
    if (to := check_to(arguments.to)) is not None:
        check_from(scans[0].suffix)
        if arguments.combine:
            raise InputError("--to is given with --combine; expected one of them: several scans make one image in their own contrast")
        scans = [replace(scan, to=to) for scan in scans]
    if arguments.keep_all and not arguments.combine:
        raise InputError("--keep-all is given without --combine; expected both: it is for several scans of one head; leave it out")
    if not arguments.combine:
        return scans
    together = combine(scans)
    say(f"{len(scans)} scans make {len(together)} when those of a session are combined")
    return together


def tell_other_contrasts(dataset: Path, pattern: str | None, suffix: str) -> None:
    """Say which scans of a BIDS dataset have another contrast than those that are enhanced."""
    others = {} if pattern else other_contrasts(dataset, suffix)
    if others:
        counted = " and ".join(f"{count} {other}" for other, count in others.items())
        say(f"the dataset also has {counted} scans, which are not enhanced; --contrast {' or '.join(others)} enhances those")


@contextmanager
def going_on_later() -> Iterator[None]:
    """Say it where the scheduler was lost, and that what was finished is kept.

    Raises:
        SystemExit: it was (1).
    """
    try:
        yield
    except ClusterLostError as error:
        sys.stderr.write(f"dynamicdps: {error}; what was finished is kept; run the same command again to go on\n")
        raise SystemExit(1) from None


def facts_of(summary: Summary) -> dict[str, Any]:
    """What run.json says of it."""
    failures = {state.name: state.reason for state in summary.failures}
    return {"scans": summary.scans, "unchanged": summary.unchanged, "enhanced": summary.enhanced, "failures": failures}


def check_folder(folder: Path, dataset: Path, pattern: str | None = None, suffix: str = SUFFIX) -> None:
    """Refuse a folder for the derivatives in which a dataset would be written over, or whose scans would be taken for derivatives.

    Args:
        folder: of the derivatives.
        dataset: the raw data.
        pattern: as `find_scans`.
        suffix: likewise.

    Raises:
        InputError: the folder is or holds the dataset, holds some of its scans, or holds another dataset.
    """
    advice = f"expected a folder of its own; choose another, such as {dataset / 'derivatives' / 'dynamicdps'}"
    if dataset.is_relative_to(folder):
        raise InputError(f"{folder} {'is' if folder == dataset else 'holds'} the dataset, whose files would be written over; {advice}")
    if folder.is_relative_to(dataset) and folder.exists() and not is_own(folder):
        inside = [scan.source for scan in find_scans(dataset, pattern=pattern, suffix=suffix) if scan.paths[0].is_relative_to(folder)]
        if inside:
            raise InputError(f"{folder} holds scans of the dataset such as {inside[0]}, which would be left out; {advice}")
    if any((folder / name).exists() for name in DESCRIPTION) and not is_own(folder):
        raise InputError(f"{folder} holds something else than results of this command, which would be written over; {advice}")


def cluster_config(arguments: Cohort) -> ClusterConfig:
    """Workers, and the GPUs that local ones take in turn."""
    gpus = tuple(range(torch.cuda.device_count())) if arguments.cluster == "local" and arguments.device.startswith("cuda") else ()
    workers = arguments.workers
    if workers is None:
        workers = len(gpus) or (default_workers(arguments.threads) if arguments.cluster == "local" else 1)
    return ClusterConfig(
        kind=arguments.cluster,
        workers=workers,
        threads=arguments.threads,
        gpus=gpus,
        memory=arguments.memory,
        walltime=arguments.walltime,
        queue=arguments.queue,
        directives=arguments.job_directive,
        prologue=arguments.job_prologue,
    )


def default_workers(threads: int) -> int:
    """As many as cores and memory of this machine allow, 4 GB for each."""
    cores, memory = cores_and_memory()
    return max(1, min(cores // max(1, threads), memory // MEMORY_BYTES))


def cores_and_memory() -> tuple[int, int]:
    """Cores that this process may use, and bytes of this machine's memory; one core and worker where they are not known."""
    try:
        return len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not everywhere known
        return 1, MEMORY_BYTES


def _announce(config: ClusterConfig, dashboard: str | None) -> None:
    if dashboard and find_spec("bokeh") is not None:
        say(f"dashboard: {dashboard}")
    if config.kind == "local":
        say(f"{config.workers} workers of {config.threads} threads on this machine")
    elif config.kind in QUEUES:
        say(f"{config.workers} jobs of {config.threads} cores and {config.memory} each ({config.kind})")
    else:
        say(f"scheduler: {config.kind}")


def tell(summary: Summary, folder: Path) -> None:
    """Say what a run on a folder came to, failures with their reasons."""
    say(f"{summary.scans} scans: {summary.enhanced} enhanced, {summary.unchanged} unchanged, {len(summary.failures)} failed")
    for state in summary.failures[:SHOWN_FAILURES]:
        say(f"failed: {state.source}: {state.reason}")
    if len(summary.failures) > SHOWN_FAILURES:
        say(f"{len(summary.failures) - SHOWN_FAILURES} more failures are in {folder / 'cohort.tsv'}")
