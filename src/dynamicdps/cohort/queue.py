"""Scans through a cluster, a bounded number at a time."""

import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from dynamicdps.cohort.clusters import worker_count
from dynamicdps.cohort.work import Enhancer, Outcome, Task, attempts, fail, process_scan, sentence

if TYPE_CHECKING:
    from distributed import Client, Future

# A scan whose worker died so often is what kills it.
MAX_DEATHS = 3
# A scan that only waited at workers that died; beyond this the cluster is at fault.
MAX_SUBMISSIONS = 20
# Scans for each worker that the scheduler knows of: one is worked on, one waits, so that no worker does.
AHEAD = 2
ASK_EVERY_SECONDS = 1.0


class ClusterLostError(RuntimeError):
    """The scheduler is gone; what was finished is kept."""


def in_process(tasks: Iterator[Task], enhancer: Enhancer) -> Iterator[Outcome]:
    """One scan after the other in this process."""
    for task in tasks:
        yield process_scan(task, enhancer)


def on_cluster(
    client: "Client", tasks: Iterator[Task], enhancer: Enhancer, *, work: Callable[[Task, Enhancer], Outcome] = process_scan
) -> Iterator[Outcome]:
    """Outcomes as scans are finished.

    The scheduler never holds more than two scans a worker, however many there are to do.

    Args:
        client: of the cluster.
        tasks: in the order of submission.
        enhancer: of the scans.
        work: what a worker does with a scan.

    Raises:
        ClusterLostError: the scheduler has died.
    """
    from distributed import as_completed

    waiting: dict[str, tuple[Task, int]] = {}
    run = uuid.uuid4().hex[:8]
    finished = as_completed()
    workers, asked = 0, float("-inf")

    def submit(task: Task, number: int) -> None:
        # A key of its own: Dask must neither merge two scans nor take an earlier run's result.
        future = client.submit(work, task, enhancer, key=f"{task.scan.name}-{run}-{number}", pure=False)
        waiting[future.key] = task, number
        finished.add(future)

    def fill() -> None:
        nonlocal workers, asked
        # Workers come and go over minutes; asking for each scan would take longer than giving it away.
        if time.monotonic() > asked + ASK_EVERY_SECONDS:
            workers, asked = worker_count(client), time.monotonic()
        for task in islice(tasks, max(0, AHEAD * max(1, workers) - len(waiting))):
            submit(task, 1)

    try:
        fill()
        while waiting:
            future = next(finished)
            task, number = waiting.pop(future.key)
            outcome = _outcome(future, task, number)
            # Released at once: the scheduler forgets the scan.
            future.release()
            del future
            if outcome is None:
                submit(task, number + 1)
                continue
            fill()
            yield outcome
    except OSError as error:
        raise ClusterLostError(str(error)) from error
    finally:
        finished.clear()


def _outcome(future: "Future", task: Task, number: int) -> Outcome | None:
    """What a future has come to; `None` where its scan is to be submitted again."""
    from distributed.scheduler import KilledWorker

    if future.status == "finished":
        outcome: Outcome = future.result()
        return outcome
    if future.status != "error":
        raise ClusterLostError(f"the scheduler has lost {task.scan.name} ({future.status})")
    error = future.exception()
    if isinstance(error, KilledWorker):
        deaths = attempts(task)
        if deaths < MAX_DEATHS and number < MAX_SUBMISSIONS:
            return None
        return Outcome(fail(task, f"its worker died {deaths} times; expected enough memory for each worker; use fewer and run again"))
    return Outcome(fail(task, sentence(error if isinstance(error, Exception) else RuntimeError(str(error)))))
