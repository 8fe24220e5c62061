"""Words that are no command: one sentence on standard error, exit code 2."""

import os
import subprocess
import sys

import pytest

from dynamicdps import __version__
from dynamicdps.cli import main


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("enhance x --out o --samples nan", "--samples is 'nan'; expected a whole number; see dynamicdps enhance --help"),
        ("enhance x --out o --samples=1.5", "--samples is '1.5'; expected a whole number; see dynamicdps enhance --help"),
        ("simulate x --out o --seed one", "--seed is 'one'; expected a whole number; see dynamicdps simulate --help"),
        ("train prior x --out o --max_minutes soon", "--max-minutes is 'soon'; expected a number; see dynamicdps train prior --help"),
        ("train prior x --out o --channels a b", "--channels is 'a b'; expected whole numbers; see dynamicdps train prior --help"),
        (
            "enhance x --out o --estimate best",
            "--estimate is 'best'; expected deterministic or mean or sample; see dynamicdps enhance --help",
        ),
        ("enhance x --out", "--out has no value; expected one after it; see dynamicdps enhance --help"),
        ("enhance x", "enhance got no --out; expected --out PATH; see dynamicdps enhance --help"),
        ("enhance", "enhance got no SCAN and no --out; expected SCAN and --out PATH; see dynamicdps enhance --help"),
        (
            "enhance x --oot o",
            "enhance has no option --oot (did you mean --out?); expected one that it has; see dynamicdps enhance --help",
        ),
        (
            "enhance x --out o --sample 3",
            "enhance has no option --sample (did you mean --samples?); expected one that it has; see dynamicdps enhance --help",
        ),
        (
            "enhance --sampels 3",
            "enhance has no option --sampels (did you mean --samples?); expected one that it has; see dynamicdps enhance --help",
        ),
        ("enhance x --out o --zzz", "enhance has no option --zzz; expected one that it has; see dynamicdps enhance --help"),
        ("enhance x y --out o", "enhance does not know what 'y' is; expected no further word; see dynamicdps enhance --help"),
        ("models lst", "there is no command 'lst' (did you mean list?); expected one of list, show, add; see dynamicdps models --help"),
        (
            "train",
            "there is no command after dynamicdps train; expected one of prior, unet, esrgan, operator-fit; see dynamicdps train --help",
        ),
    ],
)
def test_sentences(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"dynamicdps: {sentence}\n"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "after dynamicdps; expected one of demo, enhance,"),
        (["enhanse"], "(did you mean enhance?)"),
        (["--device", "cpu"], "--device comes"),
    ],
)
def test_without_a_command(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


@pytest.mark.parametrize("value", ["x" * 300, "a b", "[red]", "a\nb", "né"])
def test_values_of_any_kind(value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow the terminal is, a value stands there as a whole."""
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit):
        main(["enhance", "x", "--out", "o", "--samples", value])
    assert capsys.readouterr().err == f"dynamicdps: --samples is {value!r}; expected a whole number; see dynamicdps enhance --help\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_whatever_signs_the_parser_draws_with(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dynamicdps.cli", "enhance", "x", "--oot", "o"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    said = "enhance has no option --oot (did you mean --out?); expected one that it has; see dynamicdps enhance --help"
    assert done.stderr == f"dynamicdps: {said}\n"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dynamicdps {__version__}\n"


def test_help_is_printed_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["enhance", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr()
    assert "--samples" in said.out
    assert said.err == ""
