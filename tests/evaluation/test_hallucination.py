import pytest
import torch

from dynamicdps.evaluation import standardised_residual
from dynamicdps.operators import LowField, add_noise


def test_residual_of_the_truth_is_standard_normal(generator: torch.Generator) -> None:
    operator = LowField(gamma=0.7, in_plane_factor=2.0, noise_std=0.02)
    x = torch.rand(3, 1, 64, 64, generator=generator)
    y = add_noise(operator(x), operator.noise_std, [generator] * 3)
    residual = standardised_residual(operator, y, x)
    assert residual.shape == y.shape
    assert abs(float(residual.mean())) < 0.06
    assert abs(float(residual.std()) - 1) < 0.05


def test_an_invented_structure_shows(generator: torch.Generator) -> None:
    operator = LowField(blur=1.0, noise_std=0.01)
    truth = torch.full((1, 1, 32, 32), 0.5)
    invented = truth.clone()
    invented[..., 10:16, 10:16] += 0.3
    residual = standardised_residual(operator, operator(truth), invented)
    assert float(residual[..., 13, 13]) < -20
    assert float(residual[..., 28, 28].abs()) < 1e-3


def test_measurement_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="expected that of the measurement"):
        standardised_residual(LowField(in_plane_factor=2.0), torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
