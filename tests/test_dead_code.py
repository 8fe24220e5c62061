"""No function, class, attribute or import that nothing uses; pyproject.toml names what only libraries or templates use."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Of vulture: 0 nothing found, 3 dead code.
RAN = {0, 3}


def unused(*paths: str | Path) -> list[str]:
    """What vulture reports of paths, of those in pyproject.toml without any."""
    done = subprocess.run([sys.executable, "-m", "vulture", *map(str, paths)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode in RAN, done.stderr
    return done.stdout.splitlines()


def test_everything_is_used() -> None:
    # Tests set attributes for others to read (of DICOM files, of parsers); what they do not use themselves is no matter.
    assert [line for line in unused() if not line.startswith("tests")] == []


def test_a_function_that_nothing_uses_is_found(tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text("def used() -> int:\n    return 1\n\n\ndef forgotten() -> int:\n    return used()\n")
    (line,) = unused(probe)
    assert "unused function 'forgotten'" in line
