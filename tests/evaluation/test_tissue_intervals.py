import numpy as np
import pytest

from dynamicdps.evaluation import TISSUES, dice, segment, tissue_intervals, tissue_volumes
from dynamicdps.evaluation.tissue_intervals import pair_intervals, prediction_intervals
from dynamicdps.volumes import Volume, brain_mask
from tests.properties import input_error


def test_intervals_are_of_the_samples_volumes(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    rng = np.random.default_rng(0)
    samples = [phantom.data + rng.normal(0, 0.08, phantom.shape) for _ in range(5)]
    labels = segment(phantom.data, mask)
    found = tissue_intervals(samples, mask, (1.0, 1.0, 2.0), labels, coverage=0.9)
    each = [segment(sample, mask) for sample in samples]
    for tissue in TISSUES:
        volumes = np.array([tissue_volumes(one, (1.0, 1.0, 2.0))[tissue] for one in each])
        known = tissue_volumes(labels, (1.0, 1.0, 2.0))[tissue]
        assert found.volume_mm3[tissue] == pytest.approx(volumes.mean())
        # Student's t of 4 degrees at 0.95 is 2.1318.
        half = 2.1318 * volumes.std(ddof=1) * np.sqrt(1 + 1 / 5)
        ends = np.array([volumes.mean() - half, volumes.mean() + half])
        assert found.interval_mm3[tissue] == pytest.approx(ends, rel=1e-5)
        assert found.error_interval[tissue] == pytest.approx(ends / known - 1, abs=1e-5)
        assert found.volume_error[tissue] == pytest.approx(volumes.mean() / known - 1)
        assert found.dice[tissue] == pytest.approx(np.mean([dice(one, labels)[tissue] for one in each]))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_interval_holds_one_more_sample_as_often_as_it_says(count: int) -> None:
    """Of normally distributed volumes, however few: 4000 draws, so that a share of 0.9 is right to 0.02."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(4000):
        volumes = rng.normal(1000, 50, count + 1)
        low, high = prediction_intervals([dict.fromkeys(TISSUES, float(v)) for v in volumes[1:]], 0.9, -np.inf)["gm"]
        held += low <= volumes[0] <= high
    assert held / 4000 == pytest.approx(0.9, abs=0.02)


def test_an_estimates_interval_is_around_it_and_holds_its_distance() -> None:
    """By hand: of 8 and 12 the mean is 10 and the variance 8; an estimate of 13 is 3 off; t of one degree at 0.75 is 1."""
    values = [dict.fromkeys(TISSUES, v) for v in (8.0, 12.0)]
    half = np.sqrt(8 * 1.5 + 9)
    assert prediction_intervals(values, 0.5, 0.0, dict.fromkeys(TISSUES, 13.0))["wm"] == pytest.approx((13 - half, 13 + half))
    assert prediction_intervals(values, 0.5, 0.0)["wm"] == pytest.approx((10 - np.sqrt(12), 10 + np.sqrt(12)))


def test_intervals_of_an_estimate_hold_it_with_its_error(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    rng = np.random.default_rng(0)
    samples = [phantom.data + rng.normal(0, 0.1, phantom.shape) for _ in range(3)]
    labels = segment(phantom.data, mask)
    truth = tissue_volumes(labels, phantom.spacing)
    estimate = tissue_volumes(segment(np.mean(samples, axis=0), mask), phantom.spacing)
    found = tissue_intervals(samples, mask, phantom.spacing, labels, estimate=estimate)
    for tissue in TISSUES:
        assert np.mean(found.interval_mm3[tissue]) == pytest.approx(estimate[tissue])
        assert found.interval_mm3[tissue][0] <= found.volume_mm3[tissue] <= found.interval_mm3[tissue][1]
        ends = np.array(found.interval_mm3[tissue]) / truth[tissue] - 1
        assert found.error_interval[tissue] == pytest.approx(ends)


def test_an_interval_ends_at_what_is_possible() -> None:
    low, high = prediction_intervals([dict.fromkeys(TISSUES, v) for v in (0.0, 10.0)], 0.95, 0.0)["csf"]
    assert low == 0
    assert high > 50


def test_a_painted_structure_moves_the_interval_off_the_truth(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    labels = segment(phantom.data, mask)
    rng = np.random.default_rng(0)
    samples = [phantom.data + rng.normal(0, 0.02, phantom.shape) for _ in range(4)]
    for sample in samples:
        sample[22:26, 36:40, 4:8] = 0.2
    found = tissue_intervals(samples, mask, phantom.spacing, labels)
    assert found.error_interval["csf"][0] > 0
    assert found.interval_mm3["csf"][0] > tissue_volumes(labels, phantom.spacing)["csf"]


def test_without_a_truth_there_are_volumes_only(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    found = tissue_intervals([phantom.data, phantom.data], mask, phantom.spacing)
    assert (found.volume_error, found.error_interval, found.dice) == ({}, {}, {})
    for tissue in TISSUES:
        assert found.interval_mm3[tissue] == (found.volume_mm3[tissue], found.volume_mm3[tissue])
    with input_error("there are 1 samples"):
        tissue_intervals([phantom.data], mask, phantom.spacing)


def test_intervals_are_of_95_percent_unless_another_coverage_is_asked_for(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    rng = np.random.default_rng(0)
    samples = [phantom.data + rng.normal(0, 0.08, phantom.shape) for _ in range(3)]
    wide, usual, narrow = (tissue_intervals(samples, mask, phantom.spacing, **c) for c in ({"coverage": 0.99}, {}, {"coverage": 0.5}))
    for tissue in TISSUES:
        widths = [float(np.diff(each.interval_mm3[tissue])[0]) for each in (wide, usual, narrow)]
        # Student's t of 2 degrees at 0.995, 0.975 and 0.75.
        assert np.array(widths) / widths[1] == pytest.approx([9.9248 / 4.3027, 1, 0.8165 / 4.3027], rel=1e-4)
    with input_error("intervals of 1"):
        tissue_intervals(samples, mask, phantom.spacing, coverage=1.0)
    with input_error("intervals of 0"):
        tissue_intervals(samples, mask, phantom.spacing, coverage=0.0)


def test_volumes_are_not_below_zero_nor_errors_below_minus_one(phantom: Volume) -> None:
    """Two samples that share nothing: their interval would reach far below nothing."""
    mask = brain_mask(phantom)
    labels = segment(phantom.data, mask)
    rng = np.random.default_rng(0)
    samples = [phantom.data, rng.uniform(0, 1, phantom.shape)]
    found = tissue_intervals(samples, mask, phantom.spacing, labels)
    assert min(low for low, _ in found.interval_mm3.values()) == 0
    assert min(low for low, _ in found.error_interval.values()) == -1


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("alike", [0.0, 0.6])
def test_pairs_hold_one_more_sample_at_least_as_often_as_they_say(count: int, alike: float) -> None:
    """Volumes of slices that move with the noise, neighbours alike or not, and with a part that is even in it."""
    rng = np.random.default_rng(1)
    depth = 40

    def noise() -> np.ndarray:
        fresh = rng.normal(0, 10, depth)
        for z in range(1, depth):
            fresh[z] = alike * fresh[z - 1] + np.sqrt(1 - alike**2) * fresh[z]
        return fresh

    def even(n: np.ndarray) -> np.ndarray:
        return 0.01 * (n**2 - 100)

    held = 0
    for _ in range(1500):
        draws = [noise() for _ in range(count)]
        pairs = np.stack([100 + sign * n + even(n) for n in draws for sign in (1, -1)])
        other = noise()
        low, high = pair_intervals({"gm": pairs}, 0.9, -np.inf)["gm"]
        held += low <= float((100 + other + even(other)).sum()) <= high
    assert (0.84 if alike else 0.87) <= held / 1500 <= 0.99


def test_pairs_are_of_the_samples_volumes(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    noise = np.random.default_rng(0).normal(0, 0.08, phantom.shape)
    samples = [phantom.data + noise, phantom.data - noise, phantom.data]
    labels = segment(phantom.data, mask)
    found = tissue_intervals(samples, mask, phantom.spacing, labels, pairs=True)
    for tissue in TISSUES:
        volumes = [tissue_volumes(segment(s, mask), phantom.spacing)[tissue] for s in samples[:2]]
        assert found.volume_mm3[tissue] == pytest.approx(np.mean(volumes))
        low, high = found.interval_mm3[tissue]
        assert (low + high) / 2 == pytest.approx(np.mean(volumes))
        assert high - low > abs(volumes[0] - volumes[1])
        known = tissue_volumes(labels, phantom.spacing)[tissue]
        assert found.error_interval[tissue] == pytest.approx((low / known - 1, high / known - 1))
