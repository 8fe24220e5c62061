"""Least squares finds the parameters of known scanners, says how surely, and does not follow what is wrong in the image."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicdps.calibration.least_squares import Prior, fit_least_squares, profile_likelihood, with_values
from dynamicdps.operators import AnisotropicBlur, InPlaneResolution, LowField, add_noise
from dynamicdps.volumes import to_slices
from tests.conftest import make_phantom
from tests.properties import input_error

NOISE = 0.02
TRUE = LowField(gamma=0.6, in_plane_factor=1.5, blur=1.2, slice_thickness=4.0, slice_spacing=2.0)
START = LowField(gamma=1.0, in_plane_factor=1.5, blur=0.5, slice_thickness=2.5, slice_spacing=2.0)
BOUNDS = {"gamma": (0.2, 2.0), "blur": (0.0, 4.0), "slice_thickness": (1.0, 8.0)}


@pytest.fixture(scope="module")
def head() -> Tensor:
    return to_slices(make_phantom((48, 56, 16)).data).movedim(0, 1)[None]


def scan(head: Tensor, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * add_noise(TRUE(head), NOISE, [torch.Generator().manual_seed(seed)])


def test_finds_what_the_scanner_did(head: Tensor) -> None:
    fit = fit_least_squares(START, scan(head, scale=1.3), head, BOUNDS, scale=(0.2, 5.0))
    assert fit.values["gamma"] == pytest.approx(0.6, rel=0.02)
    assert fit.values["blur"] == pytest.approx(1.2, rel=0.05)
    assert fit.values["slice_thickness"] == pytest.approx(4.0, rel=0.05)
    assert fit.scale == pytest.approx(1.3, rel=0.01)
    assert fit.residual_std == pytest.approx(1.3 * 0.02, rel=0.05)
    assert isinstance(fit.operator, LowField)
    found = {name: getattr(fit.operator, name) for name in BOUNDS}
    assert found == pytest.approx({name: fit.values[name] for name in BOUNDS})
    assert not fit.warnings


def test_intervals_hold_when_the_image_is_right(head: Tensor) -> None:
    inside = []
    for seed in range(20):
        fit = fit_least_squares(START, scan(head, seed), head, BOUNDS, starts=1)
        inside.append([low <= getattr(TRUE, n) <= high for n, (low, high) in fit.intervals.items()])
    # 60 intervals of 95 %: fewer than 50 inside has a probability below 0.001.
    assert np.sum(inside) >= 50


def test_a_wrong_structure_does_not_decide(head: Tensor) -> None:
    wrong = head.clone()
    wrong[..., 20:32, 18:30] = 0.95
    robust = fit_least_squares(START, scan(head), wrong, {"gamma": (0.2, 2.0)}, fixed={"blur": 1.2, "slice_thickness": 4.0})
    assert robust.values["gamma"] == pytest.approx(0.6, rel=0.06)


def test_several_starts_find_the_same_as_a_good_one(head: Tensor) -> None:
    far = with_values(START, {"gamma": 2.0, "blur": 4.0, "slice_thickness": 8.0})
    one = fit_least_squares(START, scan(head), head, BOUNDS, starts=1)
    several = fit_least_squares(far, scan(head), head, BOUNDS, starts=3)
    for name in BOUNDS:
        assert several.values[name] == pytest.approx(one.values[name], rel=0.01)


def test_priors_pull(head: Tensor) -> None:
    free = fit_least_squares(START, scan(head), head, BOUNDS, starts=1)
    strict = fit_least_squares(START, scan(head), head, BOUNDS, starts=1, priors={"gamma": Prior(math.log(0.8), 1e-4)})
    assert strict.values["gamma"] == pytest.approx(0.8, rel=1e-3)
    loose = fit_least_squares(START, scan(head), head, BOUNDS, starts=1, priors={"gamma": Prior(math.log(0.8), 1e3)})
    assert loose.values["gamma"] == pytest.approx(free.values["gamma"], rel=1e-3)


@pytest.mark.parametrize("bounds", [(0.3, 1.0), (1.0, 1.5), (1.2, 2.0), (0.1, 0.7)])
def test_the_operators_own_value_may_lie_on_a_bound_or_beyond(bounds: tuple[float, float], head: Tensor) -> None:
    fit = fit_least_squares(START, scan(head), head, {"gamma": bounds}, fixed={"blur": 1.2, "slice_thickness": 4.0}, starts=1)
    assert bounds[0] <= fit.values["gamma"] <= bounds[1]
    assert fit.values["gamma"] == pytest.approx(min(max(0.6, bounds[0]), bounds[1]), rel=0.03)


def test_says_what_cannot_be_told(head: Tensor) -> None:
    bound = fit_least_squares(START, scan(head), head, {"gamma": (0.8, 2.0)}, fixed={"blur": 1.2, "slice_thickness": 4.0})
    assert any("stopped by its bound at 0.8" in w for w in bound.warnings)
    upper = fit_least_squares(START, scan(head), head, {"gamma": (0.2, 0.4)}, fixed={"blur": 1.2, "slice_thickness": 4.0})
    assert upper.warnings == ["gamma was stopped by its bound at 0.4"]
    flat = torch.full_like(head, 0.5)
    undetermined = fit_least_squares(START, scan(flat), flat, {"blur": (0.0, 4.0)}, starts=1, fixed={"gamma": 0.6})
    assert any("blur is not determined" in w or "bound" in w for w in undetermined.warnings)
    # Two blurs in a row: only the sum of their squares is known.
    twice = AnisotropicBlur(1.0, 1.0) @ LowField(blur=1.0)
    y = (AnisotropicBlur(1.2, 1.2) @ LowField(blur=0.8))(head)
    both = fit_least_squares(twice, y, head, {"std_x": (0.3, 3.0), "std_y": (0.3, 3.0), "blur": (0.3, 3.0)}, starts=1)
    assert abs(both.correlation("std_x", "blur")) > 0.9
    assert both.values["std_x"] ** 2 + both.values["blur"] ** 2 == pytest.approx(1.2**2 + 0.8**2, rel=0.05)


def test_profile_is_lowest_at_the_truth(head: Tensor) -> None:
    profile = profile_likelihood(START, scan(head), head, "blur", [0.4, 1.2, 2.0], BOUNDS)
    assert [round(p[0], 1) for p in profile] == [0.4, 1.2, 2.0]
    assert profile[1][1] < min(profile[0][1], profile[2][1])
    assert set(profile[1][2]) == {"gamma", "slice_thickness"}


def test_a_composition_s_part(head: Tensor) -> None:
    chain = InPlaneResolution(2.0) @ LowField(gamma=1.0)
    y = (InPlaneResolution(2.0) @ LowField(gamma=0.7))(head)
    fit = fit_least_squares(chain, y, head, {"gamma": (0.2, 2.0)})
    assert fit.values["gamma"] == pytest.approx(0.7, rel=1e-3)
    assert str(fit.operator).startswith("InPlaneResolution")


def test_bad_input(head: Tensor) -> None:
    y = scan(head)
    with input_error("'gama'"):
        fit_least_squares(START, y, head, {"gama": (0.2, 2.0)})
    with input_error("bounds"):
        fit_least_squares(START, y, head, {"gamma": (2.0, 0.2)})
    with input_error("bounds"):
        fit_least_squares(START, y, head, {})
    with input_error("shape"):
        fit_least_squares(START, y[..., 1:], head, BOUNDS)
    with input_error("2 parts"):
        with_values(LowField() @ LowField(), {"gamma": 0.5})
