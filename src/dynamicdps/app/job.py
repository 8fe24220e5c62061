"""A job: the scans that were dropped, what was recognised of them, and how far the work is. It lives in a folder of its own."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from dynamicdps.json_file import read_json, write_json

STATE, LOG = "job.json", "log.txt"
SCANS, RESULT = "scans", "result"

State = Literal["recognised", "waiting", "running", "done", "failed", "cancelled", "interrupted"]
Quality = Literal["fast", "default", "best"]
# In this order; `load` is what a new process takes until it opens the scan.
STAGES = ("load", "open", "prepare", "initial", "solve", "volumes", "write")


@dataclass(frozen=True)
class Recognised:
    """What a scan is, as far as reading it tells.

    Attributes:
        kind: of file, in words.
        shape: voxels along x, y, z in RAS order.
        spacing_mm: voxel size along them.
        orientation: where the axes of the file grow to, such as ``LPS``.
        contrast: by the file's name, such as ``T1w``; `None` where it names none.
        skull: whether the head is around the brain; `None` where it cannot be told.
        whole_head: whether the field of view holds a whole head; a slab otherwise.
        acquisition: what the header and the sidecar say, by the names of `dynamicdps.volumes.Acquisition`.
        warnings: what to check, one sentence each.
    """

    kind: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    contrast: str | None
    skull: bool | None
    whole_head: bool
    acquisition: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def millilitres(self) -> float:
        """Size of the field of view, to which the time of a job is about proportional."""
        (nx, ny, nz), (x, y, z) = self.shape, self.spacing_mm
        return nx * ny * nz * x * y * z / 1000

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Recognised":
        lists = ("shape", "spacing_mm", "warnings")
        return cls(**values | {name: tuple(values[name]) for name in lists})


@dataclass(frozen=True)
class JobScan:
    """A scan of a job.

    Attributes:
        name: as it was dropped, for people.
        path: file or folder, relative to the job's folder.
        recognised: what it is; `None` where it cannot be used.
        problem: why it cannot be used, one sentence; empty where it can.
    """

    name: str
    path: str
    recognised: Recognised | None
    problem: str = ""

    @property
    def home(self) -> Path:
        """The folder of its files, relative likewise, whose name is no other's in any job."""
        return Path(*Path(self.path).parts[:2])

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "JobScan":
        found = values["recognised"]
        return cls(**values | {"recognised": None if found is None else Recognised.from_json(found)})


@dataclass
class Job:
    """One enhancement: of one scan, or of several of one head.

    Attributes:
        folder: of the job; its name is the job's.
        drop: jobs that were dropped together have the same.
        scans: what is enhanced.
        state: where it stands.
        quality: that was chosen.
        queued: seconds since 1970 when it was started; jobs run in this order.
        attempts: how often its work was begun.
        problem: why it failed or was interrupted, or what of its results could not be written, one sentence; empty otherwise.
        seconds: by stage, of those that are over.
        stage: what is done now; not kept on disk, as the four that follow.
        done: parts of the stage that are done.
        planned: its parts in all.
        stage_began: by `time.monotonic`, as the next.
        told: when `done` was told.
    """

    folder: Path
    drop: str
    scans: list[JobScan]
    state: State = "recognised"
    quality: Quality = "default"
    queued: float = 0.0
    attempts: int = 0
    problem: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    done: int = 0
    planned: int = 1
    stage_began: float = 0.0
    told: float = 0.0

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def result(self) -> Path:
        """Where the results are; nothing lies there unless the job is running or done."""
        return self.folder / RESULT

    @property
    def usable(self) -> bool:
        """Whether all of its scans can be enhanced."""
        return all(scan.recognised is not None for scan in self.scans)

    @property
    def millilitres(self) -> float:
        """Brain volume of all its scans."""
        return sum(scan.recognised.millilitres for scan in self.scans if scan.recognised is not None)

    def save(self) -> None:
        """Write its state into its folder, whole or not at all."""
        values = asdict(self)
        for name in ("folder", "stage", "done", "planned", "stage_began", "told"):
            del values[name]
        write_json(self.folder / STATE, values)

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """The job of a folder.

        Raises:
            OSError: its state cannot be read.
            ValueError: it is no state of a job.
        """
        try:
            values = read_json(folder / STATE)
            job = cls(folder=folder, **values | {"scans": [JobScan.from_json(scan) for scan in values["scans"]]})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder / STATE} is no state of a job ({error})") from error
        if job.state not in get_args(State) or job.quality not in get_args(Quality):
            raise ValueError(f"{folder / STATE} is no state of a job ({job.state}, {job.quality})")
        return job
