"""Scans on workers, some of which die."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from dynamicdps.cohort import (
    ClusterConfig,
    ClusterLostError,
    Task,
    find_scans,
    in_process,
    job_script,
    on_cluster,
    open_client,
    run_cohort,
    worker_count,
)
from dynamicdps.cohort.clusters import ADDRESS
from dynamicdps.errors import InputError
from tests.cohort.made import Stub, contents, finished, gpus_seen, half_written, left_behind, made_up_tasks, make_study, no_work

ROOT = Path(__file__).parents[2]
# A client of its own, to be killed: study, output folder, workers (0: in its own process), seconds a scan.
CLIENT = """
import signal
import sys
from functools import partial
from pathlib import Path
from dynamicdps.cohort import ClusterConfig, find_scans, in_process, on_cluster, open_client, run_cohort
from tests.cohort.made import Stub

if __name__ == "__main__":
    # Processes in the background may start with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    study, out, workers, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    def report(done, total, note):
        print(done, flush=True)
    def go(engine):
        run_cohort(find_scans(study), study, out, Stub(seconds=seconds), engine, progress=report)
    if workers:
        with open_client(ClusterConfig(workers=workers), dashboard=False) as client:
            go(partial(on_cluster, client))
    else:
        go(in_process)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with open_client(ClusterConfig(workers=2), dashboard=False) as opened:
        yield opened


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", 5)


@pytest.fixture
def undisturbed(study: Path, tmp_path: Path) -> dict[str, str]:
    out = tmp_path / "undisturbed"
    run_cohort(find_scans(study), study, out, Stub(), in_process)
    return contents(out)


