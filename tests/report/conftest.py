"""A report that holds everything, made once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.evaluation import evaluate_volume, residual_map
from dynamicdps.operators import LowField, ScanOperator, simulate
from dynamicdps.report import Facts, Report, Stage, write_report
from dynamicdps.solvers import read_start_level
from dynamicdps.volumes import IntensityScale
from tests.conftest import make_phantom


@pytest.fixture(scope="session")
def report() -> Report:
    """Everything that a report can hold, of a phantom that lies off the grid's centre."""
    phantom = make_phantom()
    measurement, operator = simulate(phantom, ScanOperator(LowField(gamma=0.7, in_plane_factor=2.0, slice_thickness=3.0), 0.03))
    noise = np.random.default_rng(0).standard_normal(phantom.shape)
    scale = IntensityScale(1.0)
    conditional, enhanced = (phantom.with_data(phantom.data + std * noise) for std in (0.05, 0.02))
    numbers = [evaluate_volume(v, phantom, scale, measurement, operator) for v in (conditional, enhanced)]
    return Report(
        title="sub-01",
        stages=[
            Stage("initial image", conditional, numbers[0]),
            Stage("enhanced", enhanced, replace(numbers[1], nfe=14, nbackward=0, start_sigma=0.1, seconds=3.25), {"psnr": (30.0, 36.5)}),
        ],
        warnings=["The scan is noisier than the prior's."],
        truth=phantom,
        measurement=measurement,
        residual=residual_map(enhanced, measurement, operator, scale),
        uncertainty=phantom.with_data(np.abs(noise) * 0.01),
        hallucination=phantom.with_data(np.roll(noise, 5, axis=0) * 0.02),
        trace=[{"step": float(i), "sigma": 0.1 * 0.5**i, "misfit": 1 + 40 * 0.3**i, "step_length": 0.5} for i in range(6)],
        starts=[{"image": float(i), "excess_misfit": 0.01 + 0.002 * i, "start_sigma": 0.1 + 0.01 * i} for i in range(12)],
        start_rule=read_start_level(),
        steps=["Measured.", "Enhanced."],
        facts=[Facts("Operator", [("gamma", "0.7")])],
        command="dynamicdps demo --seed 0",
        scale=scale,
    )


@pytest.fixture(scope="session")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page."""
    return write_report(tmp_path_factory.mktemp("report") / "new/folder", report)
