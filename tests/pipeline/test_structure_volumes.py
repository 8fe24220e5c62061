"""Intervals of volumes from draws of a scan and from the errors of its model."""

import numpy as np
import pytest

from dynamicdps.pipeline.structure_volumes import volume_intervals
from dynamicdps.segmentation.classes import Structure, structures
from dynamicdps.segmentation.reliability import VolumeErrors, volume_errors

COVERAGE = 0.95
LEFT, RIGHT = (s for s in structures(sided=True) if s.name == "thalamus")
(STEM,) = (s for s in structures(sided=True) if s.name == "brain stem")


def test_intervals_hold_volumes_whose_errors_are_those_of_other_heads() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        error, spread, heads, draws = 0.1, 30.0, 6, 5
        relative = float(np.sqrt(np.mean(np.square(error * rng.standard_normal(heads)))))
        truth = 1000 * (1 + error * rng.standard_normal()) + spread * rng.standard_normal()
        drawn = [{LEFT: 1000 + spread * rng.standard_normal()} for _ in range(draws)]
        (low, high) = volume_intervals({LEFT: 1000.0}, drawn, VolumeErrors({"thalamus": relative}, heads), COVERAGE)[LEFT]
        held += low <= truth <= high
    assert 0.94 < held / 2000 < 0.985


def test_errors_count_for_both_sides_and_for_the_structures_that_they_are_of() -> None:
    volumes: dict[Structure, float] = {LEFT: 1000.0, RIGHT: 2000.0, STEM: 3000.0}
    same = [volumes] * 3
    ends = volume_intervals(volumes, same, VolumeErrors({"thalamus": 0.1}, 8), COVERAGE)
    # Student's t of eight degrees is 2.306.
    assert ends[LEFT] == pytest.approx((1000 - 230.6, 1000 + 230.6), abs=0.1)
    assert ends[RIGHT] == pytest.approx((2000 - 461.2, 2000 + 461.2), abs=0.1)
    assert ends[STEM] == pytest.approx((3000, 3000))
    assert volume_intervals(volumes, same, VolumeErrors({"thalamus": 0.9}, 8), COVERAGE)[LEFT][0] == 0
    assert volume_intervals(volumes, [], VolumeErrors({"thalamus": 0.1}, 8), COVERAGE) == {}


def test_a_card_tells_the_errors_at_the_nearest_resolution() -> None:
    card = {"volume_error": {"1": {"thalamus": 0.05}, "5": {"thalamus": 0.2}}, "volume_error_maps": 12}
    assert volume_errors(card, 1.2) == VolumeErrors({"thalamus": 0.05}, 12)
    assert volume_errors(card, 3.0) == VolumeErrors({"thalamus": 0.2}, 12)
    assert volume_errors({}, 1.0).relative == {}
