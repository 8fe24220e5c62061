import json

import numpy as np
import pytest
from numpy.typing import NDArray

from dynamicdps.evaluation import ConformalErrorMap, covered_share, error_heuristic
from tests.properties import input_error

Arrays = list[NDArray[np.float64]]


def subjects(count: int, rng: np.random.Generator, voxels: int = 2000) -> tuple[Arrays, Arrays]:
    """Errors whose true scale is a heuristic times a factor that differs per subject: exchangeable, not identical."""
    errors, heuristics = [], []
    for _ in range(count):
        spread = rng.gamma(2.0, 0.01, voxels)
        errors.append(rng.standard_t(4, voxels) * spread * rng.lognormal(0.5, 0.4))
        heuristics.append(error_heuristic(spread))
    return errors, heuristics


def test_coverage_of_new_subjects_is_the_stated_one() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(10):
        calibrated = ConformalErrorMap.fit(*subjects(80, rng, 400))
        new = zip(*subjects(40, rng, 400), strict=True)
        shares.append(np.mean([covered_share(error, calibrated.apply(heuristic)) for error, heuristic in new]))
    assert 0.88 < np.mean(shares) < 0.92


def test_few_subjects_are_covered_more() -> None:
    """The guarantee holds from the fewest subjects on: the price is width."""
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(60):
        calibrated = ConformalErrorMap.fit(*subjects(12, rng, 300))
        shares += [covered_share(e, calibrated.apply(h)) for e, h in zip(*subjects(5, rng, 300), strict=True)]
    assert 0.9 <= np.mean(shares) <= 0.9 + 2 / 13 + 0.01


def test_factor_by_hand() -> None:
    """Ten subjects of ten voxels; (10 * mean + 1) / 11 <= 0.2 allows a mean loss of 0.12: 12 of 100 voxels."""
    errors = [np.arange(10) * 10.0 + i for i in range(10)]
    heuristics = [np.full(10, 2.0)] * 10
    calibrated = ConformalErrorMap.fit(errors, heuristics, coverage=0.8)
    # 88 to 99 are the 12 largest: the factor covers 87, whose ratio is 43.5.
    assert calibrated == ConformalErrorMap(43.5, 0.8, 10)
    assert np.mean([covered_share(e, calibrated.apply(h)) for e, h in zip(errors, heuristics, strict=True)]) == pytest.approx(0.88)
    # Exactly nine subjects allow no loss at 90 %: the largest of all.
    assert ConformalErrorMap.fit(errors[:9], heuristics[:9]).factor == 98 / 2


def test_errors_that_are_all_alike_are_the_factor() -> None:
    assert ConformalErrorMap.fit([np.full(7, 0.6)] * 12, [np.full(7, 0.2)] * 12).factor == pytest.approx(3)


def test_subjects_count_equally_whatever_their_size() -> None:
    small, large = [np.full(10, 1.0)] * 10, [np.full(1000, 5.0)] * 10
    one = ConformalErrorMap.fit(small + large, [np.ones_like(e) for e in small + large], coverage=0.45)
    assert one.factor == 1
    assert ConformalErrorMap.fit(small + large, [np.ones_like(e) for e in small + large], coverage=0.5).factor == 5


