"""Inner products of each image of a batch, and parts of a batch."""

from torch import Tensor

from dynamicdps.operators.precision import wide


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each image, ``(batch,)``: rows are summed in the tensor's type and accumulated in `wide`, so large images lose no
    precision.
    """
    return wide((a * b).sum(-1)).reshape(len(a), -1).sum(1)


def take(a: Tensor, index: Tensor) -> Tensor:
    """``a[index]``; `a` itself where that is all of it."""
    return a if len(index) == len(a) else a[index]


def put(a: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """`a` with the values at the indices; the values themselves where those are all."""
    return values if len(index) == len(a) else a.index_copy(0, index, values)


def norm(a: Tensor) -> Tensor:
    """Euclidean norm of each image, ``(batch,)``, greater than 0."""
    return inner(a, a).sqrt().clamp_min(1e-12)
