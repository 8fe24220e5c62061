"""Wheel and sdist: what is in them, and that the wheel works where nothing else of the repository is."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODELS = "dynamicdps/models"

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a program that must succeed, with no package of this environment on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of wheel and sdist: what `make dist` has built, or built here."""
    if "DYNAMICDPS_DIST" in os.environ:
        return Path(os.environ["DYNAMICDPS_DIST"])
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def test_wheel_holds_the_package_its_models_and_licenses(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = ROOT / "src"
    wanted = {str(f.relative_to(source)) for f in (source / "dynamicdps").rglob("*") if f.is_file() and "__pycache__" not in f.parts}
    (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert {name for name in names if not name.startswith(info)} == wanted
    assert "dynamicdps/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    weights = {name for name in names if name.endswith(".safetensors")}
    assert {Path(name).stem for name in weights} >= {"brain", "unet-iqt-in", "unet-range", "esrgan-iqt-in", "operator-fit"}
    assert {name.replace(".safetensors", ".json") for name in weights} <= names
    scans = {name for name in names if name.endswith((".nii", ".nii.gz", ".dcm", ".mgz", ".h5", ".npz"))}
    assert scans == {f"{MODELS}/demo/colin27_slab_T1w.nii.gz"}


def test_sdist_holds_what_the_wheel_and_the_checks_need_and_no_scan(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "Makefile", "constraints.txt", "docs/conf.py", "tests/conftest.py"} <= names
    assert "src/dynamicdps/py.typed" in names
    scans = {name for name in names if name.endswith((".nii", ".nii.gz", ".dcm", ".mgz", ".h5", ".npz"))}
    assert scans == {f"src/{MODELS}/demo/colin27_slab_T1w.nii.gz"}
    assert not {name for name in names if name.startswith(("build/", "runs/", "demo-out/", ".venv/"))}


def test_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are those of this environment; DYNAMICDPS_FRESH=1 lets pip install them, which takes minutes."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    fresh = os.environ.get("DYNAMICDPS_FRESH") == "1"
    constraints = ["-c", str(ROOT / "constraints.txt")] if fresh else ["--no-deps"]
    run(scripts / "python", "-m", "pip", "install", "--quiet", *constraints, wheel, cwd=tmp_path)
    site = Path(run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=tmp_path).strip())
    if not fresh:
        # After the wheel's own folder, and plainly: an editable install's link to the sources is not followed.
        (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    where = run(scripts / "python", "-c", "import dynamicdps; print(dynamicdps.__file__)", cwd=tmp_path)
    assert str(site) in where
    assert "enhance" in run(scripts / "dynamicdps", "--help", cwd=tmp_path)
    program = "import dynamicdps; print(dynamicdps.demo_scan())"
    scan = run(scripts / "python", "-c", program, cwd=tmp_path).strip()
    run(scripts / "dynamicdps", "simulate", scan, "--out", "poor.nii.gz", cwd=tmp_path)
    assert (tmp_path / "poor.operator.json").is_file()
    run(scripts / "dynamicdps", "enhance", "poor.nii.gz", "--out", "out", "--solver", "data-step", cwd=tmp_path)
    assert (tmp_path / "out" / "report.html").is_file()
