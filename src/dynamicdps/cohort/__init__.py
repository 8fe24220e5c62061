"""Many scans: BIDS in, BIDS derivatives and one table out, on one machine or a cluster."""

from dynamicdps.cohort.bids import BidsScan, LeftOut, combine, find_left_out, find_scans
from dynamicdps.cohort.clusters import ClusterConfig, job_script, open_client, worker_count
from dynamicdps.cohort.enhancer import ScanEnhancer, make_enhancer
from dynamicdps.cohort.queue import ClusterLostError, in_process, on_cluster
from dynamicdps.cohort.run import Planned, Summary, plan, run_cohort, write_overview
from dynamicdps.cohort.work import Enhancer, Outcome, Task, process_scan

__all__ = [
    "BidsScan",
    "ClusterConfig",
    "ClusterLostError",
    "Enhancer",
    "LeftOut",
    "Outcome",
    "Planned",
    "ScanEnhancer",
    "Summary",
    "Task",
    "combine",
    "find_left_out",
    "find_scans",
    "in_process",
    "job_script",
    "make_enhancer",
    "on_cluster",
    "open_client",
    "plan",
    "process_scan",
    "run_cohort",
    "worker_count",
    "write_overview",
]
