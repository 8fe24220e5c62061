"""Properties that many parts must have, written once."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators import Operator
from dynamicdps.volumes.grids import Grid


@contextmanager
def input_error(match: str | None = None) -> Iterator[None]:
    """The block raises `InputError` with one sentence that says what was expected."""
    with pytest.raises(InputError, match=match) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert re.search(r"[^.]$", message), "no full stop: the command line prints it after the program's name"


def measured_shape(operator: Operator, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size of the scanner's grid ``(x, y, z)`` for an image grid of a size."""
    return operator.grid(Grid(shape, np.eye(4))).shape


def placed(operator: Operator, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """From scanner voxel indices to image voxel indices, ``(4, 4)``."""
    return operator.grid(Grid(shape, np.eye(4))).affine


def assert_adjoint(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    generator: torch.Generator,
    tolerance: float = 1e-10,
) -> None:
    """``<A u, w> = <u, A* w>`` for random float64 vectors, image by image."""
    u = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    image = forward(u)
    w = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    back = adjoint(w)
    assert back.shape == u.shape
    left, right = (image * w).flatten(1).sum(1), (u * back).flatten(1).sum(1)
    scale = image.flatten(1).norm(dim=1) * w.flatten(1).norm(dim=1)
    assert ((left - right).abs() <= tolerance * scale).all()


def assert_jacobian_products(operator: Operator, x: Tensor, generator: torch.Generator) -> None:
    """`linearise` gives ``A(x)``, the Jacobian that forward-mode differentiation gives, and that Jacobian's transpose."""
    near = operator.linearise(x)
    p = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    torch.testing.assert_close(near.value, operator(x))
    torch.testing.assert_close(near.jvp(p), torch.func.jvp(operator.forward, (x,), (p,))[1])
    assert_adjoint(near.jvp, near.vjp, x.shape, generator)


def assert_batch_independent(function: Callable[[Tensor], Tensor], x: Tensor, rtol: float | None = None, atol: float | None = None) -> None:
    """Each image of a batch gives what it gives alone and among others."""
    together = function(x)
    alone = torch.cat([function(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=rtol, atol=atol)
    torch.testing.assert_close(function(x.flip(0)).flip(0), together, rtol=rtol, atol=atol)
