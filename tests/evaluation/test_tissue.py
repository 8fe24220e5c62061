import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dynamicdps.evaluation import TISSUES, dice, segment, tissue_volumes, volume_errors
from dynamicdps.evaluation.tissue import is_cut_off
from dynamicdps.volumes import Volume, brain_mask, load
from tests.properties import input_error

SHAPE = (40, 44, 16)


def shells(noise: float = 0.03, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """White matter in grey matter in CSF, with noise; the brain mask and the true labels."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum(u**2 for u in grid))
    labels = np.select([radius < 0.6, radius < 0.8, radius < 0.95], [3, 2, 1], 0)
    data = np.array([0.0, 0.2, 0.55, 0.85])[labels] + noise * np.random.default_rng(seed).standard_normal(SHAPE)
    mask = labels > 0
    return np.where(mask, data, 0).astype(np.float32), mask, labels


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.08])
def test_known_volumes_within_two_percent(noise: float) -> None:
    data, mask, truth = shells(noise)
    found = tissue_volumes(segment(data, mask), (1, 1, 1))
    known = tissue_volumes(truth.astype(np.uint8), (1, 1, 1))
    assert all(abs(error) < 0.02 for error in volume_errors(found, known).values())


@pytest.mark.parametrize(("n_classes", "beta"), [(3, 0.1), (3, 0.5), (2, 0.2), (4, 0.0)])
def test_classes_are_those_of_dipys_model(n_classes: int, beta: float) -> None:
    """What `segment` ends with is a fixed point of dipy's observation model and iterated conditional modes."""
    from dipy.segment.mrf import ConstantObservationModel, IteratedConditionalModes

    data, mask, _ = shells(0.1)
    labels = segment(data, mask, n_classes, beta=beta, max_iter=500)
    classes = np.full(mask.shape, n_classes, dtype=np.int16)
    classes[mask] = labels[mask] - 1
    image = np.where(mask, (data - data[mask].mean()) / data[mask].std(), 0).astype(np.float64)
    observation, modes = ConstantObservationModel(), IteratedConditionalModes()
    means = np.array([image[classes == k].mean() for k in range(n_classes)])
    variance = float(np.mean((image[mask] - means[classes[mask]]) ** 2))
    for _ in range(100):
        cost = observation.negloglikelihood(image, means, np.full(n_classes, variance), n_classes)
        share = modes.prob_neighborhood(classes, beta, n_classes)[mask] * np.exp(-(cost[mask] - cost[mask].min(1, keepdims=True)))
        share /= share.sum(1, keepdims=True)
        means = share.T @ image[mask] / share.sum(0)
        variance = float((share * (image[mask][:, None] - means) ** 2).sum() / mask.sum())
    cost = observation.negloglikelihood(image, means, np.full(n_classes, variance), n_classes)
    proposed, _ = modes.icm_ising(cost, beta, classes)
    assert (proposed != classes)[mask].mean() < 2e-3


def test_a_brain_that_leaves_the_grid_is_cut_off() -> None:
    """A ball of radius 8 in a box that ends at its centre, touches its surface, or meets a cap of a twentieth of its widest cut."""
    x, y, z = np.indices((21, 21, 21)) - 10
    ball = x**2 + y**2 + z**2 <= 64
    assert not is_cut_off(ball)
    assert is_cut_off(ball[:, :, :11])
    assert is_cut_off(ball[10:])
    assert not is_cut_off(ball[:, 2:])
    stem = ball | ((x**2 + y**2 <= 4) & (z < 0))
    assert 0 < stem[:, :, 0].sum() < 0.1 * stem.sum((0, 1)).max()
    assert not is_cut_off(stem)
    assert not is_cut_off(np.zeros((4, 4, 4), dtype=bool))


def test_smoothness_beats_single_voxels() -> None:
    data, mask, truth = shells(0.12)
    smooth, single = ((segment(data, mask, beta=beta) == truth)[mask].mean() for beta in (0.3, 0.0))
    assert smooth > single
    assert smooth > 0.96


def test_volumes_sum_to_the_mask(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    labels = segment(phantom.data, mask)
    assert ((labels > 0) == mask).all()
    assert sum(tissue_volumes(labels, (0.5, 2.0, 3.0)).values()) == pytest.approx(mask.sum() * 3.0)


def test_classes_rise_in_intensity_for_any_number() -> None:
    data, mask, _ = shells(0.05)
    for n_classes in (2, 3, 4):
        labels = segment(data, mask, n_classes)
        means = [data[labels == k].mean() for k in range(1, n_classes + 1)]
        assert means == sorted(means)


def test_same_result_twice_and_global_random_state_untouched(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    np.random.seed(3)  # noqa: NPY002 (the global state is what is tested)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = segment(phantom.data, mask)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(4)  # noqa: NPY002
    np.testing.assert_array_equal(segment(phantom.data, mask), first)


def test_units_and_offset_do_not_matter() -> None:
    data, mask, _ = shells()
    np.testing.assert_array_equal(segment(data * 250 + 40, mask), segment(data, mask))


def test_surroundings_do_not_matter() -> None:
    data, mask, _ = shells()
    elsewhere = np.where(mask, data, 7.0)
    padded = np.pad(elsewhere, 3, constant_values=-5)
    np.testing.assert_array_equal(segment(padded, np.pad(mask, 3))[3:-3, 3:-3, 3:-3], segment(data, mask))


def test_one_slice_is_enough() -> None:
    data, mask, truth = shells()
    labels = segment(data[..., 8:9], mask[..., 8:9])
    assert (labels == truth[..., 8:9]).mean() > 0.99


def test_input_is_not_changed() -> None:
    data, mask, _ = shells()
    copies = data.copy(), mask.copy()
    segment(data, mask)
    np.testing.assert_array_equal(data, copies[0])
    np.testing.assert_array_equal(mask, copies[1])


def test_rare_tissue_is_found() -> None:
    """The quantiles that start k-means all coincide."""
    data = np.full((10, 10, 10), 5.0)
    data[:2, :2, :2], data[5:7, 5:7, 5:7] = 0.0, 9.0
    volumes = tissue_volumes(segment(data, np.ones(data.shape, bool)), (1, 1, 1))
    assert volumes == {"csf": 8, "gm": 984, "wm": 8}


@pytest.mark.parametrize(
    ("value", "mask", "message"),
    [
        (np.ones((4, 4, 4)), np.ones((4, 4, 4), bool), "1 different values inside"),
        (np.arange(64).reshape(4, 4, 4) % 2, np.ones((4, 4, 4), bool), "2 different values inside"),
        (np.full((4, 4, 4), np.nan), np.ones((4, 4, 4), bool), "not finite"),
        (np.ones((4, 4, 4)), np.zeros((4, 4, 4), bool), "mask is empty"),
        (np.ones((4, 4, 4)), np.ones((4, 4, 5), bool), "expected that of the image"),
    ],
)
def test_unusable_input_is_named(value: NDArray[np.float64], mask: NDArray[np.bool_], message: str) -> None:
    with input_error(message):
        segment(value, mask)


def test_errors_are_relative_and_undefined_without_tissue() -> None:
    errors = volume_errors({"csf": 90.0, "gm": 120.0, "wm": 1.0}, {"csf": 100.0, "gm": 100.0, "wm": 0.0})
    assert errors["csf"] == pytest.approx(-0.1)
    assert errors["gm"] == pytest.approx(0.2)
    assert math.isnan(errors["wm"])


def test_dice_of_shifted_and_equal_labels() -> None:
    _, _, truth = shells()
    labels = truth.astype(np.uint8)
    assert dice(labels, labels) == dict.fromkeys(TISSUES, 1.0)
    shifted = np.roll(labels, 1, axis=0)
    assert dice(shifted, labels) == dice(labels, shifted)
    assert all(0 < value < 1 for value in dice(shifted, labels).values())
    assert math.isnan(dice(labels * 0, labels * 0)["gm"])


def test_little_noise_changes_real_volumes_little(real_scans: Path) -> None:
    scan = load(real_scans / "oasis/validation/sub-nonDem008_T1w.nii.gz")
    mask = brain_mask(scan)
    part = scan.data[..., 12:20], mask[..., 12:20]
    noise = np.random.default_rng(0).normal(0, 0.01 * np.percentile(part[0][part[1]], 99), part[0].shape)
    volumes, again = (tissue_volumes(segment(data, part[1]), scan.spacing) for data in (part[0], part[0] + noise))
    assert all(abs(error) < 0.015 for error in volume_errors(again, volumes).values())
    shares = {tissue: volume / sum(volumes.values()) for tissue, volume in volumes.items()}
    assert 0.1 < shares["csf"] < shares["wm"] < 0.55