def test_larger_errors_make_wider_intervals() -> None:
    errors, heuristics = subjects(20, np.random.default_rng(2))
    factor = ConformalErrorMap.fit(errors, heuristics).factor
    painted = [np.where(np.arange(e.size) < e.size // 4, e + 1, e) for e in errors]
    assert ConformalErrorMap.fit(painted, heuristics).factor > 2 * factor
    assert ConformalErrorMap.fit([2 * e for e in errors], heuristics).factor == pytest.approx(2 * factor)
    assert ConformalErrorMap.fit(errors, heuristics, coverage=0.8).factor < factor


def test_heuristic_adds_its_parts() -> None:
    spread, restart = np.array([0.0, 0.1]), np.array([-0.2, 0.0])
    np.testing.assert_allclose(error_heuristic(spread, floor=0.01), [0.01, 0.11])
    np.testing.assert_allclose(error_heuristic(spread, restart, 0.01), [0.21, 0.11])


def test_covered_share_of_a_mask() -> None:
    error, width = np.array([[0.1, -0.3], [0.2, 9.0]]), np.full((2, 2), 0.25)
    assert covered_share(error, width) == 0.5
    assert covered_share(error, width, np.array([[True, False], [True, False]])) == 1
    assert np.isnan(covered_share(error, width, np.zeros((2, 2), bool)))


def test_json_round_trip() -> None:
    calibrated = ConformalErrorMap.fit(*subjects(20, np.random.default_rng(0)))
    assert ConformalErrorMap.from_json(json.loads(json.dumps(calibrated.to_json()))) == calibrated
    with input_error("expected factor, coverage and subjects"):
        ConformalErrorMap.from_json({"factor": 1.0})
    with input_error("expected a factor of at least 0"):
        ConformalErrorMap.from_json({"factor": float("nan"), "coverage": 0.9, "subjects": 9})


def test_unusable_subjects_are_named() -> None:
    errors, heuristics = subjects(9, np.random.default_rng(0))
    with input_error("there are 8 subjects .* expected at least 9 subjects"):
        ConformalErrorMap.fit(errors[:8], heuristics[:8])
    with input_error("expected a coverage between 0 and 1"):
        ConformalErrorMap.fit(errors, heuristics, coverage=1.0)
    with input_error("expected pairs"):
        ConformalErrorMap.fit(errors, heuristics[:8])
    with input_error("subject 8 has errors"):
        ConformalErrorMap.fit(errors, [*heuristics[:8], heuristics[8] * 0])
    with input_error("the floor is 0"):
        error_heuristic(errors[0], floor=0.0)


def test_a_capped_loss_is_less_cautious_with_few_subjects() -> None:
    """The capped loss keeps its guarantee, and the coverage is near to the stated one with 23 subjects already."""
    rng = np.random.default_rng(2)
    shares, losses, full = [], [], []
    for _ in range(60):
        known = subjects(23, rng, 300)
        calibrated = ConformalErrorMap.fit(*known, most_lost=0.3)
        careful = ConformalErrorMap.fit(*known)
        assert calibrated.factor < careful.factor
        for error, heuristic in zip(*subjects(5, rng, 300), strict=True):
            shares.append(covered_share(error, calibrated.apply(heuristic)))
            losses.append(min(1 - shares[-1], 0.3))
            full.append(covered_share(error, careful.apply(heuristic)))
    assert np.mean(losses) < 0.1 + 0.01
    assert 0.88 < np.mean(shares) < 0.92
    assert np.mean(full) > np.mean(shares) + 0.01


def test_a_subject_who_loses_all_counts_as_the_cap() -> None:
    """Nine subjects without any error and one that is all error: (10 * mean + 0.3) / 11 <= 0.1 allows 0.08, the cap gives 0.03."""
    errors = [np.zeros(10)] * 9 + [np.full(10, 50.0)]
    heuristics = [np.ones(10)] * 10
    assert ConformalErrorMap.fit(errors, heuristics, most_lost=0.3).factor == 0
    assert ConformalErrorMap.fit(errors, heuristics).factor == 50
    with input_error("the most that is lost 0.05"):
        ConformalErrorMap.fit(errors, heuristics, most_lost=0.05)


def test_nine_tenths_are_covered_unless_another_share_is_asked_for() -> None:
    errors, heuristics = subjects(20, np.random.default_rng(0))
    usual = ConformalErrorMap.fit(errors, heuristics)
    assert (usual.coverage, usual.subjects, usual.most_lost) == (0.9, 20, 1.0)
    assert usual.factor == ConformalErrorMap.fit(errors, heuristics, 0.9, 1.0).factor
    # Nine subjects are the fewest for nine tenths: (9 + 1) * 0.1 = 1.
    assert ConformalErrorMap.fit(errors[:9], heuristics[:9]).subjects == 9
    with input_error("there are 8 subjects for a coverage of 0.9; expected at least 9"):
        ConformalErrorMap.fit(errors[:8], heuristics[:8])


@pytest.mark.parametrize(("coverage", "most_lost"), [(0.0, 1.0), (1.0, 1.0), (0.75, 0.25), (0.9, 1.01)])
def test_shares_out_of_range_are_refused(coverage: float, most_lost: float) -> None:
    errors, heuristics = subjects(20, np.random.default_rng(0), 50)
    with input_error("the coverage is"):
        ConformalErrorMap.fit(errors, heuristics, coverage, most_lost)
