"""Volumes as tensors: depth (z), height (y), width (x)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_slices(data: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """Volume data ``(x, y, z)`` as axial slices ``(z, 1, y, x)``, float32."""
    return torch.from_numpy(np.ascontiguousarray(data.transpose(2, 1, 0), dtype=np.float32))[:, None].to(device)


def to_batch(data: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """Volume data ``(x, y, z)`` as one image ``(1, 1, z, y, x)``, float32."""
    return to_slices(data, device).movedim(0, 1)[None]


def from_slices(slices: Tensor) -> NDArray[np.float32]:
    """The inverse of `to_slices` and of `to_batch`: ``(z, 1, y, x)`` or ``(1, 1, z, y, x)`` to ``(x, y, z)``.

    Raises:
        ValueError: the tensor is neither single-channel slices nor one single-channel image.
    """
    slices = slices[0].movedim(1, 0) if slices.ndim == 5 and len(slices) == 1 else slices
    if slices.ndim != 4 or slices.shape[1] != 1:
        raise ValueError(
            f"slices have shape {tuple(slices.shape)}; expected (slices, 1, height, width) or one image (1, 1, depth, height, width)"
        )
    return np.ascontiguousarray(slices[:, 0].detach().cpu().numpy().transpose(2, 1, 0), dtype=np.float32)
