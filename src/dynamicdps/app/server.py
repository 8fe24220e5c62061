"""The page and its addresses."""

import json
import secrets
import shutil
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from dynamicdps import __version__
from dynamicdps.app.guard import REPORT_POLICY
from dynamicdps.app.job import STAGES, Job
from dynamicdps.app.queue import PREVIEW, JobQueue
from dynamicdps.app.uploads import Drop
from dynamicdps.app.worker import DICOM
from dynamicdps.errors import InputError
from dynamicdps.output_names import ENHANCED, REPORT

DROPS = ".drops"
MAX_WORDS = 64 * 1024
STATIC = files("dynamicdps.app") / "static"
REPORT_STATIC = files("dynamicdps.report") / "static"
JAVASCRIPT = "text/javascript; charset=utf-8"
PAGE_FILES = {
    "": (STATIC / "index.html", "text/html; charset=utf-8"),
    "app.css": (STATIC / "app.css", "text/css; charset=utf-8"),
    "app.js": (STATIC / "app.js", JAVASCRIPT),
    "niivue.umd.js": (REPORT_STATIC / "niivue" / "niivue.umd.js", JAVASCRIPT),
    "slices.js": (REPORT_STATIC / "slices.js", JAVASCRIPT),
}


def make_app(queue: JobQueue) -> Starlette:
    """The page of a queue, which is not started here; it is not guarded yet."""
    addresses = Addresses(queue)
    routes = [
        *(Route(f"/{name}", page_file(name)) for name in PAGE_FILES),
        Route("/api/state", addresses.state),
        Route("/api/drops", addresses.new_drop, methods=["POST"]),
        Route("/api/drops/{drop}", addresses.forget_drop, methods=["DELETE"]),
        Route("/api/drops/{drop}/files", addresses.receive, methods=["PUT"]),
        Route("/api/drops/{drop}/recognise", addresses.recognise, methods=["POST"]),
        Route("/api/together", addresses.together, methods=["POST"]),
        Route("/api/jobs/{job}", addresses.remove, methods=["DELETE"]),
        Route("/api/jobs/{job}/start", addresses.start, methods=["POST"]),
        Route("/api/jobs/{job}/cancel", addresses.cancel, methods=["POST"]),
        Route("/api/jobs/{job}/previews/{number:int}", addresses.preview),
        Route("/api/jobs/{job}/report", addresses.report),
        Route("/api/jobs/{job}/all.zip", addresses.everything),
        Route("/api/jobs/{job}/dicom.zip", addresses.dicom),
        Route("/api/jobs/{job}/files/{name}", addresses.file),
    ]
    return Starlette(routes=routes, exception_handlers={InputError: refuse, HTTPException: not_found})


def page_file(name: str) -> Callable[[Request], Awaitable[Response]]:
    """The address of a file of the page."""
    source, kind = PAGE_FILES[name]

    async def answer(_: Request) -> Response:
        return Response(source.read_bytes(), media_type=kind)

    return answer


def refuse(_: Request, error: Exception) -> Response:
    """What cannot be done, as one sentence."""
    return JSONResponse({"problem": str(error)}, 400)


