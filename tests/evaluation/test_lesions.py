import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.evaluation import Lesion, contrast_kept, insert_lesion, lesion_contrast, make_lesion, place_lesions, resolvable, segment
from dynamicdps.evaluation import lesions as lesions_module
from dynamicdps.operators import Identity, InPlaneResolution, LowField, SliceProfile
from dynamicdps.volumes import Volume, brain_mask
from tests.properties import input_error

MM = (1.0, 1.0, 1.0)
WHITE = np.full((40, 40, 40), 3, np.uint8)
FLAT = np.full(WHITE.shape, 0.8, np.float32)
MIDDLE = (20.0, 20.0, 20.0)


@pytest.mark.parametrize("diameter", [4.0, 8.0, 15.0])
@pytest.mark.parametrize("contrast", [-0.3, 0.15])
def test_a_lesion_has_its_volume_and_contrast(diameter: float, contrast: float) -> None:
    lesion = make_lesion(WHITE, MM, MIDDLE, diameter, contrast)
    ball = math.pi / 6 * diameter**3
    assert lesion.mask.sum() == pytest.approx(ball, rel=0.12)
    image = insert_lesion(FLAT, lesion)
    assert image.dtype == np.float32
    assert image[20, 20, 20] == pytest.approx(0.8 + contrast)
    assert lesion_contrast(image, lesion) == pytest.approx(contrast, rel=0.1)
    np.testing.assert_array_equal(image[lesion.mask == 0], FLAT[lesion.mask == 0])
    assert not (lesion.ring & (lesion.mask > 0)).any()
    assert np.abs(ndimage.center_of_mass(lesion.mask) - np.array(MIDDLE)).max() < 1e-3


def test_the_edge_is_soft_and_the_shape_is_in_mm() -> None:
    lesion = make_lesion(WHITE, (1.0, 2.0, 0.5), MIDDLE, 8.0, 0.2, (1.0, 1.0, 0.5))
    half = [np.flatnonzero(lesion.mask[line] >= 0.5) for line in (np.s_[:, 20, 20], np.s_[20, :, 20], np.s_[20, 20, :])]
    assert [len(h) for h in half] == [9, 5, 9]
    across = make_lesion(WHITE, MM, (20.0, 20.0, 20.25), 8.0, 0.2).mask[20, 20]
    assert ((across > 0) & (across < 1)).sum() == 2
    assert lesion.diameter_mm == 8


def test_nothing_is_painted_outside_of_the_brain_or_below_zero() -> None:
    tissue = WHITE.copy()
    tissue[:17] = 0
    lesion = make_lesion(tissue, MM, MIDDLE, 10.0, -0.9)
    image = insert_lesion(FLAT, lesion)
    np.testing.assert_array_equal(image[:17], FLAT[:17])
    assert image.min() == 0
    assert not lesion.ring[:17].any()
    # Elsewhere nothing is cut: interpolated images may be a little below 0.
    assert insert_lesion(FLAT - 1, lesion)[0, 0, 0] == pytest.approx(-0.2)


def test_kept_contrast_of_known_images() -> None:
    lesion = make_lesion(WHITE, MM, MIDDLE, 8.0, -0.2)
    truth = insert_lesion(FLAT, lesion)
    assert contrast_kept(truth, truth, lesion) == 1
    assert contrast_kept(FLAT, truth, lesion) == 0
    assert contrast_kept((truth + FLAT) / 2, truth, lesion) == pytest.approx(0.5, abs=1e-6)
    assert contrast_kept(1.6 - truth, truth, lesion) == pytest.approx(-1)
    assert math.isnan(contrast_kept(truth, FLAT, lesion))


