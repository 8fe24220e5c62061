import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dynamicdps.data_term import excess_misfit
from dynamicdps.errors import InputError
from dynamicdps.priors import level_of_step
from dynamicdps.solvers import BankRule, StartLevelRule, fit_start_level, read_start_level
from dynamicdps.solvers.dynamicdps_paper import read_bank
from tests.properties import input_error


def flat_residual(excess: torch.Tensor) -> torch.Tensor:
    """Residuals of one value each: their excess misfit is that value."""
    return excess.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def test_excess_misfit_is_free_of_noise_and_size() -> None:
    generator = torch.Generator().manual_seed(0)
    for noise in (0.001, 0.02):
        for size in (64, 256):
            residual = 0.03 + noise * torch.randn(1, 1, size, size, generator=generator)
            assert excess_misfit(residual, noise).item() == pytest.approx(0.03, rel=0.05)
    pure = 0.02 * torch.randn(1, 1, 256, 256, generator=generator)
    assert excess_misfit(pure, 0.02).item() < 0.004


def test_fit_recovers_a_known_map() -> None:
    rng = np.random.default_rng(0)
    levels = [0.01, 0.02, 0.04, 0.08, 0.16]
    misfit = np.exp(rng.uniform(np.log(0.01), np.log(0.2), 400))
    best = 0.8 * misfit
    error = 0.02 + 0.01 * np.log(np.array(levels)[None] / best[:, None]) ** 2
    rule = fit_start_level(misfit.tolist(), levels, error)
    found = rule(flat_residual(torch.tensor([0.015, 0.05, 0.15])), 1e-9)
    torch.testing.assert_close(found, 0.8 * torch.tensor([0.015, 0.05, 0.15]), rtol=0.4, atol=0)


def test_rule_is_monotone_even_on_noise() -> None:
    rng = np.random.default_rng(1)
    rule = fit_start_level(rng.uniform(0.01, 1, 60).tolist(), [0.01, 0.1, 1.0], rng.uniform(1, 2, (60, 3)))
    assert list(rule.sigma) == sorted(rule.sigma)
    values = rule(flat_residual(torch.linspace(0.001, 3, 200)), 1e-9)
    assert (values.diff() >= 0).all()
    assert rule.outside(flat_residual(torch.tensor([0.5, 2.0])), 1e-9).tolist() == [False, True]


