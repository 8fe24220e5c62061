"""The time that is promised is the work that is done, counted, times what a part of it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dynamicdps as dd
from dynamicdps.pipeline.cost import (
    CONDITIONAL,
    FILES,
    FIT,
    STRUCTURES,
    TISSUES,
    Pace,
    Work,
    image_shape,
    measure_pace,
    quicker,
    stage_seconds,
    work_of,
)
from dynamicdps.priors import load_prior
from dynamicdps.solvers import make_config
from dynamicdps.volumes import swap_axes
from tests.conftest import make_phantom

PACE = Pace(denoiser_pass=3.0, data_step=0.5, smoothing=0.01)


def test_stages_are_counts_times_seconds() -> None:
    found = stage_seconds(Work(megavoxels=2.0, passes=10, data_steps=12, segmented=4), PACE)
    assert found == pytest.approx(
        {
            "initial": 2.0 * (CONDITIONAL + FIT) * 0.01,
            "solve": 2.0 * (10 * 3.0 + 12 * 0.5),
            "volumes": 2.0 * 4 * TISSUES * 0.01,
            "write": 2.0 * FILES * 0.01,
        }
    )


def test_what_is_given_costs_nothing_and_twice_the_image_costs_twice() -> None:
    given = stage_seconds(Work(2.0, 10, 12, 4, conditional=False, fitted=False), PACE)
    assert given["initial"] == 0.0
    whole = stage_seconds(Work(2.0, 10, 12, 4, whole=True), PACE)
    assert whole["volumes"] == pytest.approx(2.0 * (4 * TISSUES + STRUCTURES) * 0.01)
    once, twice = (stage_seconds(Work(size, 10, 12, 4), PACE) for size in (2.0, 4.0))
    assert {name: 2 * seconds for name, seconds in once.items()} == pytest.approx(twice)


@pytest.mark.parametrize(
    "options",
    [{"samples": 3, "steps": 2}, {"samples": 1, "steps": 3}, {"samples": 2, "steps": 2, "estimate": "sample"}, {"quality": "fast"}],
)
def test_passes_and_voxels_are_those_of_the_run(poor: Path, quick: dict[str, Any], options: dict[str, Any]) -> None:
    values = {**quick, **options}
    if "quality" in options:
        del values["samples"]
    result = dd.enhance(poor, **values)
    chosen = {name: values[name] for name in ("samples", "steps", "estimate") if name in values}
    config = make_config("dynamicdps", chosen)
    work = work_of(
        image_shape(dd.load(poor), result.operator), quicker(config) if "quality" in options else config, conditional=True, fitted=False
    )
    assert work is not None
    assert work.passes == result.result.nfe
    assert work.megavoxels == pytest.approx(result.initial.data.size / 1e6)
    assert work.segmented == 2 + (chosen["samples"] if chosen.get("samples", 1) > 1 else 0)


def test_the_image_of_a_scan_that_is_fitted_is_known_beforehand(poor: Path, quick: dict[str, Any]) -> None:
    scan = dd.load(poor)
    assert image_shape(scan, None) == dd.enhance(scan.with_data(scan.data), **quick).initial.shape
    thick = make_phantom((30, 40, 8), (1.6, 1.6, 5.0))
    assert image_shape(thick, None) == (48, 64, 40)
    assert image_shape(swap_axes(thick, 0), None) == (40, 64, 48)


@pytest.mark.parametrize(("solver", "settings"), [("dps", {}), ("tv", {}), ("dynamicdps", {"gradient": "network"})])
def test_nothing_is_promised_of_other_solvers(solver: str, settings: dict[str, Any]) -> None:
    assert work_of((8, 8, 8), make_config(solver, settings), conditional=True, fitted=True) is None


def test_the_pace_is_positive_and_leaves_random_numbers_alone(tiny_models: tuple[str, str]) -> None:
    scan = make_phantom((24, 28, 6), (2.0, 2.0, 4.0))
    prior = load_prior(tiny_models[0])
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    pace = measure_pace(prior, scan, image_shape(scan, None), 8)
    assert min(pace.denoiser_pass, pace.data_step, pace.smoothing) > 0
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
