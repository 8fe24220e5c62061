import numpy as np
import pytest

from dynamicdps.evaluation import TISSUES, dice, segment, tissue_intervals, tissue_volumes
from dynamicdps.volumes import Volume, brain_mask
from tests.properties import input_error


def test_intervals_are_percentiles_of_the_samples_volumes(phantom: Volume) -> None:
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
        assert found.interval_mm3[tissue] == pytest.approx(np.percentile(volumes, [5, 95]))
        assert found.error_interval[tissue] == pytest.approx(np.percentile(volumes / known - 1, [5, 95]))
        assert found.volume_error[tissue] == pytest.approx(volumes.mean() / known - 1)
        assert found.dice[tissue] == pytest.approx(np.mean([dice(one, labels)[tissue] for one in each]))


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