def test_lesions_lie_in_white_matter_apart_from_each_other(phantom: Volume) -> None:
    tissue = segment(phantom.data, brain_mask(phantom))
    lesions = place_lesions(tissue, phantom.spacing, np.random.default_rng(3), count=4, diameters_mm=(3.0, 5.0), contrasts=(-0.3, 0.1))
    assert len(lesions) == 4
    assert [lesion.contrast for lesion in lesions] == [-0.3, 0.1, -0.3, 0.1]
    assert [lesion.diameter_mm for lesion in lesions] == sorted((lesion.diameter_mm for lesion in lesions), reverse=True)
    for lesion in lesions:
        assert 3 <= lesion.diameter_mm <= 5
        assert (tissue[lesion.mask > 0] == 3).all()
        assert (tissue[lesion.ring] == 3).all()
        assert lesion.mask[..., [0, -1]].max() == 0
    inside = sum((lesion.mask > 0).astype(int) for lesion in lesions)
    assert inside.max() == 1
    for one in lesions:
        assert not any((one.ring & (other.mask > 0)).any() for other in lesions)


def test_a_generator_decides_the_places(phantom: Volume) -> None:
    tissue = segment(phantom.data, brain_mask(phantom))

    def places(seed: int) -> list[tuple[float, float, float]]:
        return [lesion.centre for lesion in place_lesions(tissue, phantom.spacing, np.random.default_rng(seed), count=2)]

    assert places(0) == places(0)
    assert places(0) != places(1)


def test_lesions_shrink_to_the_room_there_is() -> None:
    strip = np.ones((40, 40, 1), np.uint8)
    strip[14:25] = 3
    (lesion,) = place_lesions(strip, MM, np.random.default_rng(0), count=1, diameters_mm=(15.0, 15.0), elongation=1.0)
    # Eleven voxels of white matter: six to the nearest other one from the middle, less half a millimetre of edge.
    assert lesion.diameter_mm == 11
    assert lesion.centre[0] == 19
    with input_error("room for [1-3] of 9 lesions"):
        place_lesions(strip[:, :24], MM, np.random.default_rng(0), count=9, diameters_mm=(10.0, 10.0), elongation=1.0)
    with input_error("room for 0 of 1 lesions"):
        place_lesions(np.ones((9, 9, 9), np.uint8), MM, np.random.default_rng(0), count=1)


def test_unusable_lesions_are_named() -> None:
    with input_error("the lesion has 2.0 mm"):
        make_lesion(WHITE, MM, MIDDLE, 2.0, 0.1)
    with input_error("contrast 0"):
        make_lesion(WHITE, MM, MIDDLE, 5.0, 0)
    with input_error("centre is voxel \\(50, 20, 20\\)"):
        make_lesion(WHITE, MM, (50.0, 20.0, 20.0), 5.0, 0.1)
    with input_error("no surroundings of its own tissue"):
        speck = np.ones_like(WHITE)
        speck[20, 20, 20] = 3
        make_lesion(speck, MM, MIDDLE, 5.0, 0.1)
    with input_error("contrast"):
        place_lesions(WHITE, MM, np.random.default_rng(0), contrasts=())
    with input_error("elongation 2.5"):
        place_lesions(WHITE, MM, np.random.default_rng(0), elongation=2.5)
    with input_error("the image has shape"):
        insert_lesion(FLAT[1:], make_lesion(WHITE, MM, MIDDLE, 5.0, 0.1))


@pytest.fixture
def slab() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    return WHITE[..., :12], FLAT[..., :12]


def at_middle(tissue: NDArray[np.uint8], diameter: float, contrast: float) -> Lesion:
    return make_lesion(tissue, MM, (19.5, 19.5, 5.5), diameter, contrast)


