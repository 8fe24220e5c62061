"""What the README and docs show runs.

Python blocks of one file run in order in one namespace and in an empty folder that holds a phantom, ``scan.nii.gz``; blocks
fenced as ``python no-run`` are only compiled. Of the shell blocks, each line that calls `dynamicdps` must name a command and
options that exist.
"""

import re
import shlex
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dynamicdps.operators import registry
from dynamicdps.solvers import registry as solver_registry
from dynamicdps.volumes import Volume

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)
SHELLS = {"console", "sh", "bash", "shell"}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(text: str) -> Iterator[tuple[int, list[str], str]]:
    """Line number, words after the fence and code of each fenced block."""
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield line, match["info"].split(), textwrap.dedent(match["code"])


def commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and words of each call of `dynamicdps` or `dynamicdps-bids` in shell blocks."""
    for line, info, code in blocks(text):
        if not info or info[0] not in SHELLS:
            continue
        joined = code.replace("\\\n", "  ")
        for row in joined.splitlines():
            call = row.strip().removeprefix("$ ")
            if call.startswith(("dynamicdps ", "dynamicdps-bids ")):
                yield line, shlex.split(re.split(r"\s[|>&;]", call)[0], comments=True)


@each_file
def test_python_blocks_run(path: Path, phantom: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom.save(tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    # What a document registers is its own: other tests try all that the package has.
    monkeypatch.setattr(registry, "_OPERATORS", dict(registry._OPERATORS))
    monkeypatch.setattr(solver_registry, "_SOLVERS", dict(solver_registry._SOLVERS))
    namespace: dict[str, Any] = {"__name__": path.stem}
    for line, info, code in blocks(path.read_text(encoding="utf-8")):
        if info[:1] == ["python"]:
            # Blank lines before the code: a traceback shows the line of the document.
            compiled = compile("\n" * (line - 1) + code, str(path), "exec")
            if "no-run" not in info:
                exec(compiled, namespace)


@cache
def help_of(program: str, words: tuple[str, ...]) -> str | None:
    """What ``PROGRAM WORDS --help`` prints; `None` where there is no such command."""
    import contextlib
    import io

    from dynamicdps.cli import main, main_bids

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        try:
            code: Any = (main if program == "dynamicdps" else main_bids)([*words, "--help"])
        except SystemExit as stop:
            code = stop.code
    return printed.getvalue() if code in (0, None) else None


@each_file
def test_commands_and_options_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for line, words in commands(path.read_text(encoding="utf-8")):
        where = f"{path.name}, block at line {line}: {' '.join(words)}"
        # The BIDS App has no commands.
        named = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word) and words[0] == "dynamicdps"]
        known = help_of(words[0], tuple(named[:1]))
        assert known is not None, f"no such command: {where}"
        # The second word may be a command below the first (train prior) or an argument.
        known += help_of(words[0], tuple(named)) or ""
        for word in words[1:]:
            option = re.match(r"--[a-z-]+", word.replace("_", "-"))
            if option:
                assert re.search(rf"{re.escape(option[0])}(?![a-z-])", known), f"no such option {option[0]}: {where}"


def test_the_reader_of_documents() -> None:
    text = textwrap.dedent("""
        Words
        ```python
        x = 1
        ```
        - a list
          ```python no-run
          y = x
          ```
        ```console
        $ dynamicdps enhance scan.nii.gz \\
            --out "my folder"  # a remark
        $ dynamicdps demo | tail
        done
        ```
        ```
        dynamicdps nothing
        ```
    """)
    assert [(line, info) for line, info, _ in blocks(text)] == [(4, ["python"]), (8, ["python", "no-run"]), (11, ["console"]), (17, [])]
    assert [code for _, info, code in blocks(text) if "no-run" in info] == ["y = x\n"]
    assert [words for _, words in commands(text)] == [
        ["dynamicdps", "enhance", "scan.nii.gz", "--out", "my folder"],
        ["dynamicdps", "demo"],
    ]
