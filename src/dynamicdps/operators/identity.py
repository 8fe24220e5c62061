"""Denoising: nothing but noise between image and measurement."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.operators.linear import LinearModel, diagonal_model
from dynamicdps.operators.operator import LinearOperator, SameGrid


@dataclass(frozen=True, eq=False)
class Identity(LinearOperator, SameGrid):
    """``A(x) = x``."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        return w

    @property
    def is_pointwise(self) -> bool:
        return True

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        return diagonal_model(torch.ones([1] * len(shape), dtype=like.dtype, device=like.device), noise_std)
