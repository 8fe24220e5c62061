"""Fixtures of all tests: a phantom, a tiny network, the folder of real scans."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from dynamicdps.networks import NeighbourConfig, NetworkConfig
from dynamicdps.volumes import Volume
from tests.golden import Golden

os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(1)

CSF, GREY, WHITE = 0.2, 0.6, 0.9


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write golden numbers instead of comparing with them (tests/golden.py)")


def make_phantom(
    shape: tuple[int, int, int] = (48, 56, 12), spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), seed: int = 0
) -> Volume:
    """A skull-stripped head of ellipsoids: CSF around grey around white matter, two ventricles, a smooth texture, background 0."""
    axes = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 0.85) ** 2 + (y / 0.9) ** 2 + (z / 1.8) ** 2)
    folds = 0.05 * np.cos(9 * np.arctan2(y, x))
    data = np.select([radius < 0.65 + folds, radius < 0.88, radius < 1], [WHITE, GREY, CSF], 0.0)
    for side in (-1, 1):
        data[((x - side * 0.15) / 0.09) ** 2 + ((y + 0.05) / 0.3) ** 2 + (z / 1.2) ** 2 < 1] = CSF
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    data = np.where(data > 0, data + 0.02 * texture / texture.std(), 0)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    return Volume(data.astype(np.float32), affine)


@pytest.fixture
def phantom() -> Volume:
    """48 x 56 x 12 voxels of 1 mm, centred on the origin, about [0, 1]."""
    return make_phantom()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tiny_network() -> NetworkConfig:
    """The smallest network that has every kind of layer."""
    return NetworkConfig(channels=(16, 32), residual_blocks=(1, 1), attention=(False, False), norm_groups=8)


@pytest.fixture
def tiny_prior() -> NeighbourConfig:
    """The smallest network of windows that has every kind of layer."""
    return NeighbourConfig(3, 1, channels=(16, 32), residual_blocks=(1, 1), attention=(False, False), norm_groups=8, unshuffle=2)


@pytest.fixture
def scan_files(tmp_path: Path) -> list[Path]:
    """Three phantoms on disk, of two sizes."""
    shapes = [(48, 56, 12), (40, 48, 10), (48, 56, 12)]
    return [make_phantom(shape, seed=i).save(tmp_path / f"scans/sub-{i}.nii.gz") for i, shape in enumerate(shapes)]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The golden numbers beside the test's file."""
    return Golden(request.path.with_name("golden.json"), bool(request.config.getoption("--write-golden")))


@pytest.fixture(scope="session")
def real_scans() -> Path:
    """Folder of real scans: ``DYNAMICDPS_DATA``, or ``../shared/data`` beside the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DYNAMICDPS_DATA", default))
    if not folder.is_dir():
        pytest.skip("there is no folder of real scans; name one by the environment variable DYNAMICDPS_DATA")
    return folder
