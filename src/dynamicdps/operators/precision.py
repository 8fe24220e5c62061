"""Where sums and decompositions are computed: in float64, as far as a device has it. Apple's GPUs have float32 only."""

import torch
from torch import Tensor


def wide_type(device: torch.device) -> torch.dtype:
    """The widest floating type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide(x: Tensor) -> Tensor:
    """`x` in the widest type of its device."""
    return x.to(wide_type(x.device))


def on_cpu(x: Tensor) -> Tensor:
    """`x` in float64 on the CPU, where decompositions of small matrices are quick and exact on every machine."""
    return x.cpu().double()
