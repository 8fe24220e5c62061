"""Jobs one after the other, each in a process of its own; what is on disk is enough to go on after a restart."""

import json
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynamicdps.app.estimate import expected_seconds, passes_of, qualities_of, seconds_left, solver_seconds_left
from dynamicdps.app.job import LOG, SCANS, STAGES, STATE, Job, JobScan, Quality
from dynamicdps.app.recognise import recognise
from dynamicdps.app.uploads import EXPECTED, find_scans
from dynamicdps.errors import InputError
from dynamicdps.pipeline import StudyOptions
from dynamicdps.pipeline.options import values_of

# Whoever ends the program twice while it runs may mean it; a job that takes the machine down must not do so for ever.
MOST_ATTEMPTS = 3
# Beside the folder of a scan.
PREVIEW = ".preview.nii.gz"
ENDED = ("recognised", "done", "failed", "cancelled", "interrupted")
LAST_LINE_CHARACTERS = 300
# Time, drop and number.
NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}-\d{5}")
# What a sentence of the command line says, and what can be done on the page.
INSTEAD = {
    r"choose with --volume N, from 1 to \d+": "save one of them as a file of its own",
    r"leave it out, or give --keep-all if it is the same head": "enhance it alone",
    r"enhance each contrast alone, or give --contrast where one was not recognised": "enhance each contrast alone",
}