def test_snr_of_the_identity_is_the_lesions_norm(slab: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> None:
    tissue, image = slab
    lesion = at_middle(tissue, 5.0, 0.2)
    found = resolvable(lesion, Identity(), image, noise_std=0.1)
    assert found.snr == pytest.approx(0.2 * float(np.linalg.norm(lesion.mask)) / 0.1, rel=1e-6)
    assert found.kept == pytest.approx(1)
    assert found.resolvable


def test_the_contrasts_slope_scales_the_snr(slab: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> None:
    tissue, image = slab
    lesion = at_middle(tissue, 5.0, 0.2)
    plain, curved = (resolvable(lesion, LowField(gamma=g), image, noise_std=0.05).snr for g in (1.0, 0.4))
    assert curved / plain == pytest.approx(0.4 * 0.8**-0.6, rel=1e-3)


def test_resolution_and_noise_decide(slab: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> None:
    tissue, image = slab
    coarse = InPlaneResolution(6.0)
    small, large = (resolvable(at_middle(tissue, diameter, 0.2), coarse, image, noise_std=0.005) for diameter in (3.0, 10.0))
    assert small.snr > 5
    assert (small.resolvable, large.resolvable) == (False, True)
    assert small.kept < 0.5 < large.kept
    noisy = resolvable(at_middle(tissue, 3.0, 0.05), Identity(), image, noise_std=0.5)
    assert noisy.snr < 5
    assert not noisy.resolvable
    thick = resolvable(at_middle(tissue, 3.0, 0.2), SliceProfile(6.0), image, noise_std=0.005)
    assert not thick.resolvable
    # The thresholds are the caller's.
    assert resolvable(at_middle(tissue, 3.0, 0.2), coarse, image, kept=0.0, noise_std=0.005).resolvable
    assert not resolvable(at_middle(tissue, 10.0, 0.2), coarse, image, snr=1e6, noise_std=0.005).resolvable
    with input_error("the thresholds are -1 and 0.5"):
        resolvable(at_middle(tissue, 10.0, 0.2), coarse, image, snr=-1, noise_std=0.005)


def test_a_larger_lesion_is_resolved_through_more_noise(slab: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> None:
    tissue, image = slab
    for noise, expected in ((0.005, [True, True]), (0.2, [False, True]), (0.5, [False, False])):
        operator = SliceProfile(3.0)
        assert [
            resolvable(at_middle(tissue, diameter, 0.2), operator, image, noise_std=noise).resolvable for diameter in (4.0, 9.0)
        ] == expected


def test_a_reconstruction_that_paints_the_lesion_out_loses_it(phantom: Volume) -> None:
    tissue = segment(phantom.data, brain_mask(phantom))
    lesion = place_lesions(tissue, phantom.spacing, np.random.default_rng(0), count=1, contrasts=(-0.4,))[0]
    truth = insert_lesion(phantom.data, lesion)
    blurred = ndimage.gaussian_filter(truth, 1.5)
    assert 0 < contrast_kept(blurred, truth, lesion) < 0.9
    assert abs(contrast_kept(phantom.data, truth, lesion)) < 0.1


def test_without_wishes_there_are_four_lesions_of_usual_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 to 8 mm, darker and brighter in turn, no axis longer than 1.25 times the diameter nor shorter than the inverse."""
    ratios: list[tuple[float, float, float]] = []

    def watched(*arguments: Any) -> Lesion:
        ratios.append(arguments[5])
        return make_lesion(*arguments)

    monkeypatch.setattr(lesions_module, "make_lesion", watched)
    for seed in range(10):
        placed = place_lesions(WHITE, MM, np.random.default_rng(seed))
        assert [lesion.contrast for lesion in placed] == [-0.2, 0.2, -0.2, 0.2]
        assert all(3 <= lesion.diameter_mm <= 8 for lesion in placed)
    found = np.array(ratios)
    assert 1 / 1.25 <= found.min() < 0.9
    assert 1.1 < found.max() <= 1.25
    np.testing.assert_allclose(found.prod(1), 1)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"diameters_mm": (2.9, 5.0)}, {"diameters_mm": (5.0, 4.0)}, {"elongation": 0.9}])
def test_wishes_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with input_error("are asked for"):
        place_lesions(WHITE, MM, np.random.default_rng(0), **wrong)
