"""The program behind the page: a port of this machine alone, a token, the queue."""

import os
import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from dynamicdps.app.guard import Guard
from dynamicdps.app.queue import JobQueue
from dynamicdps.app.server import make_app
from dynamicdps.cohort.lock import locked
from dynamicdps.conditional import CONDITIONAL_KINDS
from dynamicdps.errors import InputError
from dynamicdps.models.model_file import read_model
from dynamicdps.pipeline import StudyOptions
from dynamicdps.pipeline.checks import check_device, check_options

HERE = "127.0.0.1"
LOCK = ".lock"
SECONDS_TO_END = 3


def default_folder() -> Path:
    """``~/.local/share/dynamicdps/jobs``, beside the user's models."""
    share = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(share).expanduser() / "dynamicdps" / "jobs"


def serve(folder: Path, options: StudyOptions, *, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Offer the page until the program is interrupted.

    Args:
        folder: of the jobs; made if it is missing, for nobody but the user.
        options: of every job; the quality is what the page offers first.
        port: of this machine; 0 for a free one.
        browser: whether to open the page.
        say: is told the address.

    Raises:
        InputError: an option is wrong, the port is taken, or the folder is another program's or cannot be written.
    """
    check_device(options.device)
    check_options(options)
    read_model(options.prior, "prior")
    read_model(options.conditional, CONDITIONAL_KINDS)
    folder = folder.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); expected a folder of yours; choose another --folder") from error
    with locked(folder / LOCK), _listening(port) as listening:
        queue = JobQueue(folder, options)
        for path in queue.unreadable:
            say(f"warning: {path} looks like a job and cannot be read; it is left as it is")
        host = f"{HERE}:{listening.getsockname()[1]}"
        token, once = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        guarded = Guard(make_app(queue), token, host, once if browser else "")
        server = uvicorn.Server(
            uvicorn.Config(
                guarded,
                log_level="warning",
                # Its lines would hold the token.
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=SECONDS_TO_END,
            )
        )
        say(f"http://{host}/{token}/\nThe page is for this machine alone; jobs are in {folder}. End with Ctrl-C.")
        if browser:
            webbrowser.open(f"http://{host}/once/{once}")
        queue.start()
        try:
            # Ctrl-C is how it ends.
            with suppress(KeyboardInterrupt):
                server.run([listening])
        finally:
            queue.stop()


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HERE, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or "it is no port"
        raise InputError(
            f"port {port} cannot be used ({reason}); expected a free one of this machine; change --port, or leave it out"
        ) from error
    return listening
