import math
from dataclasses import fields

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from dynamicdps.evaluation import ResidualStatistics, Statistic, residual_statistics
from tests.properties import assert_batch_independent

SHAPES = [(60, 1, 48, 56), (60, 1, 33, 20), (40, 1, 6, 24, 30)]


def each(found: ResidualStatistics) -> dict[str, Statistic]:
    return {f.name: getattr(found, f.name) for f in fields(found)}


def noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_noise_gives_what_is_expected_of_noise(shape: tuple[int, ...], masked: bool, generator: torch.Generator) -> None:
    mask = torch.zeros(shape[1:], dtype=torch.bool)
    mask[..., 4:-4, 4:-4] = True
    for name, statistic in each(residual_statistics(noise(shape, generator), mask if masked else None)).items():
        z = statistic.z
        assert abs(float(z.mean())) < (0.8 if masked and name == "flatness" else 0.5), name
        assert (0.4 if masked and name == "flatness" else 0.7) < float(z.std()) < 1.3, name


def test_values_of_a_small_residual_by_hand() -> None:
    residual = torch.tensor([[1.0, 2.0], [-1.0, 4.0]])[None, None]
    found = residual_statistics(residual)
    assert float(found.rms.value) == pytest.approx(math.sqrt(22 / 4))
    # Pairs across: 1 * 2, -1 * 4; down: 1 * -1, 2 * 4.
    assert float(found.autocorrelation.value) == pytest.approx((2 - 4 - 1 + 8) / 4 / (22 / 4))
    assert float(found.outliers.value) == 0.25
    assert float(found.outliers.expected) == pytest.approx(0.0026998, rel=1e-4)
    assert float(found.rms.std) == pytest.approx(math.sqrt(1 / 8))


def test_a_mask_leaves_the_rest_out(generator: torch.Generator) -> None:
    residual = noise((1, 1, 40, 40), generator)
    residual[..., 20:] = 100
    mask = torch.zeros(residual.shape, dtype=torch.bool)
    mask[..., :20] = True
    inside, alone = residual_statistics(residual, mask), residual_statistics(residual[..., :20])
    for name in ("rms", "autocorrelation", "outliers"):
        torch.testing.assert_close(getattr(inside, name).value, getattr(alone, name).value)


def test_each_statistic_finds_its_fault(generator: torch.Generator) -> None:
    white = noise((1, 1, 64, 64), generator)
    smooth = torch.from_numpy(ndimage.gaussian_filter(white.numpy(), (0, 0, 1, 1)))
    smooth = smooth / smooth.square().mean().sqrt()
    spots = white.clone()
    spots[..., 30:34, 30:34] = 8
    rows = torch.arange(64)[:, None]
    wave = (white + 1.5 * torch.cos(2 * math.pi * 12 * rows / 64)) / math.sqrt(1 + 1.125)
    assert float(residual_statistics(1.2 * white).rms.z) > 10
    assert float(residual_statistics(0.8 * white).rms.z) < -10
    assert float(residual_statistics(smooth).autocorrelation.z) > 20
    assert float(residual_statistics(smooth).flatness.z) < -10
    assert abs(float(residual_statistics(smooth).rms.z)) < 1e-3
    assert float(residual_statistics(spots).outliers.z) > 4
    assert float(residual_statistics(wave).flatness.z) < -4
    sharpened = white - torch.nn.functional.avg_pool2d(white, 3, 1, 1)
    assert float(residual_statistics(sharpened).autocorrelation.z) < -4


def test_an_image_does_not_depend_on_its_batch_mates(generator: torch.Generator) -> None:
    x = noise((3, 1, 20, 24), generator)
    for name in each(residual_statistics(x)):
        assert_batch_independent(lambda r, name=name: getattr(residual_statistics(r), name).z, x)
    with pytest.raises(ValueError, match="the residual has shape"):
        residual_statistics(x[0, 0])