class JobQueue:
    """Jobs in a folder, and the thread that works on them.

    Attributes:
        folder: a folder for each job.
        options: of every job but for the quality.
        jobs: by id.
        unreadable: folders that look like jobs and cannot be read as such.
    """

    def __init__(self, folder: Path, options: StudyOptions) -> None:
        self.folder = folder
        self.options = options
        self.jobs: dict[str, Job] = {}
        self.unreadable: list[Path] = []
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._process: subprocess.Popen[str] | None = None
        self._running: Job | None = None
        self._cancelled = False
        self._stopping = threading.Event()
        self._began = 0.0
        self._passes = {quality: passes_of(options, quality) for quality in qualities_of(options)}
        self._read()

    @property
    def qualities(self) -> list[Quality]:
        """That can be chosen."""
        return list(self._passes)

    def _read(self) -> None:
        """The jobs of the folder; those whose work was broken off wait again, and those that were not whole yet, or not any more, go."""
        for folder in self.folder.glob("*"):
            if NAME.fullmatch(folder.name) and not (folder / STATE).exists():
                shutil.rmtree(folder, ignore_errors=True)
        for state in sorted(self.folder.glob(f"*/{STATE}")):
            try:
                job = Job.read(state.parent)
            except (OSError, ValueError):
                self.unreadable.append(state.parent)
                continue
            self.jobs[job.id] = job
            if job.state == "running":
                shutil.rmtree(job.result, ignore_errors=True)
                job.state = "waiting"
                if job.attempts >= MOST_ATTEMPTS:
                    job.state = "interrupted"
                    job.problem = f"the program ended {job.attempts} times while it worked on this; start it again if you know why"
                job.save()

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End the work; the job that is running begins again with the next start."""
        with self._changed:
            self._stopping.set()
            self._end_process()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def take(self, dropped: Path) -> tuple[list[Job], list[str]]:
        """Make a job of each scan among files.

        Args:
            dropped: folder of files, from which those of scans are moved.

        Returns:
            The jobs, and names of files that are no scans.

        Raises:
            InputError: there is no scan.
        """
        found, left = find_scans(dropped)
        if not found:
            raise InputError(f"none of the {len(left)} files that were dropped is a scan; {EXPECTED}; drop others")
        drop, now, made = secrets.token_hex(4), time.strftime("%Y%m%d-%H%M%S", time.gmtime()), []
        for number, scan in enumerate(found):
            folder = self.folder / f"{now}-{drop}-{number:05d}"
            home = folder / SCANS / secrets.token_hex(4)
            path, problem, recognised = scan.move_to(home), scan.problem, None
            if not problem:
                try:
                    recognised, preview = recognise(path)
                    home.with_suffix(PREVIEW).write_bytes(preview)
                except InputError as error:
                    problem = str(error)
            place = str(path.relative_to(folder))
            problem = _on_the_page(problem, folder, [JobScan(scan.name, place, None)])
            job = Job(folder, drop, [JobScan(scan.name, place, recognised, problem)], quality=self.options.quality)
            with self._changed:
                job.save()
                self.jobs[job.id] = job
            made.append(job)
        return made, left

    def enqueue(self, job: Job, quality: Quality) -> None:
        """Let a job wait for its turn; one that has ended is done anew.

        Raises:
            InputError: it waits or runs already, or its scan cannot be used.
        """
        with self._changed:
            if job.state not in ENDED:
                raise InputError(f"the job is {job.state} already; expected one that is not; wait for it, or cancel it first")
            if quality not in self._passes:
                raise InputError(f"there is no quality {quality!r}; expected one of {', '.join(self._passes)}")
            if not job.usable:
                raise InputError(f"the scan cannot be used: {job.scans[0].problem}")
            shutil.rmtree(job.result, ignore_errors=True)
            job.state, job.quality, job.queued, job.attempts, job.problem, job.seconds = "waiting", quality, time.time(), 0, "", {}
            job.save()
            self._changed.notify_all()

    def together(self, jobs: Sequence[Job]) -> Job:
        """Make one job of several: their scans show one head.

        Raises:
            InputError: there are fewer than two, or one is not merely recognised or cannot be used.
        """
        with self._changed:
            if len(jobs) < 2 or any(job.state != "recognised" or not job.usable for job in jobs):
                raise InputError("scans of one head are put together before they are started; expected two or more; choose others")
            first, *others = jobs
            for other in others:
                for scan in other.scans:
                    for file in (scan.home, scan.home.with_suffix(PREVIEW)):
                        (other.folder / file).rename(first.folder / file)
                first.scans += other.scans
                self._forget(other)
            first.save()
            return first

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or end its work; nothing of its results is left.

        Raises:
            InputError: it neither waits nor runs.
        """
        with self._changed:
            if job.state == "waiting":
                job.state = "cancelled"
                job.save()
            elif job is self._running:
                self._cancelled = True
                self._end_process()
            else:
                raise InputError(f"the job is {job.state}; expected one that waits or runs; there is nothing to cancel")

    def remove(self, job: Job) -> None:
        """Delete a job with its scans and results.

        Raises:
            InputError: it waits or runs.
        """
        with self._changed:
            if job.state not in ENDED:
                raise InputError(f"the job is {job.state}; expected one that is not; cancel it first")
            self._forget(job)

    def _forget(self, job: Job) -> None:
        del self.jobs[job.id]
        # Without its state it is no job, even where a file cannot be deleted.
        (job.folder / STATE).unlink(missing_ok=True)
        shutil.rmtree(job.folder, ignore_errors=True)

    def elapsed(self, job: Job) -> float | None:
        """Seconds of work on a job that is running; `None` for others."""
        return time.monotonic() - self._began if job is self._running else None

    def expected(self, job: Job, quality: Quality) -> dict[str, float]:
        """Seconds of a job by stage, as earlier ones of this folder took; empty where there are none."""
        return expected_seconds(job, quality, list(self.jobs.values()), self._passes)

    def left(self, job: Job) -> float | None:
        """Seconds until a job that is running is done; `None` for others and before the first one is done."""
        return seconds_left(job, self.expected(job, job.quality), time.monotonic()) if job is self._running else None

    def left_of_stage(self, job: Job) -> float | None:
        """Seconds that the solver still takes, where it is at work on a job and tells its pace."""
        return solver_seconds_left(job, time.monotonic()) if job is self._running else None

    def _next(self) -> Job | None:
        waiting = [job for job in self.jobs.values() if job.state == "waiting"]
        return min(waiting, key=lambda job: job.queued, default=None)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._stopping.is_set() and (job := self._next()) is None:
                    self._changed.wait()
                if self._stopping.is_set():
                    return
                assert job is not None
                job.state, job.attempts, job.stage, job.done, job.planned = "running", job.attempts + 1, STAGES[0], 0, 1
                job.save()
                self._running, self._cancelled, self._began = job, False, time.monotonic()
                job.stage_began = job.told = self._began
                log = (job.folder / LOG).open("w", encoding="utf-8")
                self._process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-m", "dynamicdps.app.worker", json.dumps(self._what(job))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    # Ctrl-C in the terminal is for this process, which ends the other.
                    start_new_session=True,
                )
            with log, self._process as process:
                problem = self._listen(job, process)
                code = process.wait()
            with self._changed:
                self._running = self._process = None
                if self._stopping.is_set() and code != 0:
                    return
                self._settle(job, code, problem)

    def _what(self, job: Job) -> dict[str, Any]:
        values = {name: value for name, value in values_of(self.options, StudyOptions).items() if value is not None}
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        return {
            "scans": [str(job.folder / scan.path) for scan in job.scans],
            "options": plain | {"quality": job.quality},
            "out": str(job.result),
        }

    def _listen(self, job: Job, process: "subprocess.Popen[str]") -> str:
        """Follow what a process says, until it says nothing more.

        Returns:
            The problem it told of, if any.
        """
        assert process.stdout is not None
        problem, began = "", self._began
        for line in process.stdout:
            told = json.loads(line)
            if "problem" in told:
                problem = told["problem"]
                continue
            now = time.monotonic()
            with self._changed:
                if told["stage"] != job.stage:
                    job.seconds[job.stage] = round(now - began, 3)
                    began = job.stage_began = now
                job.stage, job.done, job.planned, job.told = told["stage"], told["done"], told["planned"], now
        with self._changed:
            job.seconds[job.stage] = round(time.monotonic() - began, 3)
        return problem

    def _settle(self, job: Job, code: int, problem: str) -> None:
        """What became of a job whose process has ended."""
        job.stage, problem = "", _on_the_page(problem, job.folder, job.scans)
        if code == 0:
            job.state, job.problem = "done", problem
        else:
            shutil.rmtree(job.result, ignore_errors=True)
            job.seconds = {}
            job.state = "cancelled" if self._cancelled else "failed"
            job.problem = "" if self._cancelled else problem or _fault(job, code)
        job.save()

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.kill()


def _on_the_page(sentence: str, folder: Path, scans: Sequence[JobScan]) -> str:
    """A sentence that names scans as they were dropped, not by where they lie in a job's folder, and no option that the page has not.

    Paths may be cut short in it.
    """
    for option, instead in INSTEAD.items():
        sentence = re.sub(option, instead, sentence)
    for scan in scans:
        sentence = sentence.replace(str(folder / scan.path), scan.name)
    return re.sub(re.escape(str(folder.parent)) + r"/[^\s;,)]*", "the scan", sentence)


def _fault(job: Job, code: int) -> str:
    log = job.folder / LOG
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = f" ({lines[-1][:LAST_LINE_CHARACTERS]})" if lines else ""
    return f"the program failed with code {code}{last}; this is a fault of the program or of the machine, not of the scan; see {log}"
