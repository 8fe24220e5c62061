"""Learned perceptual similarity, for those who have the extra."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dynamicdps.errors import InputError

NETWORKS = ("alex", "vgg", "squeeze")
SMALLEST = 64


def lpips(image: Tensor, truth: Tensor, network: str = "alex") -> Tensor:
    """Learned perceptual image patch similarity of each slice (Zhang et al., CVPR 2018), torchmetrics'; lower is nearer.

    Needs the extra `lpips`, and the internet the first time, for the network's weights. Its networks have seen photographs in colour: the
    slice is repeated in three channels, and the number says how alike two images look, not whether anatomy is right.

    Args:
        image: ``(slices, 1, height, width)``, cut to [0, 1].
        truth: the same shape.
        network: ``"alex"``, ``"vgg"`` or ``"squeeze"``.

    Returns:
        ``(slices,)``.

    Raises:
        InputError: the extra is not installed, there is no such network, or slices are below 64 pixels.
        ValueError: the shapes differ or are not those of slices.
    """
    if image.shape != truth.shape or image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f"slices have shapes {tuple(image.shape)} and {tuple(truth.shape)}; expected (slices, 1, height, width) twice")
    if network not in NETWORKS:
        raise InputError(f"the network of LPIPS is {network!r}; expected one of {', '.join(NETWORKS)}")
    if min(image.shape[-2:]) < SMALLEST:
        raise InputError(f"slices have {image.shape[-2]} x {image.shape[-1]} pixels; expected at least {SMALLEST} for LPIPS; use ssim")
    metric = _metric(network).to(image.device)
    x, t = (u.float().clamp(0, 1).expand(-1, 3, -1, -1) for u in (image, truth))
    with torch.no_grad():
        found = [metric(x[i : i + 1], t[i : i + 1]) for i in range(len(x))]
    metric.reset()
    return torch.stack(found)


@lru_cache(maxsize=1)
def _metric(network: str) -> Any:
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type=network, normalize=True)
    except ImportError as error:
        raise InputError(
            "LPIPS needs packages that are not installed; expected torchmetrics and torchvision; install them with "
            "pip install 'dynamicdps[lpips]'"
        ) from error
