"""How alike a prior's errors are in neighbouring slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.operators.sampling import along

LEAST_EIGENVALUE = 0.02


@dataclass(frozen=True, eq=False)
class ErrorCorrelation:
    """How alike the denoiser's errors are in the slices of a volume: their covariance along z is ``r^2 K``.

    Attributes:
        matrix: K, ``(depth, depth)``, positive definite, 1 on the diagonal.
        factor: L, lower triangular, ``K = L L^T``.
        inverse_factor: ``L^-1``.
    """

    matrix: Tensor
    factor: Tensor
    inverse_factor: Tensor

    @classmethod
    def of_distances(cls, depth: int, correlations: Sequence[float]) -> "ErrorCorrelation":
        """The correlation of slices whose errors are alike by their distance alone, as a prior's domain says.

        Args:
            depth: number of slices.
            correlations: of slices 0, 1, 2, ... apart, from 1 down; 0 beyond the last.
        """
        apart = (torch.arange(depth)[:, None] - torch.arange(depth)).abs()
        known = torch.tensor([*correlations, *[0.0] * depth], dtype=torch.float64)
        values, vectors = torch.linalg.eigh(known[apart])
        # What was measured to some distance and cut there need not be a covariance: the nearest one is.
        alike = (vectors * values.clamp_min(LEAST_EIGENVALUE)) @ vectors.mT
        scale = alike.diagonal().rsqrt()
        return cls._of(alike * scale * scale[:, None])

    @classmethod
    def _of(cls, alike: Tensor) -> "ErrorCorrelation":
        factor = torch.linalg.cholesky(alike)
        inverse = torch.linalg.solve_triangular(factor, torch.eye(len(alike), dtype=torch.float64), upper=False)
        return cls(alike.float(), factor.float(), inverse.float())

    def colour(self, v: Tensor) -> Tensor:
        """``K v``."""
        return along(v, self.matrix.to(v), -3)

    def whiten(self, v: Tensor) -> Tensor:
        """``L^-1 v``: errors of the covariance ``r^2 K`` become independent ones of ``r^2``."""
        return along(v, self.inverse_factor.to(v), -3)

    def precision(self, v: Tensor) -> Tensor:
        """``K^-1 v``."""
        return along(self.whiten(v), self.inverse_factor.to(v).mT, -3)
