"""A study of phantoms, and an enhancer that takes no time."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynamicdps.cohort import BidsScan, Enhancer, Outcome, Task
from dynamicdps.cohort.state import ScanState, read_states
from dynamicdps.evaluation import segment, tissue_volumes
from dynamicdps.output_names import numbered
from dynamicdps.volumes import brain_mask, load
from tests.conftest import make_phantom

SMALL = (16, 18, 6)


@dataclass(frozen=True)
class Stub:
    """Adds noise of the seed; sleeps or dies where it is told to."""

    strength: float = 0.01
    seconds: float = 0.0
    deadly: str = ""
    once: str = ""
    samples: int = 0

    def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
        volume, *others = (load(path) for path in scan.paths)
        random = np.random.default_rng(seed)
        time.sleep(self.seconds)
        if self.deadly and self.deadly in scan.source:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.once and not Path(self.once).exists():
            Path(self.once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        noisy = [
            volume.with_data(np.where(volume.data > 0, volume.data + self.strength * random.standard_normal(volume.shape), 0))
            for _ in range(max(1, self.samples))
        ]
        noisy[0].save(folder / "enhanced.nii.gz")
        volume.save(folder / "initial.nii.gz")
        for number, other in enumerate(others, 2):
            other.save(folder / numbered("residual.nii.gz", number))
        noisy[0].with_data(noisy[0].data > 0).save(folder / "dseg.nii.gz", dtype=np.uint8)
        (folder / "dseg.tsv").write_text("index\tname\n1\tbrain\n")
        (folder / "structures.tsv").write_text("structure\tmm3\nbrain\t1\n")
        volumes = tissue_volumes(segment(noisy[0].data, brain_mask(noisy[0])), volume.spacing)
        intervals = {tissue: (0.9 * mm3, 1.1 * mm3) for tissue, mm3 in volumes.items()} if self.samples > 1 else {}
        (folder / "report.html").write_text(f"<!doctype html><title>{scan.source}</title>", encoding="utf-8")
        numbers = {"data_misfit": 1.0 + self.strength, "start_sigma": 0.1, "volumes_mm3": volumes, "volumes_interval_mm3": intervals}
        return numbers | {"warnings": [], "models": {"prior": "0" * 64}, "seed": seed}

    def parameters(self) -> Mapping[str, Any]:
        return {"strength": self.strength, "samples": self.samples}


def make_study(folder: Path, subjects: int = 3) -> Path:
    """A BIDS dataset; the second subject has two sessions."""
    for number in range(1, subjects + 1):
        for session in ("1", "2") if number == 2 else (None,):
            name = f"sub-{number:02d}" + (f"_ses-{session}" if session else "")
            place = folder / name.replace("_", "/") / "anat"
            make_phantom(SMALL, seed=number + 10 * int(session or 0)).save(place / f"{name}_T1w.nii.gz")
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "phantoms", "BIDSVersion": "1.10.0"}), encoding="utf-8")
    return folder


def contents(out: Path) -> dict[str, str]:
    """Hashes of all files that must not depend on how the work was done."""
    apart = {"timing.tsv", "run.json"}
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".cohort" not in path.parts and path.name not in apart
    }


def finished(out: Path) -> dict[str, int]:
    """Times of the files of all scans that are done."""
    places = [place for state in read_states(out) if state.complete(out) for place in state.outputs]
    return {place: (out / place).stat().st_mtime_ns for place in places}


def half_written(out: Path, undisturbed: Mapping[str, str]) -> list[str]:
    """Results that are not what they are to be, whatever moment this is."""
    return [name for name, digest in contents(out).items() if name.startswith("sub-") and undisturbed.get(name) != digest]


def left_behind(out: Path) -> list[Path]:
    """Files of unfinished work."""
    return [*out.rglob("*partial*"), *(out / ".cohort").glob("work-*")]


def gpus_seen() -> str | None:
    """GPUs of the process that this is run in."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def no_work(task: Task, enhancer: Enhancer) -> Outcome:
    """What costs nothing but its way through the cluster."""
    return Outcome(ScanState(task.scan.name, task.scan.source, "done"))


def made_up_tasks(count: int, out: Path) -> Iterator[Task]:
    """Tasks of scans that do not exist."""
    for number in range(count):
        scan = BidsScan((out / f"{number}.nii",), (f"{number}.nii",), (("sub", str(number)),))
        yield Task(scan, out, out, "", number)
