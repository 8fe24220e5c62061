"""Tiny models, and a scan with its operator beside it."""

from pathlib import Path
from typing import Any

import pytest

from dynamicdps.operators import preset, simulate
from tests.cli.conftest import tiny_models  # noqa: F401
from tests.conftest import make_phantom


@pytest.fixture
def poor(tmp_path: Path) -> Path:
    """A simulated scan of 12 x 14 x 12 voxels."""
    measurement, operator = simulate(make_phantom(), preset("iqt-out"), seed=0)
    operator.save(tmp_path / "low" / "poor.operator.json")
    return measurement.save(tmp_path / "low" / "poor.nii.gz")


@pytest.fixture
def quick(tiny_models: tuple[str, str]) -> dict[str, Any]:  # noqa: F811
    """Options that take no time."""
    return {"prior": tiny_models[0], "conditional": tiny_models[1], "samples": 2, "steps": 1, "start_sigma": 0.05, "mask": "none"}
