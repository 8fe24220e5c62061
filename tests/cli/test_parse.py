"""Words that are no command: one sentence on standard error, exit code 2."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicdps import __version__
from dynamicdps.cli import main
from dynamicdps.cli.commands import Cohort
from dynamicdps.cli.parse import DYNAMICDPS, DYNAMICDPS_BIDS, Program, read_command
from dynamicdps.cli.registry import chosen
from dynamicdps.errors import InputError


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
        ("sample", "sample got no --out; expected --out PATH; see dynamicdps sample --help"),
        ("enhance", "enhance got no SCAN; expected SCAN...; see dynamicdps enhance --help"),
        ("simulate", "simulate got no SCAN and no --out; expected SCAN and --out PATH; see dynamicdps simulate --help"),
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
        ("simulate x y --out o", "simulate does not know what 'y' is; expected no further word; see dynamicdps simulate --help"),
        ("models lst", "there is no command 'lst' (did you mean list?); expected one of list, show, add; see dynamicdps models --help"),
        (
            "train",
            "there is no command after dynamicdps train; expected one of prior, unet, esrgan, segmenter, operator-fit; "
            "see dynamicdps train --help",
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


def test_what_the_parser_says_does_not_matter(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        sys.stderr.write("another box of another version")
        raise SystemExit(2)

    monkeypatch.setattr("tyro.cli", refused)
    for words, sentence in (
        ("cohort x y --sed 1", "cohort has no option --sed (did you mean --seed or --set?); expected one that it has"),
        ("cohort x y --dry-run yes --workers a", "--workers is 'a'; expected a whole number"),
        ("cohort x", "cohort got no OUT; expected OUT"),
        ("enhance --samples -1 --set a=1 b=2 --out o", "enhance got no SCAN; expected SCAN..."),
        ("rerun r.json", "rerun cannot be read from 'r.json'; expected other words"),
    ):
        with pytest.raises(SystemExit):
            main(words.split())
        assert capsys.readouterr().err == f"dynamicdps: {sentence}; see dynamicdps {words.split()[0]} --help\n"


@pytest.mark.parametrize(
    ("command", "program", "option", "values", "field"),
    [
        ("enhance x", DYNAMICDPS, "--set", ["steps=10", "eta=0.5", "chunk=2"], "settings"),
        ("cohort x y", DYNAMICDPS, "--set", ["steps=10", "eta=0.5", "chunk=2"], "settings"),
        ("app", DYNAMICDPS, "--set", ["steps=10", "eta=0.5", "chunk=2"], "settings"),
        ("x y participant", DYNAMICDPS_BIDS, "--set", ["steps=10", "eta=0.5", "chunk=2"], "settings"),
        ("x y participant", DYNAMICDPS_BIDS, "--participant_label", ["01", "02", "sub-03"], "participant_label"),
        ("calibrate operator x --out o.json", DYNAMICDPS, "--known", ["gamma=1", "blur=0"], "known"),
        ("cohort x y", DYNAMICDPS, "--subject", ["01", "02", "03"], "subject"),
    ],
)
def test_values_of_an_option_come_together_or_one_by_one(
    command: str, program: Program, option: str, values: list[str], field: str
) -> None:
    """None is lost, whichever way they are given; their order stays."""
    ways = [[option, *values], [word for value in values for word in (option, value)], [f"{option}={value}" for value in values]]
    ways.append([option, *values[:-1], "--seed", "3", option, values[-1]] if "calibrate" not in command else ways[0])
    for way in ways:
        assert list(getattr(chosen(read_command([*command.split(), *way], program)), field)) == values


def test_directives_of_jobs_that_look_like_options() -> None:
    words = ["cohort", "x", "y", "--job-directive=--gres=gpu:1", "--job-directive=--account=brain"]
    command = read_command(words)
    assert isinstance(command, Cohort)
    assert command.job_directive == ("--gres=gpu:1", "--account=brain")


FLAGS = ("--out", "--samples", "--seed", "--set", "--channels", "--dry-run", "--no-resume", "--oot", "-x", "--samples=", "--")
WORDS = st.sampled_from(["enhance", "train", "prior", "cohort", "models", *FLAGS]) | st.text(max_size=3)


@given(st.lists(WORDS, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_words_give_one_sentence_or_a_command(words: list[str]) -> None:
    said = ""
    try:
        assert read_command(words) is not None
    except InputError as error:
        said = str(error)
    assert not said or ("expected" in said and "see dynamicdps" in said)


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
