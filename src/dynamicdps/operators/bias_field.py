"""Smooth shading by the receive coil."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dynamicdps.operators.linear import LinearModel, diagonal_model
from dynamicdps.operators.operator import LinearOperator, SameGrid
from dynamicdps.operators.parameters import check_finite, check_images, check_range


@dataclass(frozen=True, eq=False)
class BiasField(LinearOperator, SameGrid):
    """``A(x) = exp(b) x`` with a polynomial b of low order over the field of view (Van Leemput et al. 1999).

    ``b = sum of c[k, j, i] P_k(z) P_j(y) P_i(x)``, P Legendre polynomials, coordinates from -1 (first voxel) to 1 (last); 0 along
    an axis of one voxel, so that a single slice is the middle of its volume.

    Attributes:
        coefficients: c, ``(orders z, orders y, orders x)`` or ``(batch, ...)``, no unit: 0.1 is about 10 % shading. Differentiable.

    Raises:
        InputError: the coefficients are out of their range.
    """

    coefficients: Tensor = field(metadata={"dims": 3})

    def __post_init__(self) -> None:
        check_finite("coefficients", self.coefficients, (3, 4))
        check_range("coefficients", self.coefficients, -10.0, 10.0)

    @property
    def couples_slices(self) -> bool:
        return self.coefficients.shape[-3] > 1

    def gain(self, x: Tensor) -> Tensor:
        """``exp(b)`` to broadcast over images like `x`."""
        check_images(x.shape)
        c = self.coefficients.to(x)
        c = c if c.ndim == 4 else c[None]
        sizes = (1, *x.shape[-2:]) if x.ndim == 4 else x.shape[-3:]
        z, y, w = (legendre(n, count, x) for n, count in zip(sizes, c.shape[1:], strict=True))
        b = torch.einsum("bkji,kz,jy,iw->bzyw", c, z, y, w)
        return b.exp() if x.ndim == 4 else b.exp()[:, None]

    @property
    def is_pointwise(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain(x)

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        return self.forward(w)

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        del shape
        return diagonal_model(self.gain(like), noise_std)


def legendre(size: int, count: int, like: Tensor) -> Tensor:
    """The first `count` Legendre polynomials on a line of voxels, ``(count, size)``, by Bonnet's recursion."""
    t = torch.linspace(-1, 1, size, dtype=like.dtype, device=like.device) if size > 1 else torch.zeros(1).to(like)
    rows = [torch.ones_like(t), t]
    for n in range(1, count - 1):
        rows.append(((2 * n + 1) * t * rows[n] - n * rows[n - 1]) / (n + 1))
    return torch.stack(rows[:count])
