"""Where the work is done: processes of this machine, jobs of a cluster's queue, or workers of a running Dask scheduler."""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dynamicdps.errors import InputError

if TYPE_CHECKING:
    from distributed import Client
    from distributed.deploy.spec import SpecCluster

QUEUES = {"slurm": "SLURMCluster", "sge": "SGECluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://\S+")
MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([MGT])i?B?", re.IGNORECASE)
MEGABYTES = {"M": 1, "G": 1000, "T": 1_000_000}
# A worker stops this long before its job's time is up, so that a scan that has begun is given to another and not lost.
SPARE_MINUTES = 5


@dataclass(frozen=True)
class ClusterConfig:
    """How many workers there are and where.

    Attributes:
        kind: ``"local"``, a queue of `QUEUES`, or the address of a running scheduler, ``"tcp://HOST:PORT"``.
        workers: of which each does one scan at a time; of no meaning for an address.
        threads: cores for each.
        gpus: numbers of this machine's GPUs; local workers take them in turn.
        memory: of each job, such as ``"8GB"``.
        walltime: of each job, ``"HH:MM:SS"``.
        queue: of the jobs, or the queue system's default.
        directives: further ones of each job, such as ``"--gres=gpu:1"``.
        prologue: shell lines before the worker, such as ``"module load cuda"``.
    """

    kind: str = "local"
    workers: int = 1
    threads: int = 1
    gpus: tuple[int, ...] = ()
    memory: str = "8GB"
    walltime: str = "12:00:00"
    queue: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind != "local" and self.kind not in QUEUES and not ADDRESS.fullmatch(self.kind):
            known = f"local, {', '.join(QUEUES)} or an address such as tcp://10.0.0.1:8786"
            raise InputError(f"there is no cluster {self.kind!r}; expected {known}; change --cluster")
        if self.workers < 1 or self.threads < 1:
            raise InputError(f"there are {self.workers} workers of {self.threads} threads; expected at least 1 of each; change them")
        if not MEMORY.fullmatch(self.memory):
            raise InputError(f"the memory {self.memory!r} is no size; expected a number with MB, GB or TB; change --memory")
        if not re.fullmatch(r"\d+:[0-5]\d(:[0-5]\d)?", self.walltime):
            raise InputError(f"the walltime {self.walltime!r} is no time; expected HH:MM:SS; change --walltime")

    @property
    def megabytes(self) -> int:
        """Memory of a job."""
        match = MEMORY.fullmatch(self.memory)
        return math.ceil(float(match[1]) * MEGABYTES[match[2].upper()]) if match else 0

    @property
    def minutes(self) -> int:
        """Walltime of a job."""
        hours, minutes = self.walltime.split(":")[:2]
        return 60 * int(hours) + int(minutes)


def require_dask() -> None:
    """Check that the extra is installed.

    Raises:
        InputError: it is not.
    """
    if find_spec("distributed") is None:
        raise InputError("Dask is not installed; expected it for many scans; run pip install 'dynamicdps[cluster]'")


@contextmanager
def open_client(config: ClusterConfig, *, dashboard: bool = True) -> Iterator["Client"]:
    """A client of the cluster; what was started for it is stopped afterwards.

    Raises:
        InputError: Dask is not installed, the queue's commands are missing, or no scheduler answers.
    """
    require_dask()
    import dask
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.ERROR)
    # 0: a death is counted by us, for the scan that was worked on and not for those that waited behind it.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.comm.timeouts.connect": "20s"}):
        if ADDRESS.fullmatch(config.kind):
            try:
                client = Client(config.kind, timeout=20)
            except (OSError, TimeoutError) as error:
                raise InputError(
                    f"no Dask scheduler answers at {config.kind}; expected a running one; start it or check the address"
                ) from error
            with client:
                yield client
            return
        try:
            cluster = _local(config, dashboard) if config.kind == "local" else _queue(config, dashboard)
        except FileNotFoundError as error:
            raise InputError(f"{config.kind} has no command here ({error}); expected its queue; run where jobs can be submitted") from error
        with cluster, Client(cluster) as client:
            if config.kind in QUEUES:
                # Jobs that end, with their node or at their walltime, are submitted again.
                cluster.adapt(minimum_jobs=config.workers, maximum_jobs=config.workers)
            yield client


def worker_count(client: "Client") -> int:
    """Workers that are there now."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


def job_script(config: ClusterConfig) -> str:
    """What would be submitted for each worker.

    Raises:
        InputError: the kind has no jobs.
    """
    if config.kind not in QUEUES:
        raise InputError(f"{config.kind!r} has no job script; expected one of {', '.join(QUEUES)}; change --cluster")
    require_dask()
    with _queue(config, dashboard=False) as cluster:
        return str(cluster.job_script())


def _local(config: ClusterConfig, dashboard: bool) -> "SpecCluster":
    from distributed import Nanny, Scheduler
    from distributed.deploy.spec import SpecCluster

    def worker(index: int) -> dict[str, Any]:
        # Every worker sees one GPU, as number 0.
        device = {"CUDA_VISIBLE_DEVICES": str(config.gpus[index % len(config.gpus)])} if config.gpus else {}
        options = {"nthreads": 1, "memory_limit": 0, "env": device, "silence_logs": logging.CRITICAL, "dashboard": False}
        return {"cls": Nanny, "options": options | {"preload": ["dynamicdps.cohort.worker_setup"]}}

    # Any free port: the usual one may be another study's.
    place = {"host": "127.0.0.1", "port": 0, "dashboard": dashboard, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(
        workers={index: worker(index) for index in range(config.workers)},
        scheduler={"cls": Scheduler, "options": place},
        silence_logs=logging.CRITICAL,
        name="dynamicdps",
    )


def _queue(config: ClusterConfig, dashboard: bool) -> Any:
    import dask_jobqueue

    lifetime = max(1, config.minutes - SPARE_MINUTES)
    directives = list(config.directives)
    own: dict[str, Any] = {}
    if config.kind == "slurm":
        own = {"job_cpu": config.threads}
    elif config.kind == "sge":
        # h_vmem counts for each slot.
        own = {"resource_spec": f"h_vmem={math.ceil(config.megabytes / config.threads)}M"}
        directives = [*([f"-pe smp {config.threads}"] if config.threads > 1 else []), *directives]
    elif config.kind == "pbs":
        own = {"resource_spec": f"select=1:ncpus={config.threads}:mem={config.megabytes}MB"}
    elif config.kind == "lsf":
        own = {"ncpus": config.threads, "mem": config.megabytes * 1_000_000}
    return getattr(dask_jobqueue, QUEUES[config.kind])(
        name="dynamicdps",
        job_name="dynamicdps",
        # One thread for tasks: the threads are torch's.
        cores=1,
        processes=1,
        memory=f"{config.megabytes}MB",
        # LSF counts minutes.
        walltime=":".join(config.walltime.split(":")[:2]) if config.kind == "lsf" else config.walltime,
        queue=config.queue,
        job_extra_directives=directives,
        job_script_prologue=list(config.prologue),
        worker_extra_args=["--lifetime", f"{lifetime}m", "--no-dashboard"],
        scheduler_options={"dashboard": dashboard, "dashboard_address": ":0"},
        **own,
    )
