import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.evaluation import lpips
from dynamicdps.evaluation.perceptual import _metric
from tests.properties import input_error

SLICES = torch.linspace(-0.5, 1.5, 2 * 64 * 64).view(2, 1, 64, 64)


@pytest.fixture(autouse=True)
def no_cached_network() -> None:
    _metric.cache_clear()


class MeanDifference(torch.nn.Module):
    """Takes what torchmetrics' LPIPS takes; the network is left out."""

    def __init__(self, net_type: str, normalize: bool) -> None:
        super().__init__()
        assert (net_type, normalize) == ("vgg", True)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        for u in (x, t):
            assert u.shape == (1, 3, 64, 64)
            assert u.min() >= 0
            assert u.max() <= 1
        return (x - t).abs().mean()

    def reset(self) -> None: ...


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with input_error("install them with pip install 'dynamicdps\\[lpips\\]'"):
        lpips(SLICES, SLICES)


def test_slices_go_one_by_one_as_colour_images(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torchmetrics.image.lpip")
    module.LearnedPerceptualImagePatchSimilarity = MeanDifference
    for name in ("torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", module)
    truth = SLICES.flip(0)
    expected = (SLICES.clamp(0, 1) - truth.clamp(0, 1)).abs().mean((1, 2, 3))
    torch.testing.assert_close(lpips(SLICES, truth, "vgg"), expected)


def test_unusable_input_is_named() -> None:
    with input_error("'resnet'"):
        lpips(SLICES, SLICES, "resnet")
    with input_error("32 x 64 pixels"):
        lpips(SLICES[..., :32, :], SLICES[..., :32, :])
    with pytest.raises(ValueError, match="slices have shapes"):
        lpips(SLICES, SLICES[:1])
