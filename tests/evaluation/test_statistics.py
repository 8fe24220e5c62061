import itertools
import math

import numpy as np
import pytest

from dynamicdps.evaluation import bootstrap_interval, by_subject, holm, paired_comparison, signed_rank
from tests.properties import input_error


def test_slices_of_a_subject_are_averaged_first() -> None:
    assert by_subject([("b", 1.0), ("a", 4.0), ("b", 3.0)]) == {"b": 2.0, "a": 4.0}
    assert by_subject([]) == {}


def test_interval_of_many_values_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap_interval(values, np.random.default_rng(1), resamples=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert (found.mean, found.subjects) == (values.mean(), 400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)
    narrow = bootstrap_interval(values, np.random.default_rng(1), coverage=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_interval_of_two_values_by_hand() -> None:
    """Four equally likely resamples: 0, 1/2 twice, 1."""
    found = bootstrap_interval([0.0, 1.0], np.random.default_rng(0), coverage=0.4)
    assert (found.low, found.mean, found.high) == (0.5, 0.5, 0.5)
    assert bootstrap_interval([3.0], np.random.default_rng(0)).high == 3


def test_a_generator_decides() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    one, two, other = (bootstrap_interval(values, np.random.default_rng(s), resamples=50) for s in (0, 0, 1))
    assert one == two
    assert one != other


def exact_p(differences: list[float]) -> float:
    """Two-sided, by trying all signs."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    total = ranks.sum()
    smaller = min(ranks[np.array(differences) > 0].sum(), ranks[np.array(differences) < 0].sum())
    sums = [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product([0, 1], repeat=len(ranks))]
    return min(1.0, 2 * sum(s <= smaller for s in sums) / len(sums)) if smaller < total / 2 else 1.0


@pytest.mark.parametrize("differences", [[0.3, -0.1, 0.5, 0.9, 0.2, 0.7], [1.0, 2.0, 3.0, 4.0, 5.0], [-2.0, 1.5, 0.4, -0.3]])
def test_signed_rank_by_enumeration(differences: list[float]) -> None:
    assert signed_rank(differences) == pytest.approx(exact_p(differences))
    assert signed_rank([-d for d in differences]) == pytest.approx(signed_rank(differences))
    assert signed_rank([*differences, 0.0]) == pytest.approx(signed_rank(differences))


def test_signed_rank_of_ties_and_zeros() -> None:
    assert signed_rank([0.0, 0.0]) == 1
    assert signed_rank([]) == 1
    # Normal approximation: four equal differences have the sum 10, expected 5, variance 30 / 4 less the ties' 60 / 48.
    z = 5 / math.sqrt(7.5 - 1.25)
    assert signed_rank([1.0, 1.0, 1.0, 1.0]) == pytest.approx(math.erfc(z / math.sqrt(2)))


def test_comparison_is_paired() -> None:
    first = {f"s{i}": 20.0 + i + 0.1 * (i % 3 + 1) + i / 1000 for i in range(12)}
    second = {f"s{i}": 20.0 + i for i in reversed(range(12))}
    found = paired_comparison(first, second | {"alone": 99.0}, np.random.default_rng(0))
    assert found.difference.mean == pytest.approx(0.2 + 5.5 / 1000)
    assert 0.1 < found.difference.low < found.difference.mean < found.difference.high < 0.35
    assert (found.difference.subjects, found.share_larger) == (12, 1)
    assert found.p_value == pytest.approx(2 / 2**12)
    back = paired_comparison(second, first, np.random.default_rng(0))
    assert (back.difference.mean, back.share_larger) == (-found.difference.mean, 0)
    assert paired_comparison(first, first, np.random.default_rng(0)).share_larger == 0.5
    with input_error("share none"):
        paired_comparison(first, {"other": 1.0}, np.random.default_rng(0))
    with input_error("expected a finite number a subject"):
        paired_comparison({"a": math.nan}, {"a": 1.0}, np.random.default_rng(0))


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"only": 0.04}) == {"only": 0.04}
    assert holm({}) == {}
    with input_error("p value of b is nan"):
        holm({"a": 0.1, "b": math.nan})


def test_intervals_without_a_wish_hold_95_percent() -> None:
    values = np.random.default_rng(1).normal(size=30)
    subjects = {f"sub-{i}": float(v) for i, v in enumerate(values)}
    nothing = dict.fromkeys(subjects, 0.0)
    expected = bootstrap_interval(values, np.random.default_rng(0), coverage=0.95)
    assert bootstrap_interval(values, np.random.default_rng(0)) == expected
    assert paired_comparison(subjects, nothing, np.random.default_rng(0)).difference == expected
    narrow = paired_comparison(subjects, nothing, np.random.default_rng(0), coverage=0.5).difference
    assert expected.low < narrow.low < narrow.high < expected.high


@pytest.mark.parametrize("coverage", [0.0, 1.0])
def test_an_interval_of_nothing_or_all_is_refused(coverage: float) -> None:
    with input_error("for an interval of"):
        bootstrap_interval([1.0, 2.0], np.random.default_rng(0), coverage=coverage)


def test_nothing_differs() -> None:
    assert signed_rank([0.0, 0.0]) == 1
    assert holm({"a": 0.0, "b": 1.0}) == {"a": 0.0, "b": 1.0}
    for wrong in (-0.01, 1.01):
        with input_error("p value of a"):
            holm({"a": wrong})
