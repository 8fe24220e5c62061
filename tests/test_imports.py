"""What is loaded when, and what is installed with the package."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

# What takes a second or more to import, or belongs to some commands only.
SLOW = {
    "torch",
    "numpy",
    "scipy",
    "nibabel",
    "monai",
    "nilearn",
    "dipy",
    "matplotlib",
    "pandas",
    "sklearn",
    "safetensors",
    "jinja2",
    "dask",
}
IMPORT = "import dynamicdps"
COMMANDS = (
    *(["--help"], ["enhance", "--help"], ["train", "prior", "--help"], ["cohort", "--help"], ["nonsense"]),
    *(["enhance", "nowhere.nii.gz"], ["enhance", __file__, "--prior", "nobody"], ["evaluate", "a.nii", "--truth", "b.nii", "--out", "o"]),
)


def loaded(program: str) -> set[str]:
    """Top-level modules that a new process has loaded after a program."""
    program += "\nimport sys\nsys.stderr.write('loaded: ' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.rpartition("loaded: ")[2].split())


def command(arguments: list[str]) -> str:
    return f"from dynamicdps.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass"


def test_importing_the_package_loads_nothing_slow() -> None:
    found = loaded(IMPORT)
    assert "dynamicdps" in found
    assert not found & SLOW


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_help_and_mistyped_commands_and_names_load_nothing_slow(arguments: list[str]) -> None:
    found = loaded(command(arguments))
    assert "tyro" in found
    assert not found & SLOW


def test_what_is_loaded_is_noticed() -> None:
    assert "numpy" in loaded("import dynamicdps\nimport numpy")


def needed(name: str, extra: str = "") -> set[str]:
    """Names of all packages that pip installs with one, as the installed ones say."""
    found: set[str] = set()
    ahead = [(name, extra)]
    while ahead:
        each, wanted = ahead.pop()
        key = re.sub(r"[-_.]+", "-", each).lower()
        if key + wanted in found:
            continue
        found.add(key + wanted)
        try:
            lines = requires(each) or []
        except PackageNotFoundError:
            # Not installed: of another system, or of an extra; its name counts.
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted.strip("[]")}):
                ahead += [(requirement.name, ""), *((requirement.name, f"[{more}]") for more in requirement.extras)]
    return found


def test_torchvision_is_not_installed_with_the_package() -> None:
    found = needed("dynamicdps")
    assert {"torch", "numpy", "monai"} <= found
    assert "torchvision" not in found
    assert "torchvision" not in needed("dynamicdps", "[dev]")


def test_a_requirement_of_an_extra_would_be_found() -> None:
    assert "pydicom" in needed("dynamicdps", "[dicom]")
    assert "deepinv" in needed("dynamicdps", "[peers]")


def pinned() -> dict[str, str]:
    """Name and version of every line of constraints.txt."""
    lines = (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(str(each.specifier).startswith("==") for each in found)
    return {re.sub(r"[-_.]+", "-", each.name).lower(): str(each.specifier).removeprefix("==") for each in found}


def test_the_lock_pins_everything_that_is_installed() -> None:
    """What pip installs for the checks, and for them alone, has one version: an environment can be made again."""
    names = {name.partition("[")[0] for name in needed("dynamicdps", "[dev]")} - {"dynamicdps"}
    assert not sorted(names - pinned().keys())
