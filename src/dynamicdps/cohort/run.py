"""A study: find what is to be done, do it, write the table and the page."""

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dynamicdps.cohort.bids import BidsScan, LeftOut
from dynamicdps.cohort.derivatives import write_description
from dynamicdps.cohort.lock import locked, locked_subjects
from dynamicdps.cohort.state import HIDDEN, ScanState, read_state, read_states, state_path
from dynamicdps.cohort.table import write_table
from dynamicdps.cohort.work import ALIVE, Enhancer, Outcome, Task, parameters_hash, unchanged
from dynamicdps.errors import InputError
from dynamicdps.output_names import REPORT
from dynamicdps.report.index import write_index

WORK = "work-"
# Of a run on some subjects beside others.
BESIDE = f"{WORK}beside-"
Engine = Callable[[Iterator[Task], Enhancer], Iterator[Outcome]]
Progress = Callable[[int, int, str], None]


@dataclass
class Summary:
    """What a run came to.

    Attributes:
        scans: that were asked for.
        unchanged: of them, finished before.
        enhanced: now.
        failures: states of those that failed.
    """

    scans: int
    unchanged: int = 0
    enhanced: int = 0
    failures: list[ScanState] = field(default_factory=list)

    def count(self, outcome: Outcome, reason: str) -> None:
        """Add what became of a scan that was to be done for a reason of `Planned`."""
        if outcome.state.status == "failed":
            self.failures.append(outcome.state)
        elif outcome.again or reason != "changed":
            # Not done again, though it was new: a worker had finished it in this run and died before it could say so.
            self.enhanced += 1
        else:
            self.unchanged += 1


@dataclass(frozen=True)
class Planned:
    """A scan and why it is to be done, or that it is not."""

    task: Task
    reason: Literal["new", "changed", "failed before", "unchanged"]


def plan(
    scans: Sequence[BidsScan], out: Path, enhancer: Enhancer, *, seed: int, work: Path | None = None, threads: int = 1
) -> list[Planned]:
    """What is to be done; nothing is written and no scan is read.

    A scan that was only touched counts as changed here; its worker sees by its contents that it is not.

    Args:
        scans: of `find_scans`.
        out: folder of the derivatives.
        enhancer: that will be used.
        seed: base of every scan's own.
        work: folder of unfinished work.
        threads: of torch, for each scan.
    """
    parameters = parameters_hash(enhancer, seed)
    planned = []
    for scan in scans:
        task = Task(scan, out, work or out / HIDDEN / WORK, parameters, scan.seed(seed), threads)
        planned.append(Planned(task, _reason(task)))
    return planned


def _reason(task: Task) -> Literal["new", "changed", "failed before", "unchanged"]:
    if unchanged(task) is not None:
        return "unchanged"
    state = read_state(state_path(task.out, task.scan.name))
    if state is None or state.status == "publishing":
        return "new"
    # What is kept of these settings need only be taken up again.
    again = state.status == "failed" and state.kept.get("parameters") != task.parameters
    return "failed before" if again else "changed"


def run_cohort(
    scans: Sequence[BidsScan],
    dataset: Path,
    out: Path,
    enhancer: Enhancer,
    engine: Engine,
    *,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
    beside: bool = False,
) -> Summary:
    """Enhance the scans that are missing or changed.

    Whatever ends the run, what was finished is kept, and a scan's files are all there or none. The derivatives, the table and the page do
    not depend on the number of workers or on the order in which scans are finished; timing.tsv and the hidden folder do.

    Args:
        scans: of `find_scans`.
        dataset: their folder.
        out: folder of the derivatives.
        enhancer: see `Enhancer`.
        engine: where the work is done, `in_process` or `on_cluster` with a client.
        seed: base of every scan's own.
        threads: of torch, for each scan.
        progress: called with scans that are finished, scans in all and a note.
        beside: whether other runs may work on other subjects in `out` meanwhile; `write_overview` then makes table and page when all are
            done.

    Raises:
        InputError: another run is working in `out`, or on one of the subjects, or it cannot be written.
        ClusterLostError: the scheduler has died.
    """
    hidden = out / HIDDEN
    with locked_subjects(hidden, (str(scan.label("sub")) for scan in scans)) if beside else locked(hidden):
        try:
            # Of runs that were killed; beside others that work only what was left of these scans, which nobody else has now.
            for left in [left for scan in scans for left in hidden.glob(f"{BESIDE}*/{scan.name}.*")] if beside else hidden.glob(f"{WORK}*"):
                _take_away(left)
            work = hidden / f"{BESIDE if beside else WORK}{uuid.uuid4().hex[:8]}"
            work.mkdir()
            (work / ALIVE).touch()
            (hidden / "state").mkdir(exist_ok=True)
            write_description(out, dataset)
        except OSError as error:
            raise InputError(f"cannot write into {out} ({error.strerror}); expected a folder of yours with room; choose another") from error
        planned = plan(scans, out, enhancer, seed=seed, work=work, threads=threads)
        to_do = [each.task for each in planned if each.reason != "unchanged"]
        reasons = {each.task.scan.name: each.reason for each in planned}
        summary = Summary(len(scans), unchanged=len(scans) - len(to_do))
        report = progress or (lambda done, total, note: None)
        done = summary.unchanged
        try:
            report(done, len(scans), "")
            for outcome in engine(iter(to_do), enhancer):
                summary.count(outcome, reasons[outcome.state.name])
                done += 1
                report(done, len(scans), f"{len(summary.failures)} failed" if summary.failures else "")
        finally:
            _take_away(work)
            if not beside:
                write_overview(out, summary.failures)
        summary.failures.sort(key=lambda state: state.name)
        return summary


def _take_away(work: Path) -> None:
    """Delete unfinished work under another name, so that a worker that still is at it finds nowhere to put its results."""
    gone = work.with_name(f"{WORK}gone-{uuid.uuid4().hex[:8]}")
    try:
        work.rename(gone)
    except OSError:  # in use, where the system does not rename what is
        gone = work
    shutil.rmtree(gone, ignore_errors=True)


def write_overview(out: Path, failures: Sequence[ScanState] = (), left_out: Sequence[LeftOut] = ()) -> None:
    """Write the table and the page from what is known of every scan in the folder.

    Args:
        out: folder of the derivatives.
        failures: that could not be written down, for want of space.
        left_out: images of the dataset that the page lists below the scans.
    """
    states = {state.name: state for state in read_states(out) if state.status == "failed" or state.complete(out)}
    states |= {state.name: state for state in failures}
    known = list(states.values())
    rows = write_table(out, known)
    # Of a failure nothing is shown: what it has kept is of other settings than its row.
    reports = {state.name: place for state in known if state.status == "done" for place in state.outputs if place.endswith(f"_{REPORT}")}
    rows += [{"scan": each.source, "status": "left out", "reason": each.reason} for each in left_out]
    write_index(out, rows, reports, out / HIDDEN / "thumbnails")
