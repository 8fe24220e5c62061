"""The unit of work: one scan, or several of one head, enhanced, measured and filed."""

import errno
import shutil
import time
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from dynamicdps.atomic_file import write_text
from dynamicdps.cohort.bids import BidsScan
from dynamicdps.cohort.derivatives import publish, sidecar, withdraw
from dynamicdps.cohort.fingerprint import hash_of, input_hash, input_stamp
from dynamicdps.cohort.measures import measure, volumes_of
from dynamicdps.cohort.state import HIDDEN, ScanState, read_state, state_path
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json

# In the folder of a run's unfinished work while it lasts. The folder itself is no sign: whoever saves a volume makes its folder again.
ALIVE = "alive"


class Enhancer(Protocol):
    """What enhances one scan; it travels to the workers, so it must be an object of an importable class."""

    def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
        """Enhance a scan, or several of one head, into an empty folder.

        Args:
            scan: its files; what is left may call them by their places in the dataset alone.
            folder: gets ``enhanced.nii.gz`` and what else there is of `dynamicdps.cohort.derivatives.FILES`; the same arguments give
                the same bytes.
            seed: of all randomness.

        Returns:
            What the sidecar says of it, as plain values; ``data_misfit``, ``start_sigma``, ``volumes_mm3``, ``volumes_interval_mm3`` and
            ``warnings`` go into the table.

        Raises:
            InputError: the scan cannot be enhanced.
        """
        ...

    def parameters(self) -> Mapping[str, Any]:
        """What results depend on beside the scan: settings, hashes of models and files, version; plain values."""
        ...


@dataclass(frozen=True)
class Task:
    """One scan to do.

    Attributes:
        scan: which.
        out: folder of the derivatives.
        work: folder of this run's unfinished work, on the same file system.
        parameters: hash of the enhancer's parameters.
        seed: `BidsScan.seed`.
        threads: of torch.
    """

    scan: BidsScan
    out: Path
    work: Path
    parameters: str
    seed: int
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a scan.

    Attributes:
        state: as it was written.
        again: whether it had to be done; `False` where the scan had only been touched.
    """

    state: ScanState
    again: bool = True


def parameters_hash(enhancer: Enhancer, seed: int) -> str:
    """Hash of all that results depend on beside the scan."""
    return hash_of({"parameters": dict(enhancer.parameters()), "seed": seed})


def unchanged(task: Task) -> ScanState | None:
    """The state of a scan that need not even be read again: finished, whole, of the same parameters, its files untouched."""
    state = read_state(state_path(task.out, task.scan.name))
    same = (
        state is not None
        and state.parameters == task.parameters
        and state.stamp == input_stamp(task.scan.paths)
        and state.complete(task.out)
    )
    return state if same else None


def attempts(task: Task) -> int:
    """How often work on a scan has begun in this run and not come to an end."""
    return len(list(task.work.glob(f"{task.scan.name}.*")))


def process_scan(task: Task, enhancer: Enhancer) -> Outcome:
    """Enhance, measure and file one scan; whatever goes wrong with it is an outcome, not an error.

    A scan that fails leaves the files that other settings had given for the same contents, but none of an older content, which would be
    taken for it; see `fail`.
    """
    began = time.monotonic()
    scan, out = task.scan, task.out
    previous = read_state(state_path(out, scan.name))
    made = task.work / f"{scan.name}.{uuid.uuid4().hex}"
    stamp, digest = input_stamp(scan.paths), ""
    try:
        digest = input_hash(scan.paths)
        finished = None if previous is None else previous.finished(out)
        if finished is not None and (finished.input, finished.parameters) == (digest, task.parameters):
            touched = ScanState(**{**vars(finished), "stamp": stamp, "source": scan.source})
            touched.save(out)
            return Outcome(touched, again=False)
        # Never with parents: this run's folder has gone when another run has taken over.
        made.mkdir()
        _use_threads(task.threads)
        facts = dict(enhancer(scan, made, seed=task.seed))
        values, picture = measure(made, facts)
        warnings = [_plain(str(warning), task, made) for warning in facts.get("warnings") or ()]
        facts["warnings"] = warnings
        about = sidecar(scan, facts | volumes_of(values), seed=task.seed, input_hash=digest, parameters=task.parameters)
        write_json(made / "sidecar.json", about)
        if not _alive(task):
            raise InputError("the run has ended; expected it to go on; run again")
        thumbnails = out / HIDDEN / "thumbnails"
        thumbnails.mkdir(parents=True, exist_ok=True)
        (made / "thumbnail.jpg").write_bytes(picture)
        (made / "thumbnail.jpg").replace(thumbnails / f"{scan.name}.jpg")
        state = ScanState(
            scan.name, scan.source, "done", digest, stamp, task.parameters, {}, values, warnings, "", round(time.monotonic() - began, 2)
        )
        return Outcome(publish(scan, made, out, state, previous))
    except Exception as error:  # one scan must never end the others
        reason = _plain(sentence(error), task, made)
        return Outcome(fail(task, reason, digest, "" if isinstance(error, InputError) else traceback.format_exc(), began))
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if not _alive(task):
            shutil.rmtree(task.work, ignore_errors=True)


def fail(task: Task, reason: str, digest: str = "", trace: str = "", began: float | None = None) -> ScanState:
    """Write down that a scan failed, and take away what an older content of it had given.

    What other settings had given for the same contents stays, whole and out of the table, and so does everything where the contents cannot
    be read now: a network that is down changes no scan.
    """
    scan, out = task.scan, task.out
    seconds = 0.0 if began is None else round(time.monotonic() - began, 2)
    state = ScanState(scan.name, scan.source, "failed", digest, [], task.parameters, reason=reason, seconds=seconds)
    # Not where another run has taken over.
    if not _alive(task):
        return state
    try:
        previous = read_state(state_path(out, scan.name))
        finished = None if previous is None else previous.finished(out)
        digest = digest or _digest(scan)
        if finished is not None and digest in ("", finished.input):
            told = f"{reason}; what an earlier run had made of it is kept"
            state = replace(state, reason=told, input=digest, outputs=finished.outputs, kept=vars(finished))
        else:
            withdraw({} if previous is None else previous.outputs, out)
            (out / HIDDEN / "thumbnails" / f"{scan.name}.jpg").unlink(missing_ok=True)
        if trace:
            write_text(out / HIDDEN / "errors" / f"{scan.name}.txt", trace)
        state.save(out)
    except OSError:
        # A full disk: the client still hears of it, and a scan without a state is done again.
        return state
    return state


def _digest(scan: BidsScan) -> str:
    try:
        return input_hash(scan.paths)
    except InputError:
        return ""


def _alive(task: Task) -> bool:
    return (task.work / ALIVE).is_file()


def sentence(error: Exception) -> str:
    """An error in one sentence."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "there is no space left for the results; expected room for some 50 MB a scan; free some and run again"
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "the memory was not enough for this scan; expected more of it for each worker; use fewer workers and run again"
    return f"a fault of the program: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _plain(text: str, task: Task, made: Path) -> str:
    """A sentence on one line that names scans by their places in the dataset, so that it is the same wherever the dataset lies."""
    text = text.replace(f"{made}/", "")
    for path, source in zip(task.scan.paths, task.scan.sources, strict=True):
        text = text.replace(str(path), source)
    return " ".join(text.split())


def _use_threads(count: int) -> None:
    import torch

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
