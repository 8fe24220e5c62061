"""`dynamicdps-bids`: a study as a BIDS App."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dynamicdps.cli.commands import BidsApp
from dynamicdps.cli.progress import progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.run_cohort import MEMORY_BYTES, as_asked, check_folder, cores_and_memory, facts_of, going_on_later, tell
from dynamicdps.cohort import (
    BidsScan,
    ClusterConfig,
    LeftOut,
    find_left_out,
    find_scans,
    in_process,
    make_enhancer,
    on_cluster,
    open_client,
    run_cohort,
    write_overview,
)
from dynamicdps.cohort.bids import BETWEEN, suffix_of
from dynamicdps.cohort.derivatives import is_own
from dynamicdps.cohort.lock import locked
from dynamicdps.cohort.run import Engine
from dynamicdps.cohort.state import HIDDEN, ScanState, read_states
from dynamicdps.cohort.table import write_left_out
from dynamicdps.errors import InputError
from dynamicdps.json_file import read_json

DESCRIPTION = "dataset_description.json"
LOGS = "logs"
# What a worker may need: image, posterior samples and the network's activations.
WORKER_MB = 4000
SHOWN = 20


def run(arguments: BidsApp) -> None:
    folder, dataset = arguments.out.resolve(), arguments.bids_dir.resolve()
    suffix = suffix_of(arguments.contrast)
    check_folder(folder, dataset, suffix=suffix)
    check_dataset(dataset, arguments.participant_label, validate=not arguments.skip_bids_validation)
    subjects, sessions = arguments.participant_label, arguments.session_label
    scans = find_scans(dataset, subjects=subjects, sessions=sessions, leave_out=folder, suffix=suffix)
    left_out = find_left_out(dataset, scans, subjects=subjects, sessions=sessions, suffix=suffix)
    scans = as_asked(arguments, scans)
    if arguments.level == "participant":
        enhance_participants(arguments, scans, left_out)
    else:
        report_group(arguments, scans, left_out)


def check_dataset(dataset: Path, labels: Sequence[str] = (), *, validate: bool = True) -> None:
    """Refuse what says of itself that it is no BIDS dataset, and participants that it does not have.

    Args:
        dataset: its folder.
        labels: of participants, with or without ``sub-``.
        validate: whether to look at what it says of itself; this is not the whole of what bids-validator looks at.

    Raises:
        InputError: there is no such folder or participant, or the description is missing or lacks what BIDS requires.
    """
    if not dataset.is_dir():
        raise InputError(f"{dataset} is no folder; expected a BIDS dataset; check the path")
    if validate:
        path = dataset / DESCRIPTION
        try:
            values = read_json(path)
        except (OSError, ValueError):
            values = None
        lacking = [name for name in ("Name", "BIDSVersion") if not isinstance(values, dict) or not isinstance(values.get(name), str)]
        if lacking:
            raise InputError(f"{path} says no {' and no '.join(lacking)}; expected what BIDS requires; mend it, or --skip-bids-validation")
    for label in labels:
        name = f"sub-{label.removeprefix('sub-')}"
        if not (dataset / name).is_dir():
            raise InputError(f"{dataset} has no participant {name}; expected one of its folders sub-*; change --participant-label")


def enhance_participants(arguments: BidsApp, scans: Sequence[BidsScan], left_out: Sequence[LeftOut]) -> None:
    """Enhance the scans, beside other such runs on other participants.

    Raises:
        InputError: what no scan can be enhanced with, or another run is at it.
        SystemExit: some scans failed (1).
    """
    folder, dataset = arguments.out.resolve(), arguments.bids_dir.resolve()
    workers, threads, memory = shares(arguments, len(scans))
    enhancer = make_enhancer(arguments, here=True, memory=memory, keep_all=arguments.keep_all)
    subjects = {str(scan.label("sub")) for scan in scans}
    name = f"sub-{subjects.pop()}" if len(subjects) == 1 else "participants"
    with recorded(folder / LOGS, "bids participant", arguments, f"{name}.run.json") as record:
        record.facts["models"] = dict(enhancer.models)
        with engine_of(workers, threads) as engine, progress_bar("participants", "scans") as bar, going_on_later():
            say(f"{workers} workers of {threads} threads on this machine")
            summary = run_cohort(scans, dataset, folder, enhancer, engine, seed=arguments.seed, threads=threads, progress=bar, beside=True)
        record.facts |= facts_of(summary) | {"not_enhanced": {each.source: each.reason for each in left_out}}
        tell(summary, folder)
        tell_left_out(left_out)
        if summary.failures:
            raise SystemExit(1)


def report_group(arguments: BidsApp, scans: Sequence[BidsScan], left_out: Sequence[LeftOut]) -> None:
    """Write the table, the page and the list of what is not enhanced.

    Raises:
        InputError: nothing was enhanced yet, or a run is at it.
    """
    folder = arguments.out.resolve()
    if not is_own(folder):
        raise InputError(f"{folder} holds no results; expected those of the level participant; run that first")
    with recorded(folder, "bids group", arguments) as record, locked(folder / HIDDEN):
        states = {state.name: state for state in read_states(folder)}
        reasons = {scan: reason for scan in scans if (reason := why_missing(states.get(scan.name), folder))}
        missing = [LeftOut(source, reason) for scan, reason in reasons.items() for source in scan.sources]
        failed = {source for state in states.values() if state.status == "failed" for source in state.source.split(BETWEEN)}
        listed = sorted([*missing, *left_out], key=lambda each: each.source)
        # Failures have rows of their own.
        write_overview(folder, left_out=[each for each in listed if each.source not in failed])
        write_left_out(folder, listed)
        record.facts |= {"scans": len(scans), "enhanced": len(scans) - len(reasons), "not_enhanced": len(listed)}
        say(f"{len(scans)} scans: {len(scans) - len(reasons)} enhanced")
        tell_left_out(listed)
        say("\n".join(str(folder / name) for name in ("cohort.tsv", "not_enhanced.tsv", "index.html")))


def why_missing(state: ScanState | None, folder: Path) -> str:
    """Why a scan has no results; empty where it has."""
    if state is not None and state.complete(folder):
        return ""
    if state is not None and state.status == "failed":
        return state.reason
    return "the level participant has not been run for it, or was stopped"


def tell_left_out(left_out: Sequence[LeftOut]) -> None:
    """Say what is not enhanced."""
    for each in left_out[:SHOWN]:
        say(f"not enhanced: {each.source}: {each.reason}")
    if len(left_out) > SHOWN:
        say(f"{len(left_out) - SHOWN} more are not enhanced")


def shares(arguments: BidsApp, scans: int) -> tuple[int, int, float | None]:
    """Scans that are done at a time, threads of each, and the memory of each in GB where it is bounded.

    Raises:
        InputError: there is no core or no memory to share.
    """
    for name, given in (("--n-cpus", arguments.n_cpus), ("--omp-nthreads", arguments.omp_nthreads), ("--mem-mb", arguments.mem_mb)):
        if given is not None and given < 1:
            raise InputError(f"{name} is {given}; expected at least 1")
    here, memory = cores_and_memory()
    cores, threads = arguments.n_cpus or here, arguments.omp_nthreads
    fit = memory // MEMORY_BYTES if arguments.mem_mb is None else arguments.mem_mb // WORKER_MB
    # A GPU is one worker's.
    most = 1 if arguments.device.startswith("cuda") else scans
    workers = max(1, min(cores // (threads or 1), fit, most))
    bound = None if arguments.mem_mb is None else arguments.mem_mb / 1000 / workers
    return workers, threads or max(1, cores // workers), bound


@contextmanager
def engine_of(workers: int, threads: int) -> Iterator[Engine]:
    """Where the work is done: this process, which needs no Dask, or several."""
    if workers == 1:
        yield in_process
        return
    with open_client(ClusterConfig(workers=workers, threads=threads)) as client:
        yield partial(on_cluster, client)
