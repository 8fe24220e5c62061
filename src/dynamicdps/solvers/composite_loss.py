"""The paper's data loss: the residual's norm, its edges, and the structural similarity of patches."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators.inner_products import inner

EDGE_WEIGHT, STRUCTURE_WEIGHT = 0.5, 0.1
PATCH = 32
STABILISERS = (0.01**2, 0.03**2)


def composite_loss(term: DataTerm, x: Tensor) -> tuple[Tensor, Tensor]:
    """``|r| + 0.5 |Sobel r| + 0.1 |1 - SSIM over patches|`` with ``r = y - A(x)``, for each image.

    In the paper's units: intensities in [0, 2] (Kim et al. 2025 and its implementation). Patches are 32 pixels or the whole
    measurement where that is smaller. Volumes are taken slice by slice.

    Args:
        term: the measurement.
        x: clean images.

    Returns:
        The loss, ``(batch,)``, float64, and its gradient with respect to `x`.
    """
    linearised = term.linearise(x)
    with torch.enable_grad():
        predicted = linearised.value.detach().requires_grad_()
        value = _loss(term.target, predicted)
        slope = torch.autograd.grad(value.sum(), predicted)[0]
    return value.detach(), linearised.vjp(slope)


def _loss(y: Tensor, predicted: Tensor) -> Tensor:
    residual = 2 * (y - predicted)
    edges = sobel(residual)
    structure = 1 - _patch_similarity(2 * y, 2 * predicted)

    def norm(a: Tensor) -> Tensor:
        return (inner(a, a) + 1e-12).sqrt()

    return norm(residual) + EDGE_WEIGHT * norm(edges) + STRUCTURE_WEIGHT * norm(structure)


def sobel(x: Tensor) -> Tensor:
    """Both Sobel derivatives in the plane, stacked in a new second axis; edges replicated."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=x.dtype, device=x.device)
    flat = x.reshape(-1, 1, *x.shape[-2:])
    out = F.conv2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None])
    return out.view(x.shape[0], -1, *x.shape[-2:])


def _patch_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of whole patches (one mean, variance and covariance each), ``(batch, patches)``, range 2."""
    height, width = a.shape[-2:]
    size = min(PATCH, height), min(PATCH, width)

    def patches(x: Tensor) -> Tensor:
        unfolded = F.unfold(x.reshape(-1, 1, height, width), size, stride=size)
        return unfolded.view(x.shape[0], -1, unfolded.shape[1], unfolded.shape[2]).movedim(2, -1).flatten(1, 2)

    p, q = patches(a), patches(b)
    mean_p, mean_q = p.mean(-1), q.mean(-1)
    variance_p, variance_q = p.var(-1, correction=0), q.var(-1, correction=0)
    covariance = ((p - mean_p[..., None]) * (q - mean_q[..., None])).mean(-1)
    c1, c2 = (4 * c for c in STABILISERS)
    top = (2 * mean_p * mean_q + c1) * (2 * covariance + c2)
    return top / ((mean_p.square() + mean_q.square() + c1) * (variance_p + variance_q + c2))
