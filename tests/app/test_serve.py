"""What `dynamicdps app` refuses before it offers anything."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn

from dynamicdps.app.serve import default_folder, serve
from dynamicdps.cli import main
from dynamicdps.cohort.lock import locked
from dynamicdps.pipeline import StudyOptions


@pytest.fixture(autouse=True)
def nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not refused would be offered for ever."""
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_: pytest.fail("the page is offered"))


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["app", "--no-browser", *words]) == 2
    said = capsys.readouterr()
    assert not said.out
    return said.err


def test_one_program_at_a_time_uses_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / ".lock"):
        assert f"process {os.getpid()}" in refused(["--folder", str(tmp_path)], capsys)


def test_a_port_that_is_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} cannot be used" in refused(["--folder", str(tmp_path / "jobs"), "--port", str(port)], capsys)
    assert "port 70000 cannot be used" in refused(["--folder", str(tmp_path / "jobs"), "--port", "70000"], capsys)


def test_the_folder_is_for_its_owner_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["--folder", str(tmp_path / "new" / "jobs"), "--port", "70000"], capsys)
    assert (tmp_path / "new" / "jobs").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--folder", "{tmp}/file/jobs"], "cannot write into"),
        (["--device", "tpu"], "there is no device 'tpu'"),
        (["--solver", "magic"], "there is no solver 'magic'"),
        (["--prior", "{tmp}/missing.safetensors"], "missing.safetensors"),
        (["--operator", "{tmp}/missing.json"], "missing.json"),
        (["--seed", "-1"], "--seed is -1"),
    ],
)
def test_what_no_job_could_do_is_refused_at_once(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert told in refused([word.replace("{tmp}", str(tmp_path)) for word in words], capsys)
    assert not (tmp_path / "share").exists()


def test_a_browser_is_started_without_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others can see the words that it is started with."""
    said: list[str] = []
    opened: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_: None)
    monkeypatch.setattr("webbrowser.open", opened.append)
    for browser in (False, True):
        serve(tmp_path / "jobs", StudyOptions(), port=0, browser=browser, say=said.append)
    addresses = [each.splitlines()[0] for each in said]
    tokens = [address.split("/")[3] for address in addresses]
    assert all(address.startswith("http://127.0.0.1:") and len(token) >= 32 for address, token in zip(addresses, tokens, strict=True))
    assert tokens[0] != tokens[1]
    (one,) = opened
    assert one.startswith(addresses[1].removesuffix(f"{tokens[1]}/") + "once/")
    assert tokens[1] not in one


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_how_to_get_it(name: str) -> None:
    program = f"import sys; sys.modules[{name!r}] = None; from dynamicdps.cli import main; sys.exit(main(['app']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == f"dynamicdps: the page needs {name}; expected it to be installed; run: pip install 'dynamicdps[app]'\n"


def test_jobs_lie_beside_the_users_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_folder() == Path("/data/dynamicdps/jobs")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_folder() == Path.home() / ".local/share/dynamicdps/jobs"
