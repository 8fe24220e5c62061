import math

import pytest
import torch
from torch import Tensor

from dynamicdps.evaluation import hallucination_index
from tests.properties import assert_batch_independent, input_error

STD = 0.05


@pytest.fixture
def truth(generator: torch.Generator) -> Tensor:
    return torch.rand(2, 1, 24, 32, generator=generator)


def draws(truth: Tensor, count: int, generator: torch.Generator, std: float = STD) -> Tensor:
    return truth + std * torch.randn((count, *truth.shape), generator=generator)


def test_equals_the_distance_of_two_normal_distributions() -> None:
    """Two samples at mean 0.3 with variance 0.02 (unbiased), against a normal one of 0 and 0.01; by quadrature."""
    samples = torch.tensor([0.3 - 0.1, 0.3 + 0.1]).view(2, 1, 1, 1, 1)
    index = hallucination_index(samples, torch.zeros(1, 1, 1, 1), reference_std=0.1).index
    x = torch.linspace(-2, 3, 200001, dtype=torch.float64)
    p, q = (torch.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v) for m, v in ((0.3, 0.02), (0.0, 0.01)))
    expected = math.sqrt(1 - float(torch.trapezoid((p * q).sqrt(), x)))
    assert float(index) == pytest.approx(expected, abs=1e-6)


def test_patches_use_the_whole_covariance(generator: torch.Generator) -> None:
    """Many correlated samples of a 2 x 2 patch: shrinkage hardly matters and the closed form holds."""
    mixing = torch.tensor([[1.0, 0, 0, 0], [0.5, 1, 0, 0], [0, 0.3, 1, 0], [0.2, 0, 0.4, 1]], dtype=torch.float64) * STD
    flat = torch.randn(20000, 4, generator=generator, dtype=torch.float64) @ mixing.T + 0.02
    samples = flat.view(20000, 1, 1, 2, 2)
    index = hallucination_index(samples, torch.zeros(1, 1, 2, 2), reference_std=STD, patch=2).index
    c1, c2, d = mixing @ mixing.T, STD**2 * torch.eye(4, dtype=torch.float64), torch.full((4,), 0.02, dtype=torch.float64)
    c = (c1 + c2) / 2
    overlap = (torch.det(c1) * torch.det(c2)) ** 0.25 / torch.det(c) ** 0.5 * torch.exp(-d @ torch.linalg.inv(c) @ d / 8)
    assert float(index) == pytest.approx(math.sqrt(1 - float(overlap)), abs=0.01)


def test_faithful_samples_are_near_zero(truth: Tensor, generator: torch.Generator) -> None:
    found = hallucination_index(draws(truth, 400, generator), truth)
    assert (found.index < 0.04).all()
    torch.testing.assert_close(found.reference_std, torch.full((2,), STD, dtype=torch.float64), rtol=0.02, atol=0)
    few = hallucination_index(draws(truth, 8, generator), truth)
    assert (few.index > 0.15).all()
    assert (few.index < 0.25).all()


@pytest.mark.parametrize("patch", [1, 4])
def test_a_painted_structure_raises_it_there_only(patch: int, truth: Tensor, generator: torch.Generator) -> None:
    samples = draws(truth, 30, generator)
    invented = samples.clone()
    invented[:, :, :, 8:16, 8:16] += 0.3
    before, after = (hallucination_index(s, truth, reference_std=STD, patch=patch) for s in (samples, invented))
    box = slice(8 // patch, 16 // patch)
    assert (after.map[..., box, box] > 0.9).all()
    torch.testing.assert_close(after.map[..., 20 // patch :, :], before.map[..., 20 // patch :, :])
    assert (after.index > before.index + 0.03).all()
    assert ((after.map >= 0) & (after.map <= 1)).all()


def test_mask_and_wrong_spread(truth: Tensor, generator: torch.Generator) -> None:
    samples = draws(truth, 50, generator)
    samples[..., :16] += 0.5
    mask = torch.zeros_like(truth, dtype=torch.bool)
    mask[..., 16:] = True
    assert (hallucination_index(samples, truth, mask=mask).index < 0.1).all()
    assert hallucination_index(samples, truth, reference_std=STD, mask=~mask, patch=4).index.min() > 0.9
    narrow = hallucination_index(draws(truth, 200, generator, STD / 10), truth, reference_std=STD)
    # Two centred normal distributions whose standard deviations differ tenfold.
    assert float(narrow.index.mean()) == pytest.approx(math.sqrt(1 - math.sqrt(2 * 10 / 101)), abs=0.01)


def test_a_single_answer_is_no_distribution(truth: Tensor) -> None:
    same = truth.expand(4, *truth.shape)
    assert (hallucination_index(same, truth, reference_std=STD).index == 1).all()
    with input_error("do not differ"):
        hallucination_index(same, truth)
    with input_error("there are 1 samples"):
        hallucination_index(same[:1], truth)
    with input_error("reference_std is 0"):
        hallucination_index(same, truth, reference_std=0.0)
    with pytest.raises(ValueError, match="samples have shape"):
        hallucination_index(same[:, :1], truth)


def test_volumes_and_batches(truth: Tensor, generator: torch.Generator) -> None:
    samples = draws(truth, 6, generator)
    slices = hallucination_index(samples, truth, reference_std=STD, patch=4)
    # The batch and the channel change places: two slices become one volume of depth 2.
    volume = hallucination_index(samples.movedim(2, 1)[:, None], truth.movedim(1, 0)[None], reference_std=STD, patch=4)
    torch.testing.assert_close(volume.map[0, 0], slices.map[:, 0])
    assert_batch_independent(lambda t: hallucination_index(t + samples[:, :1] - truth[:1], t).index, truth)