def start(study: Path, out: Path, workers: int, seconds: float) -> subprocess.Popen[str]:
    script = out.parent / "client.py"
    script.write_text(CLIENT)
    command = [sys.executable, str(script), str(study), str(out), str(workers), str(seconds)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def wait_for(client: subprocess.Popen[str], finished: int) -> None:
    """Until so many scans are finished."""
    assert client.stdout is not None
    for line in client.stdout:
        if int(line) >= finished:
            return


def end(client: subprocess.Popen[str], with_signal: signal.Signals) -> None:
    client.send_signal(with_signal)
    client.communicate(timeout=60)


def test_workers_give_the_same_bytes_as_one_process(client: Any, study: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run_cohort(find_scans(study), study, out, Stub(), partial(on_cluster, client))
    assert (summary.enhanced, summary.failures) == (6, [])
    assert contents(out) == undisturbed
    assert run_cohort(find_scans(study), study, out, Stub(), partial(on_cluster, client)).unchanged == 6


def test_no_more_scans_are_submitted_than_workers_need(client: Any, tmp_path: Path) -> None:
    pulled = finished = most = 0

    def counted(tasks: Iterator[Task]) -> Iterator[Task]:
        nonlocal pulled
        for task in tasks:
            pulled += 1
            yield task

    for outcome in on_cluster(client, counted(made_up_tasks(60, tmp_path)), Stub(), work=no_work):
        finished += 1
        most = max(most, pulled - finished)
        assert outcome.state.status == "done"
    assert finished == 60
    assert most == 2 * worker_count(client)


def test_a_worker_that_dies_is_replaced(client: Any, study: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run_cohort(find_scans(study), study, out, Stub(once=str(tmp_path / "died")), partial(on_cluster, client))
    assert (tmp_path / "died").exists()
    assert (summary.enhanced, summary.failures) == (6, [])
    assert contents(out) == undisturbed


@pytest.mark.slow
def test_a_scan_that_kills_its_workers_fails_alone(client: Any, study: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run_cohort(find_scans(study), study, out, Stub(deadly="sub-03"), partial(on_cluster, client))
    assert [(failure.name, failure.reason.split(";")[0]) for failure in summary.failures] == [
        ("sub-03_rec-dynamicdps", "its worker died 3 times")
    ]
    assert summary.enhanced == 5
    assert run_cohort(find_scans(study), study, out, Stub(), partial(on_cluster, client)).enhanced == 1
    assert contents(out) == undisturbed


def test_a_client_that_is_killed(study: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = start(study, out, 0, 0.05)
    wait_for(killed, 2)
    end(killed, signal.SIGKILL)
    assert not (out / "cohort.tsv").exists()
    summary = run_cohort(find_scans(study), study, out, Stub(), in_process)
    assert summary.unchanged >= 2
    assert contents(out) == undisturbed


@pytest.mark.slow
def test_ctrl_c(study: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """A terminal sends it to the workers too: the client ends within seconds, and the table holds what is finished."""
    out = tmp_path / "out"
    interrupted = start(study, out, 2, 0.5)
    wait_for(interrupted, 2)
    os.killpg(interrupted.pid, signal.SIGINT)
    _, said = interrupted.communicate(timeout=30)
    assert interrupted.returncode != 0
    assert said.count("Traceback") <= 1, said
    assert len((out / "cohort.tsv").read_text().splitlines()) >= 3
    assert run_cohort(find_scans(study), study, out, Stub(), in_process).unchanged >= 2
    assert not list((out / ".cohort").glob("work-*"))
    assert contents(out) == undisturbed


def go_on(study: Path, out: Path, undisturbed: dict[str, str]) -> None:
    """After a run that was ended: nothing is half-written, and the next one does the rest and leaves alone what is finished."""
    assert half_written(out, undisturbed) == []
    before = finished(out)
    run_cohort(find_scans(study), study, out, Stub(), in_process)
    # Workers of the run before that were still at it have ended, or found no place for their results.
    time.sleep(0.5)
    assert contents(out) == undisturbed
    after = finished(out)
    assert {place: after[place] for place in before} == before
    assert left_behind(out) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(7))
def test_a_client_killed_at_a_random_moment(number: int, study: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """And with it the scheduler of a local cluster, which lives in the client; its workers end with it."""
    out = tmp_path / "out"
    moment = random.Random(number)
    killed = start(study, out, 2, 0.1)
    wait_for(killed, moment.randrange(5))
    time.sleep(moment.uniform(0, 0.3))
    end(killed, signal.SIGKILL)
    go_on(study, out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(7))
def test_workers_killed_at_random_moments(number: int, study: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    moment = random.Random(number)
    out = tmp_path / "out"
    with open_client(ClusterConfig(workers=2), dashboard=False) as client:
        pids = client.run(os.getpid)

        def disturb(done: int, total: int, note: str) -> None:
            if done == number % 5 and pids:
                threading.Timer(moment.uniform(0, 0.3), os.kill, (pids.popitem()[1], signal.SIGKILL)).start()

        summary = run_cohort(find_scans(study), study, out, Stub(seconds=0.1), partial(on_cluster, client), progress=disturb)
    assert (summary.enhanced, summary.failures) == (6, [])
    assert contents(out) == undisturbed
    go_on(study, out, undisturbed)


@contextmanager
def scheduler_of_others() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address and the process of a scheduler, with a worker."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dask = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen([*dask, "scheduler", "--host", address, "--no-dashboard"], **quiet)
    worker = subprocess.Popen(
        [*dask, "worker", address, "--nthreads", "1", "--no-dashboard"], **quiet, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        yield address, scheduler
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_a_scheduler_killed_at_a_random_moment(number: int, study: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """A cluster that others run: the client says so and ends; the next run goes on."""
    moment = random.Random(number)
    out = tmp_path / "out"

    def disturb(done: int, total: int, note: str) -> None:
        if done == number % 4:
            threading.Timer(moment.uniform(0, 0.3), scheduler.kill).start()

    with scheduler_of_others() as (address, scheduler), open_client(ClusterConfig(kind=address)) as client:
        client.wait_for_workers(1, timeout=60)
        with pytest.raises(ClusterLostError):
            run_cohort(find_scans(study), study, out, Stub(seconds=0.2), partial(on_cluster, client), progress=disturb)
        assert len(finished(out)) >= 4 * (number % 4)
        # While the worker is there still.
        go_on(study, out, undisturbed)


@pytest.mark.slow
def test_the_schedulers_memory_is_flat(client: Any, tmp_path: Path) -> None:
    """Ten thousand scans take no more of it than the first thousand did."""
    import psutil

    process, memory = psutil.Process(), []
    for number, _ in enumerate(on_cluster(client, made_up_tasks(10_000, tmp_path), Stub(), work=no_work), start=1):
        if number % 1000 == 0:
            memory.append(process.memory_info().rss / 1e6)
    assert memory[-1] - memory[0] < 20


def test_job_scripts() -> None:
    """What each queue is asked for: 4 cores, 16 GB, a day, one GPU; one scan at a time in each job."""
    wanted = {
        "slurm": ["#SBATCH --cpus-per-task=4", "#SBATCH --mem=15G", "#SBATCH -t 24:00:00", "#SBATCH -p long", "#SBATCH --gres=gpu:1"],
        "sge": ["#$ -pe smp 4", "#$ -l h_vmem=4000M", "#$ -l h_rt=24:00:00", "#$ -q long", "#$ -l gpu=1"],
        "pbs": ["#PBS -l select=1:ncpus=4:mem=16000MB", "#PBS -l walltime=24:00:00", "#PBS -q long", "#PBS -W x=GPU:1"],
        "lsf": ["#BSUB -n 4", "#BSUB -M 16000000", "#BSUB -W 24:00", "#BSUB -q long", '#BSUB -gpu "num=1"'],
    }
    for kind, lines in wanted.items():
        directive = lines[-1].split(maxsplit=1)[1]
        config = ClusterConfig(
            kind, 3, 4, memory="16GB", walltime="24:00:00", queue="long", directives=(directive,), prologue=("module load cuda",)
        )
        script = job_script(config).splitlines()
        assert [line for line in lines if line not in script] == [], "\n".join(script)
        assert script.index("module load cuda") < len(script) - 1
        worker = script[-1]
        assert "distributed.cli.dask_worker tcp://" in worker
        assert "--nthreads 1 " in worker
        # Five minutes before the job's end.
        assert "--lifetime 1435m" in worker


@pytest.mark.slow
def test_each_local_worker_sees_one_gpu() -> None:
    """Three workers and two GPUs, which are taken in turn; each finds its own as number 0."""
    with open_client(ClusterConfig(workers=3, gpus=(1, 4)), dashboard=False) as client:
        client.wait_for_workers(3, timeout=60)
        seen = client.run(gpus_seen)
    assert sorted(seen.values()) == ["1", "1", "4"]


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "torque"}, {"kind": "10.0.0.1:8786"}, {"workers": 0}, {"threads": 0}, {"memory": "much"}, {"walltime": "1 day"}],
)
def test_clusters_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        ClusterConfig(**wrong)


def test_addresses() -> None:
    assert ADDRESS.fullmatch("tcp://10.0.0.1:8786")
    assert ADDRESS.fullmatch("tls://head.node:8786")
    with pytest.raises(InputError, match="no job script"):
        job_script(ClusterConfig("tcp://10.0.0.1:8786"))
