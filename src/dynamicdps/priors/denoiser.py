"""The denoiser: posterior mean of a clean slice given a noisy one."""

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dynamicdps.priors.levels import SIGMA_MAX, SIGMA_MIN


class Denoiser(Protocol):
    """``denoiser(x, sigma) -> E[x0 | x]``.

    `x` has shape ``(batch, 1, height, width)`` and image-intensity units, `sigma` shape ``(batch,)``. Anything with this call is a
    prior: a network, a closed form, another package's model.
    """

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor: ...


class NetworkDenoiser(nn.Module):
    """A network with the preconditioning of Karras et al. 2022 (table 1, column "Ours"), for data in [0, 1].

    Args:
        network: maps ``(batch, 1, height, width)`` and times ``(batch,)`` to the same shape.
        data_mean: mean intensity of the training slices; the network sees centred data.
        data_std: their standard deviation ("sigma_data").
        precision: type in which the network computes; preconditioning is always float32.
        errors: root mean square error at some noise levels, from validation images; see `denoising_error`.
    """

    def __init__(
        self,
        network: nn.Module,
        data_mean: float,
        data_std: float,
        precision: torch.dtype = torch.float32,
        errors: Mapping[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.data_mean = data_mean
        self.data_std = data_std
        self.precision = precision
        self.errors = dict(errors or {})

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        skip, scale, in_ = scalings(sigma.to(x.dtype).view(-1, 1, 1, 1), self.data_std)
        centred = x - self.data_mean
        with torch.autocast(x.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            raw = self.network((centred * in_).to(memory_format=torch.channels_last), network_time(sigma))
        out: Tensor = self.data_mean + skip * centred + scale * raw.to(x.dtype)
        return out


def scalings(sigma: Tensor, data_std: float) -> tuple[Tensor, Tensor, Tensor]:
    """Karras et al. 2022, table 1, column "Ours": factors of the noisy image, of the network's output and of its input."""
    total = (sigma**2 + data_std**2).sqrt()
    return (data_std / total) ** 2, sigma * data_std / total, 1 / total


def network_time(sigma: Tensor) -> Tensor:
    """Time that the network sees: the logarithm of the noise level, spread over [0, 1000]."""
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    return 1000 * (sigma.clamp(SIGMA_MIN, SIGMA_MAX).log() - low) / (high - low)


def denoising_error(measured: Mapping[float, float], sigma: Tensor, spread: float = 0.0) -> Tensor:
    """Expected root mean square error r(sigma) of a denoiser, ``(batch,)``, in image intensities.

    Interpolated in logarithms between the levels measured on validation images (the model card's). A denoiser that brings none
    gets ``min(sigma, 0.11 sqrt(sigma))``, near what brain priors of this size reach.

    Args:
        measured: error by noise level.
        sigma: noise levels, ``(batch,)``.
        spread: standard deviation of the data, the error at the highest level; 0 where it is not known.
    """
    if not measured:
        return torch.minimum(sigma, 0.11 * sigma.sqrt())
    levels = sorted(measured)
    values = [measured[level] for level in levels]
    if spread > values[-1] and levels[-1] < SIGMA_MAX:
        # In the end nothing is known: the error is the data's own spread.
        levels, values = [*levels, SIGMA_MAX], [*values, spread]
    knots, errors = np.log(levels), np.log(values)
    found = np.exp(np.interp(np.log(sigma.double().clamp_min(1e-9).cpu().numpy()), knots, errors))
    # Below the lowest measured level the error is at most the noise itself.
    return torch.minimum(torch.from_numpy(found).to(sigma), sigma)
