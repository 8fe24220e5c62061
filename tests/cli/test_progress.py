"""What is shown of a run's progress in a log file, where no bar can move."""

import re
from itertools import pairwise

import pytest
from rich.console import Console

from dynamicdps.cli import progress
from dynamicdps.cli.progress import LINE_SECONDS, progress_bar, stage_bars


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_every_stage_is_a_line_with_the_time_that_is_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with stage_bars("dynamicdps", "steps") as display:
        display("open", 0, 1)
        display("open", 1, 1)
        display.expected = {"initial": 60, "solve": 600, "volumes": 120, "write": 60}
        for stage in ("prepare", "initial"):
            display(stage, 0, 1)
            clock[0] += 30
            display(stage, 1, 1)
        clock[0] += 300
        display("solve", 5, 10)
        display("volumes", 0, 1)
        display("volumes", 1, 1)
    assert lines(capsys) == [
        "0:00:00 reading the scan and finding the brain",
        "0:00:30 scanner and initial image, about 14 minutes left",
        "0:01:00 solving, about 13 minutes left",
        "0:06:00 dynamicdps 5/10 steps, about 8 minutes left",
        "0:06:00 tissue volumes, about 3 minutes left",
        "0:06:00 maps and files, about 60 seconds left",
    ]


def test_without_an_estimate_stages_say_nothing_of_time(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with stage_bars("tv", "steps") as display:
        display("initial", 0, 1)
        clock[0] += 3700
        display("initial", 1, 1)
    assert lines(capsys) == ["0:00:00 scanner and initial image", "1:01:40 solving"]


def test_lines_are_some_seconds_apart_and_the_last_one_comes_in_any_case(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    times = []
    with progress_bar("sample", "images") as bar:
        for done in range(1, 101):
            clock[0] += LINE_SECONDS / 4
            bar(done, 100, "[odd] note")
    for line in lines(capsys):
        found = re.fullmatch(r"0:(\d\d):(\d\d) sample (\d+)/100 images, \[odd\] note(, about .* left)?", line)
        assert found, line
        times.append(60 * int(found[1]) + int(found[2]))
    assert times[-1] == pytest.approx(25 * LINE_SECONDS, abs=1)
    assert min(b - a for a, b in pairwise(times[:-1])) >= LINE_SECONDS - 1
    assert 20 <= len(times) <= 27


def test_the_rate_leaves_out_the_first_part(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """It prepares what all later ones use."""
    with progress_bar("train", "steps") as bar:
        for seconds, done in ((1000, 1), (60, 2), (60, 3)):
            clock[0] += seconds
            bar(done, 13)
    assert lines(capsys)[-1].endswith("train 3/13 steps, about 10 minutes left")


def test_on_a_terminal_bars_and_words_come_and_go(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("console", "out"):
        monkeypatch.setattr(progress, name, Console(stderr=name == "console", force_terminal=True, width=100))
    with stage_bars("dynamicdps", "steps") as display:
        for stage, done in (("open", 0), ("open", 1), ("initial", 0), ("initial", 1), ("solve", 1), ("volumes", 0), ("volumes", 1)):
            display(stage, done, 1)
    shown = capsys.readouterr()
    assert not shown.out
    for words in ("finding the brain", "solving", "1/1", "tissue volumes", "maps and files"):
        assert words in shown.err
