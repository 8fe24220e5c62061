from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from dynamicdps.evaluation import nrmse, nrmse_brain, psnr, psnr_brain, ssim, ssim_brain

Metric = Callable[[Tensor, Tensor], Tensor]
METRICS = [psnr, ssim, nrmse]


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    truth = torch.rand(4, 1, 24, 31, generator=generator)
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def reference_ssim(x: NDArray[np.float64], t: NDArray[np.float64]) -> float:
    """scikit-image's structural_similarity(x, t, data_range=1) of one slice, written out."""
    window, k1, k2 = 7, 0.01, 0.03
    unbiased = window**2 / (window**2 - 1)
    ux, ut = uniform_filter(x, window), uniform_filter(t, window)
    vx = unbiased * (uniform_filter(x * x, window) - ux * ux)
    vt = unbiased * (uniform_filter(t * t, window) - ut * ut)
    vxt = unbiased * (uniform_filter(x * t, window) - ux * ut)
    s = ((2 * ux * ut + k1**2) * (2 * vxt + k2**2)) / ((ux**2 + ut**2 + k1**2) * (vx + vt + k2**2))
    edge = (window - 1) // 2
    return float(s[edge:-edge, edge:-edge].mean())


def test_values_equal_direct_computation(pair: tuple[Tensor, Tensor]) -> None:
    x, t = (u[:, 0].double().numpy() for u in pair)
    np.testing.assert_allclose(psnr(*pair), [10 * np.log10(1 / np.mean((a - b) ** 2)) for a, b in zip(x, t, strict=True)], rtol=1e-12)
    np.testing.assert_allclose(nrmse(*pair), [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(x, t, strict=True)], rtol=1e-12)
    np.testing.assert_allclose(ssim(*pair), [reference_ssim(a, b) for a, b in zip(x, t, strict=True)], rtol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_a_slice_does_not_depend_on_its_batch_mates(metric: Metric, pair: tuple[Tensor, Tensor]) -> None:
    alone = torch.cat([metric(x[None], t[None]) for x, t in zip(*pair, strict=True)])
    torch.testing.assert_close(metric(*pair), alone, rtol=1e-12, atol=0)


def test_an_image_equals_itself(pair: tuple[Tensor, Tensor]) -> None:
    _, truth = pair
    torch.testing.assert_close(ssim(truth, truth), torch.ones(4, dtype=torch.float64))
    assert (nrmse(truth, truth) == 0).all()
    assert (psnr(truth, truth) == torch.inf).all()


@pytest.mark.parametrize("metric", METRICS)
def test_more_error_is_worse(metric: Metric, pair: tuple[Tensor, Tensor]) -> None:
    image, truth = pair
    near, far = metric((image + 9 * truth) / 10, truth), metric(image, truth)
    assert ((near < far) if metric is nrmse else (near > far)).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_symmetric(metric: Metric, pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(metric(*pair), metric(*reversed(pair)))


def test_background_counts_as_pixels() -> None:
    truth = torch.zeros(1, 1, 20, 20)
    image = truth.clone()
    image[..., :10] = 0.1
    torch.testing.assert_close(psnr(image, truth), torch.tensor([10 * np.log10(2 / 0.01)]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shapes", [((2, 1, 9, 9), (1, 1, 9, 9)), ((9, 9), (9, 9)), ((2, 2, 9, 9), (2, 2, 9, 9))])
def test_shapes_must_fit(metric: Metric, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="expected \\(slices, 1, height, width\\)"):
        metric(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_ssim_needs_one_window() -> None:
    with pytest.raises(ValueError, match="at least 7 x 7"):
        ssim(torch.zeros(1, 1, 6, 9), torch.zeros(1, 1, 6, 9))


BRAIN = [(psnr_brain, psnr), (nrmse_brain, nrmse), (ssim_brain, ssim)]


@pytest.fixture
def mask() -> Tensor:
    inside = torch.zeros(4, 1, 24, 31, dtype=torch.bool)
    inside[..., 5:20, 6:25] = True
    return inside


@pytest.mark.parametrize(("metric", "whole"), BRAIN)
def test_the_whole_slice_as_mask_changes_nothing(
    metric: Callable[[Tensor, Tensor, Tensor], Tensor], whole: Metric, pair: tuple[Tensor, Tensor]
) -> None:
    torch.testing.assert_close(metric(*pair, torch.ones(4, 1, 24, 31, dtype=torch.bool)), whole(*pair))


@pytest.mark.parametrize(("metric", "whole"), BRAIN)
def test_only_the_brain_counts(
    metric: Callable[[Tensor, Tensor, Tensor], Tensor], whole: Metric, pair: tuple[Tensor, Tensor], mask: Tensor
) -> None:
    image, truth = pair
    far = image.clone()
    far[..., :2, :], far[..., 23:, :] = 9, -9
    torch.testing.assert_close(metric(far, truth, mask), metric(image, truth, mask))
    painted = image.clone()
    painted[..., 10:14, 10:14] += 0.5
    before, after = metric(image, truth, mask), metric(painted, truth, mask)
    assert ((after > before) if metric is nrmse_brain else (after < before)).all()
    assert metric(image, truth, mask & False).isnan().all()
    with pytest.raises(ValueError, match="the mask has shape"):
        metric(image, truth, mask[:1])


def test_brain_values_by_hand(pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
    x, t = (u[:, 0, 5:20, 6:25].double().numpy() for u in pair)
    np.testing.assert_allclose(psnr_brain(*pair, mask), [-10 * np.log10(np.mean((a - b) ** 2)) for a, b in zip(x, t, strict=True)])
    np.testing.assert_allclose(nrmse_brain(*pair, mask), [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(x, t, strict=True)])
    # The windows whose centres are in the box are those of the slice cut three pixels wider.
    wider = [u[..., 2:23, 3:28] for u in pair]
    torch.testing.assert_close(ssim_brain(*pair, mask), ssim(*wider))
