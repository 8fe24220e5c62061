import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from dynamicdps.evaluation import ms_ssim, scales_that_fit
from tests.properties import assert_batch_independent, input_error

WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]


def reference(x: Tensor, t: Tensor, scales: int) -> Tensor:
    """Wang et al. 2003, equation 7, written out."""
    line = torch.exp(-0.5 * ((torch.arange(11, dtype=torch.float64) - 5) / 1.5) ** 2)
    window = torch.outer(line, line)[None, None] / line.sum() ** 2
    weights = torch.tensor(WEIGHTS[:scales], dtype=torch.float64) / sum(WEIGHTS[:scales])
    result, luminance = torch.ones(len(x), dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)
    for scale in range(scales):
        mx, mt, mxx, mtt, mxt = (conv2d(u, window) for u in (x, t, x * x, t * t, x * t))
        contrast = (2 * (mxt - mx * mt) + 0.03**2) / (mxx - mx**2 + mtt - mt**2 + 0.03**2)
        luminance = (2 * mx * mt + 0.01**2) / (mx**2 + mt**2 + 0.01**2)
        last = scale == scales - 1
        result = result * ((contrast * luminance if last else contrast).mean((1, 2, 3))) ** weights[scale]
        x, t = avg_pool2d(x, 2), avg_pool2d(t, 2)
    return result


@pytest.mark.parametrize(("size", "scales"), [((176, 180), 5), ((150, 99), 4), ((44, 98), 3), ((22, 60), 2), ((11, 11), 1)])
def test_equals_the_formula_with_as_many_scales_as_fit(size: tuple[int, int], scales: int, generator: torch.Generator) -> None:
    truth = torch.rand(2, 1, *size, generator=generator)
    image = (truth + 0.2 * torch.rand(truth.shape, generator=generator)).clamp(0, 1)
    assert scales_that_fit(*size) == scales
    torch.testing.assert_close(ms_ssim(image, truth).double(), reference(image.double(), truth.double(), scales), rtol=1e-4, atol=1e-5)


def test_bounds_and_direction(generator: torch.Generator) -> None:
    truth = torch.rand(2, 1, 48, 60, generator=generator)
    painted = truth.clone()
    painted[..., 10:30, 10:30] = 0.9
    torch.testing.assert_close(ms_ssim(truth, truth), torch.ones(2))
    assert (ms_ssim(painted, truth) < 0.9).all()
    assert_batch_independent(lambda x: ms_ssim(x, x.roll(1, -1)), truth)


def test_scales_that_do_not_fit_are_named() -> None:
    with input_error("hold 0 scales and 1 are asked for"):
        ms_ssim(torch.zeros(1, 1, 10, 40), torch.zeros(1, 1, 10, 40))
    with input_error("expected at least 176 pixels"):
        ms_ssim(torch.zeros(1, 1, 100, 100), torch.zeros(1, 1, 100, 100), scales=5)
    with pytest.raises(ValueError, match="slices have shapes"):
        ms_ssim(torch.zeros(1, 1, 20, 20), torch.zeros(2, 1, 20, 20))
