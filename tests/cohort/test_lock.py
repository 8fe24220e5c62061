"""One run at a time."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dynamicdps.cohort.lock import HOLDER, locked
from dynamicdps.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from dynamicdps.cohort.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_a_dead_ones_lock_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / ".cohort"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid} on .* is working in"), locked(folder):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (folder / HOLDER).exists()
        with locked(folder):
            pass
        assert not (folder / HOLDER).exists()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_run_on_another_machine_is_a_persons_to_judge(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text(json.dumps({"host": "elsewhere", "process": 7}))
    with pytest.raises(InputError, match=r"process 7 on elsewhere.*delete"), locked(tmp_path):
        pass
    (tmp_path / HOLDER).unlink()
    with locked(tmp_path):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass
