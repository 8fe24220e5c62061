"""Noise models of a measurement."""

from collections.abc import Sequence

import torch
from torch import Tensor


def add_noise(y: Tensor, std: float, generators: Sequence[torch.Generator], kind: str = "gaussian") -> Tensor:
    """Add noise to each image of a batch from its own generator.

    Args:
        y: noise-free measurements, batch first.
        std: standard deviation of the noise (Rician: of each of the two channels), units of `y`.
        generators: one an image.
        kind: ``"gaussian"`` or ``"rician"`` (magnitude of a complex signal with noise in both channels, Gudbjartsson and Patz
            1995).

    Raises:
        ValueError: the kind is unknown.
    """
    shape = (1 if kind == "gaussian" else 2, *y.shape[1:])
    drawn = torch.stack([torch.randn(shape, generator=g, device=g.device) for g in generators]).to(y) * std
    if kind == "gaussian":
        return y + drawn[:, 0]
    if kind == "rician":
        return ((y + drawn[:, 0]).square() + drawn[:, 1].square()).sqrt()
    raise ValueError(f"the noise is {kind!r}; expected 'gaussian' or 'rician'")
