"""Regions of a residual: none in noise or where a forward model errs alone, one where a structure is missing."""

from collections.abc import Callable

import numpy as np
import pytest

from dynamicdps.evaluation.contradictions import FAMILY_WISE, Contradictions, find_contradictions
from dynamicdps.volumes import Volume

SHAPE, SPACING = (24, 22, 10), (1.5, 1.5, 4.0)
AFFINE = np.diag([*SPACING, 1.0])
NOISE = 0.05
X, Y, Z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE), indexing="ij")
INSIDE = (X / 10) ** 2 + (Y / 9) ** 2 + (Z / 5) ** 2 < 1
# White matter in grey matter, with an edge of 2 voxels.
EDGE = np.abs(np.hypot(X, Y) - 6) < 1.5
HEAD = np.where(INSIDE, np.where(np.hypot(X, Y) < 6, 0.9, 0.6), 0.0)
BALL = ((X + 1.5) * 1.5) ** 2 + ((Y - 0.5) * 1.5) ** 2 + ((Z - 0.5) * 4) ** 2 < 3.5**2
PLACE = np.array([10 * 1.5, 11 * 1.5, 5 * 4.0])


def found(measured: np.ndarray, predicted: np.ndarray = HEAD) -> Contradictions:
    residual = (measured - predicted) / NOISE * INSIDE
    return find_contradictions(Volume(residual.astype(np.float32), AFFINE), predicted, measured)


def noise(seed: int) -> np.ndarray:
    return NOISE * np.random.default_rng(seed).standard_normal(SHAPE)


def test_noise_alone_shows_a_region_as_rarely_as_is_said() -> None:
    draws = 100
    shown = sum(bool(found(HEAD + noise(seed)).regions) for seed in range(draws))
    # Beyond this with a chance of 0.4 % where the chance of each is as stated.
    assert shown <= FAMILY_WISE * draws + 6


@pytest.mark.parametrize(
    "wrong",
    [
        lambda head: 0.9 * head**1.2,
        lambda head: head * np.exp(0.1 * X / 10),
        lambda head: head + 0.2 * EDGE * np.sign(np.sin(3 * X + 5 * Y + 7 * Z)),
    ],
)
def test_a_wrong_forward_model_is_no_contradiction(wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    """A contrast, a shading, and errors at edges."""
    assert found(wrong(HEAD) + noise(0)).regions == ()


@pytest.mark.parametrize("contrast", [-0.3, 0.3])
def test_a_structure_is_found_with_its_sign_whichever_of_the_two_has_it(contrast: float) -> None:
    lesioned = HEAD + contrast * BALL
    for measured, predicted, kind, sign in ((lesioned, HEAD, "lost", 1), (HEAD, lesioned, "invented", -1)):
        (region,) = found(measured + noise(1), predicted).regions
        assert region.image == kind
        assert region.scan_is == ("brighter" if sign * contrast > 0 else "darker")
        assert region.difference == pytest.approx(sign * contrast, abs=0.15)
        assert np.abs(np.array(region.place_mm) - PLACE).max() < 3
        assert region.mm3 == pytest.approx(BALL.sum() * np.prod(SPACING), rel=1.5)


def test_labels_are_the_regions_in_their_order() -> None:
    other = ((X - 5) * 1.5) ** 2 + (Y * 1.5) ** 2 + ((Z + 2.5) * 4) ** 2 < 3**2
    result = found(HEAD + 0.5 * BALL - 0.3 * other + noise(2))
    assert [region.scan_is for region in result.regions] == ["brighter", "darker"]
    assert result.regions[0].strength > result.regions[1].strength > result.threshold
    for number, region in enumerate(result.regions, 1):
        assert (result.labels == number).sum() * np.prod(SPACING) == pytest.approx(region.mm3)
    assert BALL[result.labels == 1].any()
    assert other[result.labels == 2].any()


def test_where_nothing_counts_nothing_is_found_and_shapes_must_fit() -> None:
    assert find_contradictions(Volume(np.zeros(SHAPE, np.float32), AFFINE), HEAD, HEAD).regions == ()
    with pytest.raises(ValueError, match="expected one"):
        find_contradictions(Volume(np.zeros(SHAPE, np.float32), AFFINE), HEAD[1:], HEAD)