def test_round_trip(tmp_path: Path) -> None:
    rule = StartLevelRule((0.01, 0.1), (0.02, 0.2), "here")
    path = tmp_path / "start.json"
    path.write_text(json.dumps(rule.to_json()))
    assert read_start_level(path) == rule


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"kind": "other"}',
        '{"kind": "start-level", "misfit": [1, 0.5], "sigma": [1, 2]}',
        '{"kind": "start-level", "misfit": [1], "sigma": []}',
    ],
)
def test_bad_calibrations_are_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "start.json"
    path.write_text(content)
    with pytest.raises(InputError, match="expected") as caught:
        read_start_level(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        read_start_level(tmp_path / "missing.json")


def calibrated(**changes: object) -> StartLevelRule:
    values = {
        "misfit": (0.01, 0.1),
        "sigma": (0.02, 0.2),
        "quantiles": (0.1, 0.9),
        "quantile_sigma": ((0.01, 0.1), (0.04, 0.4)),
        "share": (0.3, 1.0),
    }
    return StartLevelRule(**(values | changes))  # type: ignore[arg-type]


def test_a_higher_quantile_starts_higher() -> None:
    rule = calibrated()
    residual = flat_residual(torch.tensor([0.01, 0.03, 0.1]))
    levels = torch.stack([rule(residual, 1e-9, q) for q in (0.0, 0.1, 0.5, 0.9, 1.0)])
    assert (levels.diff(dim=0) >= 0).all()
    torch.testing.assert_close(levels[1], torch.tensor([0.01, 0.01 * 10 ** math.log10(3), 0.1]))
    torch.testing.assert_close(levels[2, 0], torch.tensor(0.02))
    with input_error("quantiles"):
        StartLevelRule((0.01,), (0.02,))(residual, 1e-9, 0.5)


def test_better_initial_images_start_lower_by_the_same_share_at_every_misfit_and_quantile() -> None:
    rule, residual = calibrated(), flat_residual(torch.tensor([0.001, 0.03, 1.0]))
    lowered = rule.lowered(0.5, "two of them")
    for quantile in (None, 0.1, 0.5):
        torch.testing.assert_close(lowered(residual, 1e-9, quantile), 0.5 * rule(residual, 1e-9, quantile))
    torch.testing.assert_close(lowered.initial_weight(residual, 1e-9), rule.initial_weight(residual, 1e-9))
    assert "two of them" in lowered.source


def test_quantiles_are_those_of_the_images_own_best_levels() -> None:
    levels = [0.01, 0.1, 1.0]
    best = np.array([0] * 25 + [1] * 50 + [2] * 25)
    error = np.ones((100, 3))
    error[np.arange(100), best] = 0.5
    rule = fit_start_level([0.05] * 100, levels, error, knots=1)
    residual = flat_residual(torch.tensor([0.05]))
    for quantile, expected in ((0.1, 0.01), (0.5, 0.1), (0.9, 1.0)):
        assert rule(residual, 1e-9, quantile).item() == pytest.approx(expected, rel=1e-3)


def test_share_of_the_initial_image_is_fitted_and_falls_with_the_misfit() -> None:
    """Two estimates with independent errors: the best share is that of the variances; where one is hopeless it is all or nothing."""
    misfit = np.repeat([0.01, 0.1], 50)
    base = np.where(misfit[:, None] < 0.05, [[0.2, 0.2]], [[5.0, 5.0]])
    error = np.where(misfit[:, None] < 0.05, [[0.5, 0.2 * (3 / 2) ** 0.5]], [[0.1, 0.1]])
    change = np.where(misfit[:, None] < 0.05, np.hypot(base, error), base - error)
    rule = fit_start_level(misfit.tolist(), [0.1, 0.2], error, base=base, change=change, knots=2)
    found = rule.initial_weight(flat_residual(torch.tensor([0.001, 0.01, 0.1, 1.0])), 1e-9)
    torch.testing.assert_close(found, torch.tensor([0.6, 0.6, 0.0, 0.0]), atol=0.02, rtol=0)
    assert (StartLevelRule((0.01,), (0.02,)).initial_weight(flat_residual(torch.tensor([0.1])), 1e-9) == 0).all()


@pytest.mark.parametrize(
    "change", [{"share": (0.5,)}, {"share": (0.5, 1.5)}, {"quantiles": (0.1,)}, {"quantile_sigma": ((0.2, 0.1), (0.4, 0.4))}]
)
def test_calibrations_that_contradict_themselves_are_refused(change: dict[str, object]) -> None:
    with input_error("calibrat"):
        calibrated(**change)


def bank() -> BankRule:
    return BankRule(tuple(2.0 + k for k in range(20)), tau=0.5)


@pytest.mark.parametrize(("norm", "step"), [(0.01, 50), (4.0, 50), (7.0, 100), (8.9, 100), (30.0, 150), (480.0, 950), (1e6, 950)])
def test_bank_takes_the_nearest_chunk_or_one_lower(norm: float, step: int) -> None:
    """``norm ** tau`` against means 2, 3, 4, ...; one chunk lower where the mean is below it."""
    residual = flat_residual(torch.tensor([norm / 512]))
    assert bank().steps(residual).item() == step


def test_bank_serves_any_image_size_and_warns_beyond_its_end() -> None:
    rule = bank()
    for size in (8, 64):
        residual = torch.full((2, 1, size, size), 0.05)
        assert rule.steps(residual).tolist() == [150, 150]
        torch.testing.assert_close(rule(residual, 0.01), torch.full((2,), level_of_step(150)))
    assert rule.outside(flat_residual(torch.tensor([0.05, 2.0])), 0.01).tolist() == [False, True]
    with input_error("quantiles"):
        rule(flat_residual(torch.tensor([0.05])), 0.01, 0.5)


@pytest.mark.parametrize("rule", [calibrated(), bank()], ids=["misfit", "bank"])
def test_every_rule_comes_back_from_its_file(rule: StartLevelRule | BankRule, tmp_path: Path) -> None:
    path = tmp_path / "rule.json"
    path.write_text(json.dumps(rule.to_json()))
    assert read_start_level(path) == rule


@pytest.mark.parametrize("means", [(), (1.0,) * 19, (-1.0,) * 20, (float("nan"),) * 20])
def test_bad_banks_are_refused(means: tuple[float, ...]) -> None:
    with input_error("memory bank"):
        BankRule(means)


def test_no_start_is_below_what_the_noise_hides() -> None:
    """On a noisy measurement a small misfit says nothing: the noise decides on the start, and the initial image has no share."""
    rule = calibrated()
    residual = torch.zeros(1, 1, 8, 8)
    assert rule(residual, 0.001).item() == pytest.approx(0.02)
    assert rule.initial_weight(residual, 0.001).item() == pytest.approx(0.7)
    assert rule(residual, 0.04).item() == pytest.approx(0.06)
    assert rule.initial_weight(residual, 0.04).item() == 0


def test_a_misfit_up_to_a_twentieth_above_the_calibrated_ones_is_inside() -> None:
    residual = flat_residual(torch.tensor([0.05, 0.1, 0.104, 0.106]))
    assert calibrated().outside(residual, 1e-9).tolist() == [False, False, False, True]


def test_the_fitted_share_is_that_of_the_fitted_level() -> None:
    """The lower level is the best; what the higher one would need is another share."""
    base = np.full((20, 2), 0.2)
    error = np.tile([0.2 * (3 / 2) ** 0.5, 0.5], (20, 1))
    rule = fit_start_level([0.05] * 20, [0.1, 0.2], error, base=base, change=np.hypot(base, error), knots=1)
    assert rule.sigma == (0.1,)
    assert rule.initial_weight(flat_residual(torch.tensor([0.05])), 1e-9).item() == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize(("tau", "fits"), [(0.0, False), (1e-3, True), (2.0, True), (2.01, False)])
def test_the_bank_s_exponent_has_a_range(tau: float, fits: bool) -> None:
    means = tuple(1.0 + k for k in range(20))
    if fits:
        assert BankRule(means, tau).tau == tau
    else:
        with input_error("tau"):
            BankRule(means, tau)


def test_knots_without_noise_give_their_own_levels_and_the_ends_are_held() -> None:
    rule = StartLevelRule((0.01, 0.1), (0.02, 0.2))
    found = rule(flat_residual(torch.tensor([1e-4, 0.01, 0.1, 5.0])), 1e-9)
    torch.testing.assert_close(found, torch.tensor([0.02, 0.02, 0.2, 0.2]))
    # One and a half standard deviations of the noise at least.
    torch.testing.assert_close(rule(flat_residual(torch.tensor([0.04])), 0.04), torch.tensor([0.06]))


def test_the_bank_says_when_a_residual_is_worse_than_its_own_and_gives_no_share() -> None:
    """Norms are of 256 x 256 pixels of range 2: a grey of 0.5 off has the norm 256, to the power 1/2 it is 16."""
    residual = flat_residual(torch.tensor([0.4, 0.5, 0.6]))
    bank = BankRule(tuple(np.linspace(1, 16, 20)), tau=0.5)
    assert bank.outside(residual, 0.01).tolist() == [False, False, True]
    assert bank.initial_weight(residual, 0.01).tolist() == [0, 0, 0]
    # The chunk whose mean is nearest, one lower where that mean is below: 5.1 lies above the fifth mean.
    whole = BankRule(tuple(float(k) for k in range(1, 21)), tau=0.5)
    values = torch.tensor([5.1, 4.9, 0.5, 30.0])
    assert whole.steps(flat_residual(values**2 / 512)).tolist() == [200, 250, 50, 950]


def test_the_bundled_bank_is_the_paper_s() -> None:
    bank = read_bank()
    assert bank.tau == 0.4
    assert len(bank.means) == 20
    assert list(bank.means) == sorted(bank.means)


def test_groups_of_nearly_equal_misfit_are_one_knot() -> None:
    """Misfits that agree to the four digits that are kept must not make a rule that does not rise."""
    sigma = np.array([0.1, 0.2, 0.4])
    misfit = np.array([0.2, 0.20000001, 0.20000002, 0.7])
    error = 1 + np.abs(np.log(sigma)[None] - np.log([[0.1], [0.1], [0.1], [0.4]]))
    rule = fit_start_level(misfit, sigma, error, knots=4)
    assert rule.misfit == pytest.approx((0.2, 0.7))
    assert rule.sigma == pytest.approx((0.1, 0.4))
