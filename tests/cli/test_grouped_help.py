"""The help of enhance: everything it can be asked for, once, on two screens."""

import re
from dataclasses import dataclass, fields

import pytest

from dynamicdps.cli import main
from dynamicdps.cli.commands import Enhance
from dynamicdps.cli.grouped_help import GROUPS, grouped_help

SCREEN = 40


def shown(capsys: pytest.CaptureFixture[str], words: list[str]) -> list[str]:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("words", [["enhance", "--help"], ["enhance", "scan.nii.gz", "--samples", "2", "-h"]])
def test_two_screens_with_the_most_used_first(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = shown(capsys, words)
    assert len(lines) <= 2 * SCREEN
    assert max(map(len, lines)) <= 100
    first = "\n".join(lines[:SCREEN])
    assert all(flag in first for flag in ("--out", "--quality", "--operator", "--mask", "--precision"))


def test_every_option_is_there_once(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [found[1] for line in shown(capsys, ["enhance", "--help"]) if (found := re.match(r"  --([a-z-]+) ", line + " "))]
    expected = {known.name.replace("_", "-") for known in fields(Enhance)} - {"scan", "settings"} | {"set"}
    assert sorted(flags) == sorted(expected)


def test_a_narrow_terminal_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = grouped_help(Enhance, "dynamicdps enhance").splitlines()
    assert max(len(line) for line in lines if not line.startswith("  --")) <= 60


def test_an_option_without_a_group_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Newer(Enhance):
        colour: str = "grey"
        """What it looks like."""

    monkeypatch.setitem(GROUPS, Newer, GROUPS[Enhance])
    text = grouped_help(Newer, "dynamicdps enhance")
    assert text.endswith("further:\n  --colour WORD                What it looks like. Default: grey.\n")
