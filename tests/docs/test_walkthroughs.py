"""The pages that lead through the program, command by command, as a newcomer copies them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_code_blocks import ROOT, blocks

# Each needs the package alone: what it reads, it makes. Blocks on "your own scans" name files that are not there.
PAGES = {"quick-start.md": 5, "train-your-own-prior.md": 5}


def scripts(page: str) -> list[str]:
    """The shell blocks of a page that can be run as they stand."""
    found = [code for _, info, code in blocks((ROOT / "docs" / page).read_text(encoding="utf-8")) if info[:1] == ["sh"]]
    return [code for code in found if not re.search(r"\bscan\.nii|calibration/", code)]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_its_commands(page: str) -> None:
    assert len(scripts(page)) == PAGES[page]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_run_in_an_empty_folder(page: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for code in scripts(page):
        done = subprocess.run(
            ["sh", "-eu", "-c", code], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "out" / "report.html").is_file()
