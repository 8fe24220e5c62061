import pytest
import torch

from dynamicdps.evaluation import restart_disagreement, sample_spread
from tests.properties import input_error

SHAPE = (2, 1, 40, 40)


def test_spread_by_hand() -> None:
    samples = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1, 1)
    assert float(sample_spread(samples)) == pytest.approx((7 / 3) ** 0.5)
    with input_error("there are 1 samples"):
        sample_spread(samples[:1])


@pytest.mark.parametrize(("n1", "n2"), [(2, 2), (4, 4), (3, 8)])
def test_samples_of_one_posterior_agree(n1: int, n2: int, generator: torch.Generator) -> None:
    spread = 0.02 + 0.08 * torch.rand(SHAPE, generator=generator)
    first, second = (0.5 + spread * torch.randn((n, *SHAPE), generator=generator) for n in (n1, n2))
    found = restart_disagreement(first, second)
    assert ((found.rms > 0.9) & (found.rms < 1.1)).all()
    assert abs(float(found.map.mean())) < 0.1
    assert found.map.shape == SHAPE


def test_the_map_is_a_difference_over_its_standard_error() -> None:
    first = torch.tensor([0.4, 0.6]).view(2, 1, 1, 1, 1)
    second = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1, 1, 1)
    expected = 0.3 / (0.02 / 2 + 0.01 / 3) ** 0.5
    assert float(restart_disagreement(first, second).map) == pytest.approx(expected, rel=1e-6)
    assert float(restart_disagreement(first, second).rms) == pytest.approx(expected, rel=1e-6)
    assert float(restart_disagreement(second, first).map) == pytest.approx(-expected, rel=1e-6)


def test_structure_that_depends_on_the_start_shows(generator: torch.Generator) -> None:
    first, second = (0.5 + 0.05 * torch.randn((6, *SHAPE), generator=generator) for _ in range(2))
    first[..., 10:20, 10:20] += 0.2
    found = restart_disagreement(first, second)
    assert float(found.map[..., 10:20, 10:20].mean()) > 5
    assert (found.rms > 1.5).all()
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[..., 10:20, 10:20] = False
    assert (restart_disagreement(first, second, mask=mask).rms < 1.1).all()


def test_equal_samples_have_a_finite_map() -> None:
    same = torch.full((2, *SHAPE), 0.5)
    assert (restart_disagreement(same, same).map == 0).all()
    assert restart_disagreement(same, same + 0.01).map.abs().max() == pytest.approx(-0.01 / -0.005, rel=1e-4)
    with pytest.raises(ValueError, match="expected the same images"):
        restart_disagreement(same, same[:, :1])
