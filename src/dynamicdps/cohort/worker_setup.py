"""What each local worker does first; Dask calls it."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the client: it ends the workers in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
