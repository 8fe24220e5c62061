import pytest
import torch
from torch import Tensor

from dynamicdps.evaluation import through_plane_calibration, through_plane_roughness

SHAPE = (3, 1, 7, 9, 8)


@pytest.fixture
def truth() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask() -> Tensor:
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[:, :, 1:6, 2:7, 1:7] = True
    return inside


def column(*values: float) -> Tensor:
    """A volume of one voxel a slice."""
    return torch.tensor(values).view(1, 1, -1, 1, 1)


def test_values_by_hand() -> None:
    """Changes 1, -2, 0 against 2, 1, 1; the last voxel is no brain, so that the last change does not count."""
    image, truth = column(0, 1, -1, -1), column(0, 2, 3, 4)
    brain = torch.tensor([True, True, True, False]).view(1, 1, 4, 1, 1)
    assert through_plane_roughness(image, None, brain).tolist() == [1.5]
    assert through_plane_roughness(image, truth, brain).tolist() == [1.0]
    assert through_plane_calibration(image, truth, brain).tolist() == [(1 * 2 - 2 * 1) / 5]
    everywhere = torch.ones_like(brain)
    assert through_plane_roughness(image, truth, everywhere).tolist() == [3 / 4]


def test_the_truth_has_1_and_scaling_is_seen(truth: Tensor, mask: Tensor) -> None:
    one = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(through_plane_roughness(truth, truth, mask), one)
    torch.testing.assert_close(through_plane_calibration(truth, truth, mask), one)
    torch.testing.assert_close(through_plane_roughness(0.25 + truth / 2, truth, mask), one / 2)
    torch.testing.assert_close(through_plane_calibration(0.25 + truth / 2, truth, mask), 2 * one)


def test_a_posterior_mean_is_smoother_and_calibrated() -> None:
    """Two independent halves of a truth, one of them measured: its posterior mean shows that half. Noise on it is flicker."""
    generator = torch.Generator().manual_seed(1)
    seen, unseen, noise = (torch.randn(1, 1, 40, 30, 30, generator=generator) for _ in range(3))
    truth, brain = seen + unseen, torch.ones(seen.shape, dtype=torch.bool)
    assert through_plane_roughness(seen, truth, brain).item() == pytest.approx(0.5**0.5, abs=0.01)
    assert through_plane_calibration(seen, truth, brain).item() == pytest.approx(1, abs=0.03)
    assert through_plane_roughness(seen + noise, truth, brain).item() == pytest.approx(1, abs=0.01)
    assert through_plane_calibration(seen + noise, truth, brain).item() == pytest.approx(0.5, abs=0.03)


def test_only_changes_along_z_inside_the_brain_count(truth: Tensor, mask: Tensor) -> None:
    image = truth + torch.rand(3, 1, 1, 9, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(through_plane_roughness(image, truth, mask), torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0)
    outside = torch.where(mask, truth, 7.0)
    assert torch.equal(through_plane_roughness(outside, truth, mask), through_plane_roughness(truth, truth, mask))
    assert torch.equal(through_plane_calibration(outside, truth, mask), through_plane_calibration(truth, truth, mask))


def test_a_volume_does_not_depend_on_its_batch_mates(truth: Tensor, mask: Tensor) -> None:
    image = truth.square()
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(
            through_plane_roughness(image, truth, mask)[one], through_plane_roughness(image[one], truth[one], mask[one])
        )
        torch.testing.assert_close(
            through_plane_calibration(image, truth, mask)[one], through_plane_calibration(image[one], truth[one], mask[one])
        )


def test_nothing_to_compare_is_nan(truth: Tensor, mask: Tensor) -> None:
    flat = torch.ones(SHAPE)
    assert through_plane_roughness(truth, truth, mask & False).isnan().all()
    assert through_plane_roughness(truth[:, :, :1], None, mask[:, :, :1]).isnan().all()
    assert through_plane_roughness(truth, flat, mask).isnan().all()
    assert through_plane_calibration(flat, truth, mask).isnan().all()


def test_shapes_must_fit(truth: Tensor, mask: Tensor) -> None:
    with pytest.raises(ValueError, match="expected \\(batch, 1, depth, height, width\\)"):
        through_plane_roughness(truth[:, 0], None, mask[:, 0])
    with pytest.raises(ValueError, match="the mask has shape"):
        through_plane_roughness(truth, None, mask[:1])
    with pytest.raises(ValueError, match="the truth has shape"):
        through_plane_calibration(truth, truth[..., 1:], mask)
