"""The package as a user gets it: the wheel, and what the bundled models promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dynamicdps.models.names import bundled
from dynamicdps.operators import preset, simulate
from dynamicdps.priors import load_prior
from dynamicdps.solvers import DynamicDPSConfig, read_start_level, solve
from dynamicdps.volumes import Volume

ROOT = Path(__file__).parents[1]


def test_bundled_models_are_small_and_complete() -> None:
    assert "brain" in bundled("prior")
    assert {"unet-iqt-in", "unet-range"} <= set(bundled("unet"))
    assert "unet-scanners" in bundled("volume-unet")
    files = list((ROOT / "src" / "dynamicdps" / "models").rglob("*"))
    assert sum(f.stat().st_size for f in files if f.is_file()) < 46e6
    assert read_start_level().source


def test_version_comes_from_one_place() -> None:
    import dynamicdps

    assert f'__version__ = "{dynamicdps.__version__}"' in (ROOT / "src" / "dynamicdps" / "__init__.py").read_text()
    assert "version =" not in (ROOT / "pyproject.toml").read_text().split("[tool.", maxsplit=1)[0]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_same_seed_same_result_for_any_batch_size(phantom: Volume, batch_size: int) -> None:
    """With the bundled prior on whole volumes: 8 slices at once, or 1 or 3 at a time."""
    scan = Volume(phantom.data[:, :, 2:10], phantom.affine)
    measurement, operator = simulate(scan, preset("iqt-out"), seed=1)
    prior = load_prior()
    config = DynamicDPSConfig(samples=2, steps=2, start_sigma=0.1)
    together, apart = (
        solve("dynamicdps", measurement, operator, prior, initial=scan, seed=4, config=config, batch_size=size) for size in (8, batch_size)
    )
    # Convolutions sum in another order for other batch sizes; that is all that may differ.
    difference = torch.from_numpy(together.volume.data - apart.volume.data).abs()
    assert difference.max() < 2e-3
    assert difference.mean() < 2e-5
    other = solve("dynamicdps", measurement, operator, prior, initial=scan, seed=5, config=config)
    assert abs(other.volume.data - together.volume.data).mean() > 20 * float(difference.mean())


@pytest.mark.slow
def test_wheel_runs_the_demo_in_an_empty_folder(tmp_path: Path) -> None:
    def call(*command: str, cwd: Path) -> None:
        subprocess.run([sys.executable, *command], cwd=cwd, check=True, timeout=1200)

    call("-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT), cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    call("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import dynamicdps; assert dynamicdps.__file__.startswith({str(site)!r}); "
        "from dynamicdps.cli import main; sys.exit(main(['demo', '--out', 'out']))"
    )
    call("-c", program, cwd=empty)
    metrics = json.loads((empty / "out" / "metrics.json").read_text())
    before, after = metrics["conditional"], metrics["dynamicdps"]
    assert after["psnr"] > before["psnr"]
    assert after["ssim"] > before["ssim"]
    assert after["data_misfit"] < before["data_misfit"]
    assert sum(map(abs, after["volume_error"].values())) < sum(map(abs, before["volume_error"].values()))
    assert after["nfe"] <= 50


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["enhance", "none.nii.gz"], 2)])
def test_the_package_runs_as_a_module(words: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-m", "dynamicdps", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
