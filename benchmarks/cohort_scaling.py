"""What the cohort's engine costs: throughput by workers, the scheduler's memory, and the time to plan and to give away scans.

    python benchmarks/cohort_scaling.py [--scans 120] [--seconds 0.5] [--queued 10000] [--planned 100000] [--workers 1 2]

Throughput: synthetic scans through the whole of a cohort (reading, hashing, tissue volumes, derivatives, table and page), with an
enhancer that burns a fixed CPU time. Memory and submission: scans whose work is nothing, through the same queue. Planning: a dataset
of so many empty files, found and planned as new. Prints a table in Markdown. Measure on a machine that does nothing else.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import psutil

from dynamicdps.cohort import (
    BidsScan,
    ClusterConfig,
    Enhancer,
    Outcome,
    Task,
    find_scans,
    on_cluster,
    open_client,
    plan,
    run_cohort,
)
from dynamicdps.cohort.state import ScanState
from dynamicdps.volumes import Volume, load


@dataclass(frozen=True)
class Burn:
    """Copies the scan after a fixed CPU time."""

    seconds: float

    def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        load(scan.paths[0]).save(folder / "enhanced.nii.gz")
        return {"data_misfit": 1.0, "start_sigma": 0.1}

    def parameters(self) -> Mapping[str, Any]:
        return {"seconds": self.seconds}


def no_work(task: Task, enhancer: Enhancer) -> Outcome:
    return Outcome(ScanState(task.scan.name, task.scan.source, "done"))


def tasks(count: int, out: Path) -> Iterator[Task]:
    for number in range(count):
        yield Task(BidsScan((out / "none.nii",), (f"{number}.nii",), (("sub", str(number)),)), out, out, "", number)


def throughput(folder: Path, scans: int, seconds: float, workers: int) -> float:
    """Scans a minute, once the workers have loaded what they need."""
    study = folder / "study"
    x, y, z = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in (32, 36, 16)), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    for number in range(scans):
        data = np.select([radius < 0.5, radius < 0.8, radius < 1], [0.9, 0.6, 0.2], 0.0) * (1 + number / 1000)
        path = study / f"sub-{number:04d}/anat/sub-{number:04d}_T1w.nii.gz"
        if not path.exists():
            Volume(data.astype(np.float32), np.eye(4)).save(path)
    found = find_scans(study)
    with open_client(ClusterConfig(workers=workers), dashboard=False) as client:
        # Each worker's first scan pays for its imports.
        run_cohort(found[: 2 * workers], study, folder / f"warm-{workers}", Burn(0.2), partial(on_cluster, client))
        began = time.monotonic()
        summary = run_cohort(found, study, folder / f"out-{workers}", Burn(seconds), partial(on_cluster, client))
        took = time.monotonic() - began
    if summary.enhanced != scans:
        raise RuntimeError(f"{summary.enhanced} of {scans} scans were enhanced")
    return 60 * scans / took


@contextmanager
def scheduler_apart(workers: int) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a scheduler with workers, each a process of its own."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    # Workers find this file as the module that `no_work` is of.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    scheduler = subprocess.Popen([*dask, "scheduler", "--host", address, "--no-dashboard"], **quiet)  # noqa: S603 (our own words)
    started = [scheduler, *(subprocess.Popen(worker, env=environment, **quiet) for _ in range(workers))]  # noqa: S603
    try:
        yield address, psutil.Process(scheduler.pid)
    finally:
        for process in started:
            process.kill()
            process.wait()


def queue(folder: Path, count: int) -> tuple[dict[int, float], float]:
    """Memory of the scheduler's process in MB after so many scans, and milliseconds a scan."""
    from cohort_scaling import no_work as work

    memory = {}
    with scheduler_apart(2) as (address, scheduler), open_client(ClusterConfig(kind=address)) as client:
        client.wait_for_workers(2, timeout=120)
        began = time.monotonic()
        for number, _ in enumerate(on_cluster(client, tasks(count, folder), Burn(0), work=work), start=1):
            if number in (count // 10, count // 2, count):
                memory[number] = scheduler.memory_info().rss / 1e6
        took = time.monotonic() - began
    return memory, 1000 * took / count


def planning(folder: Path, count: int) -> float:
    """Seconds to find and plan so many scans of a new study."""
    study = folder / "large"
    for number in range(count):
        path = study / f"sub-{number:06d}/anat"
        path.mkdir(parents=True)
        (path / f"sub-{number:06d}_T1w.nii.gz").touch()
    began = time.monotonic()
    planned = plan(find_scans(study), folder / "large-out", Burn(0), seed=0)
    if len(planned) != count:
        raise RuntimeError(f"{len(planned)} of {count} scans were planned")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--planned", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n")
        print("| measure | value |\n|---|---|")
        first = None
        for workers in arguments.workers:
            rate = throughput(folder, arguments.scans, arguments.seconds, workers)
            first = first or rate
            print(
                f"| {arguments.scans} scans of {arguments.seconds:g} s, {workers} workers | {rate:.0f} a minute, {rate / first:.2f} times |"
            )
        memory, each = queue(folder, arguments.queued)
        for number, megabytes in memory.items():
            print(f"| memory of the scheduler after {number} scans | {megabytes:.0f} MB |")
        print(f"| way of one scan through the queue, 2 workers | {each:.1f} ms |")
        print(f"| finding and planning {arguments.planned} scans | {planning(folder, arguments.planned):.1f} s |")


if __name__ == "__main__":
    main()