def not_found(_: Request, error: Exception) -> Response:
    """What there is not."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"problem": "there is no such thing here (any more); reload the page"}, status)


class Addresses:
    """What is at each address of a queue's page."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self.drops: dict[str, Drop] = {}
        self.folder = queue.folder / DROPS
        # Of a program that ended while files came in.
        shutil.rmtree(self.folder, ignore_errors=True)

    async def state(self, _: Request) -> Response:
        # The latest drop first, and in it the scans by their names.
        jobs = sorted(sorted(self.queue.jobs.values(), key=lambda job: job.id), key=lambda job: job.id.rpartition("-")[0], reverse=True)
        return JSONResponse(
            {
                "version": __version__,
                "folder": str(self.queue.folder),
                "qualities": self.queue.qualities,
                "quality": self.queue.options.quality,
                "stages": STAGES,
                "jobs": [self._shown(job) for job in jobs],
            }
        )

    async def new_drop(self, _: Request) -> Response:
        name = secrets.token_hex(8)
        self.drops[name] = Drop(self.folder / name / "files")
        return JSONResponse({"drop": name})

    async def forget_drop(self, request: Request) -> Response:
        self._take_drop(request)
        return Response(status_code=204)

    async def receive(self, request: Request) -> Response:
        """A file of a drop, as the body; its name, with its folders, as ``name``."""
        drop, name = self._drop(request), request.query_params.get("name", "")
        place, size = drop.place(name), 0
        try:
            with place.open("xb") as file:
                async for part in request.stream():
                    drop.receive(len(part), size, name)
                    size += len(part)
                    file.write(part)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        return Response(status_code=204)

    async def recognise(self, request: Request) -> Response:
        drop = self._drop(request)
        try:
            jobs, left = await run_in_threadpool(self.queue.take, drop.folder)
        finally:
            self._take_drop(request)
        return JSONResponse({"jobs": [job.id for job in jobs], "left_out": left})

    async def together(self, request: Request) -> Response:
        names = (await _words(request)).get("jobs")
        job = self.queue.together([self._find(name) for name in names] if isinstance(names, list) else [])
        return JSONResponse({"job": job.id})

    async def start(self, request: Request) -> Response:
        job, quality = self._job(request), (await _words(request)).get("quality", self.queue.options.quality)
        # What is no quality is refused by the queue, as a word.
        self.queue.enqueue(job, quality if isinstance(quality, str) else str(quality))  # type: ignore[arg-type]
        return Response(status_code=204)

    async def cancel(self, request: Request) -> Response:
        self.queue.cancel(self._job(request))
        return Response(status_code=204)

    async def remove(self, request: Request) -> Response:
        await run_in_threadpool(self.queue.remove, self._job(request))
        return Response(status_code=204)

    async def preview(self, request: Request) -> Response:
        job, number = self._job(request), request.path_params["number"]
        if number >= len(job.scans):
            raise HTTPException(404)
        return _file((job.folder / job.scans[number].home).with_suffix(PREVIEW))

    async def report(self, request: Request) -> Response:
        response = _file(self._done(request) / REPORT, media_type="text/html; charset=utf-8")
        response.headers["content-security-policy"] = REPORT_POLICY
        return response

    async def file(self, request: Request) -> Response:
        folder, name = self._done(request), request.path_params["name"]
        if name not in _names(folder):
            raise HTTPException(404)
        return _file(folder / name, filename=f"{self._stem(request)}_{name}")

    async def everything(self, request: Request) -> Response:
        """All but the DICOM series, which alone names a patient."""
        return await self._zip(self._done(request), self._stem(request))

    async def dicom(self, request: Request) -> Response:
        return await self._zip(self._done(request) / DICOM, f"{self._stem(request)}_dicom")

    async def _zip(self, folder: Path, stem: str) -> Response:
        """The files of a folder in one; images are packed already, but not those of DICOM."""
        if not folder.is_dir():
            raise HTTPException(404)
        place = self.folder / f"{secrets.token_hex(8)}.zip"

        def pack() -> None:
            place.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED if folder.name != DICOM else zipfile.ZIP_DEFLATED) as archive:
                for name in _names(folder):
                    archive.write(folder / name, f"{stem}/{name}")

        await run_in_threadpool(pack)
        return _file(place, filename=f"{stem}.zip", background=BackgroundTask(place.unlink, missing_ok=True))

    def _find(self, name: Any) -> Job:
        job = self.queue.jobs.get(str(name))
        if job is None:
            raise HTTPException(404)
        return job

    def _job(self, request: Request) -> Job:
        return self._find(request.path_params["job"])

    def _done(self, request: Request) -> Path:
        """Folder of the results of a job that is done."""
        job = self._job(request)
        if job.state != "done":
            raise HTTPException(404)
        return job.result

    def _stem(self, request: Request) -> str:
        """Of the names of files that are saved."""
        name = self._job(request).scans[0].name
        for ending in (".gz", ".nii", ".img", ".mgh", ".mgz", ".npz", ".h5", ".hdf5"):
            name = name.removesuffix(ending)
        return name.replace(", ", "-").replace(" ", "-")

    def _drop(self, request: Request) -> Drop:
        drop = self.drops.get(request.path_params["drop"])
        if drop is None:
            raise HTTPException(404)
        return drop

    def _take_drop(self, request: Request) -> None:
        """Forget a drop and delete what is left of it."""
        drop = self._drop(request)
        del self.drops[request.path_params["drop"]]
        shutil.rmtree(drop.folder.parent, ignore_errors=True)

    def _shown(self, job: Job) -> dict[str, Any]:
        """A job as the page sees it."""
        return {
            "id": job.id,
            "drop": job.drop,
            "state": job.state,
            "quality": job.quality,
            "queued": job.queued,
            "problem": job.problem,
            "usable": job.usable,
            "stage": job.stage,
            "done": job.done,
            "planned": job.planned,
            "elapsed": self.queue.elapsed(job),
            "left": self.queue.left(job),
            "left_of_stage": self.queue.left_of_stage(job),
            "seconds": sum(job.seconds.values()) if job.state == "done" else None,
            "expected": {quality: sum(self.queue.expected(job, quality).values()) or None for quality in self.queue.qualities},
            "scans": [
                {"name": scan.name, "problem": scan.problem, **(vars(scan.recognised) if scan.recognised else {})} for scan in job.scans
            ],
            "dicom": job.state == "done" and (job.result / DICOM).is_dir(),
            "files": _names(job.result) if job.state == "done" else [],
        }


def _names(folder: Path) -> Sequence[str]:
    """Files of a result, the enhanced scan first."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return sorted(names, key=lambda name: name != ENHANCED)


def _file(path: Path, **options: Any) -> FileResponse:
    if not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, **{"media_type": "application/octet-stream"} | options)


async def _words(request: Request) -> dict[str, Any]:
    """The JSON object of a small request.

    Raises:
        InputError: it is none, or too large.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_WORDS:
            raise InputError(f"the request is larger than {MAX_WORDS // 1024} kB; expected a few words; reload the page")
    try:
        words = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("the request is no JSON; expected an object; reload the page") from error
    if not isinstance(words, dict):
        raise InputError("the request is no JSON object; expected one; reload the page")
    return words
