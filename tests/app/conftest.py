"""A queue whose jobs take no time, and its page as a client sees it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dynamicdps.app.guard import Guard
from dynamicdps.app.job import Job
from dynamicdps.app.queue import JobQueue
from dynamicdps.app.server import make_app
from dynamicdps.pipeline import StudyOptions
from tests.cli.conftest import tiny_models  # noqa: F401
from tests.pipeline.conftest import poor  # noqa: F401

TOKEN, HOST = "secret-token", "127.0.0.1:8123"
ORIGIN = f"http://{HOST}"


@pytest.fixture
def options(tiny_models: tuple[str, str]) -> StudyOptions:  # noqa: F811
    """Options that take no time."""
    return StudyOptions(prior=tiny_models[0], conditional=tiny_models[1], steps=1, mask="none", settings=("start_sigma=0.05",))


@pytest.fixture
def queue(options: StudyOptions, tmp_path: Path) -> Iterator[JobQueue]:
    """A queue that is not started."""
    made = JobQueue(tmp_path / "jobs", options)
    yield made
    made.stop()


@pytest.fixture
def client(queue: JobQueue) -> TestClient:
    """A browser that has opened the page."""
    guarded = Guard(make_app(queue), TOKEN, HOST)
    return TestClient(guarded, base_url=f"{ORIGIN}/{TOKEN}/", headers={"origin": ORIGIN})


@pytest.fixture
def drop(queue: JobQueue, tmp_path: Path) -> Callable[..., list[Job]]:
    """Drop files, which are copied, on a queue."""

    def act(*files: Path) -> list[Job]:
        folder = tmp_path / "dropped"
        folder.mkdir(exist_ok=True)
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
        return queue.take(folder)[0]

    return act
