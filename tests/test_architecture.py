"""What imports what, as docs/architecture.md says; the rule itself stands in pyproject.toml."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None, no_logo=True))"


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """The check with the package of ``folder/src``, in a process of its own: it puts packages on the path."""
    program = f"import sys; sys.path.insert(0, {str(folder / 'src')!r}); {CHECK}"
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120)


def test_each_package_imports_only_from_those_below_it() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("volumes/probe.py", "from dynamicdps.solvers import solve", "dynamicdps.volumes is not allowed to import dynamicdps.solvers"),
        (
            "operators/probe.py",
            "def f():\n    import dynamicdps.report.page",
            "dynamicdps.operators is not allowed to import dynamicdps.report",
        ),
        ("another/__init__.py", "", "another"),
    ],
)
def test_the_check_finds_what_breaks_the_rule(name: str, line: str, told: str, tmp_path: Path) -> None:
    for file in (ROOT / "src" / "dynamicdps").rglob("*.py"):
        copy = tmp_path / "src" / file.relative_to(ROOT / "src")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    probe = tmp_path / "src" / "dynamicdps" / name
    probe.parent.mkdir(exist_ok=True)
    probe.write_text(line + "\n")
    done = check(tmp_path)
    assert done.returncode != 0
    assert told in done.stdout + done.stderr


def test_the_page_gives_the_packages_in_the_order_of_the_rule() -> None:
    layers = re.search(r"^layers = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert layers
    names = re.findall(r'"(\w+)"', layers[1])
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert " -> ".join(reversed(names)) in page
