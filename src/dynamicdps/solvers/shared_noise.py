"""Noise that neighbouring slices share: a prior of single slices then treats them alike."""

import torch
from torch import Tensor


def share_noise(noise: Tensor, correlation: float) -> Tensor:
    """Correlate a volume's noise along z; each slice by itself stays white and standard normal, as the prior knows it.

    ``n[z+1] = c n[z] + sqrt(1 - c^2) e[z+1]``: the correlation of two slices is ``c`` to the power of their distance. With c = 1 all have
    the noise of the first.

    Args:
        noise: standard normal: ``(batch, 1, depth, height, width)``; single images, ``(batch, 1, height, width)``, are left as they are.
        correlation: of neighbours, c, 0 to 1.
    """
    if noise.ndim != 5 or correlation == 0:
        return noise
    fresh = (1 - correlation**2) ** 0.5
    slices = [noise[:, :, 0]]
    for z in range(1, noise.shape[2]):
        slices.append(correlation * slices[-1] + fresh * noise[:, :, z])
    return torch.stack(slices, dim=2)


def error_growth(slices: int, correlation: float) -> float:
    """How much larger the error of the mean of neighbouring slices is than with independent noise, 1 to ``sqrt(slices)``.

    The denoiser's errors are taken to follow its noise: ``sqrt(sum over i, j of c^|i - j| / slices)``.

    Args:
        slices: of the mean, at least 1.
        correlation: of neighbours, c, 0 to 1.
    """
    pairs = sum(2 * (slices - apart) * correlation**apart for apart in range(1, slices))
    return float((1 + pairs / slices) ** 0.5)
