import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dynamicdps.errors import InputError
from dynamicdps.solvers import StartLevelRule, excess_misfit, fit_start_level, read_start_level


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
