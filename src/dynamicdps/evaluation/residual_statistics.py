"""Is the residual noise? Whiteness of ``(y - A(x)) / noise_std``, each number with what noise alone would give."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

OUTLIER = 3.0
# Of a standard normal variable beyond 3 standard deviations, either side.
OUTLIER_SHARE = math.erfc(OUTLIER / math.sqrt(2))


@dataclass(frozen=True)
class Statistic:
    """A number of each image, ``(batch,)``, beside its mean and standard deviation for white standard normal noise."""

    value: Tensor
    expected: Tensor
    std: Tensor

    @property
    def z(self) -> Tensor:
        """How many standard deviations it lies above what noise gives."""
        return (self.value - self.expected) / self.std


@dataclass(frozen=True)
class ResidualStatistics:
    """How the residual differs from noise.

    Attributes:
        rms: root mean square; above 1 the image does not explain the measurement, below 1 it follows the noise.
        autocorrelation: of neighbours in the plane, from -1 to 1; above 0 structure is left, below 0 detail was sharpened too much.
        flatness: geometric over arithmetic mean of the radial power spectrum, from 0 to 1; small where one scale stands out.
        outliers: share beyond 3 standard deviations; large where something small is wrong.
    """

    rms: Statistic
    autocorrelation: Statistic
    flatness: Statistic
    outliers: Statistic


def residual_statistics(residual: Tensor, mask: Tensor | None = None) -> ResidualStatistics:
    """Statistics of a residual in standard deviations of the noise, as `DataTerm.whitened` gives it.

    Expectations are for white standard normal noise, to first order in one over the number of voxels. Those of the flatness take
    frequencies as independent, with a mask as many as its share, which makes its standard deviation up to twice too large there. A
    reconstruction fitted to the same measurement takes some noise with it: its rms is below 1 by about half the share of degrees of
    freedom that it used.

    Args:
        residual: ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``, in standard deviations of the noise.
        mask: measured voxels that count, booleans that broadcast to it; at least two neighbours. By default all.

    Raises:
        ValueError: the shape is not that of images.
    """
    if residual.ndim not in (4, 5):
        raise ValueError(f"the residual has shape {tuple(residual.shape)}; expected (batch, 1, height, width) or a volume's")
    inside = torch.ones_like(residual, dtype=torch.bool) if mask is None else mask.expand_as(residual)
    r = torch.where(inside, residual.double(), torch.zeros((), dtype=torch.float64, device=residual.device))
    count = inside.double().flatten(1).sum(1)
    square = _total(r.square())
    rms = Statistic((square / count).sqrt(), torch.ones_like(count), (2 * count).rsqrt())

    product, pairs = torch.zeros_like(count), torch.zeros_like(count)
    for axis in (-1, -2):
        size = r.shape[axis] - 1
        product = product + _total(r.narrow(axis, 0, size) * r.narrow(axis, 1, size))
        pairs = pairs + _total((inside.narrow(axis, 0, size) & inside.narrow(axis, 1, size)).double())
    autocorrelation = Statistic(product / pairs / (square / count), torch.zeros_like(count), pairs.rsqrt())

    share = _total((r.abs() > OUTLIER).double()) / count
    expected = torch.full_like(share, OUTLIER_SHARE)
    outliers = Statistic(share, expected, (expected * (1 - expected) / count).sqrt())
    return ResidualStatistics(rms, autocorrelation, _flatness(r, inside.double().flatten(1).mean(1)), outliers)


def _flatness(r: Tensor, inside: Tensor) -> Statistic:
    """Spectral flatness over rings of equal frequency in the plane.

    The mean power m of n independent frequencies of noise has a gamma distribution: ``E log m = digamma(n) - log n`` and
    ``var(log m - m) = trigamma(n) - 1 / n``.
    """
    height, width = r.shape[-2:]
    slices = r[0].numel() // (height * width)
    power = torch.fft.rfft2(r, norm="ortho").abs().square().reshape(len(r), slices, -1).sum(1)
    v = torch.fft.fftfreq(height, dtype=r.dtype, device=r.device)[:, None]
    u = torch.fft.rfftfreq(width, dtype=r.dtype, device=r.device)[None]
    rings = max(min(height, width) // 2, 1)
    ring = ((v.square() + u.square()).sqrt() * 2 * rings).round().long()
    # The mean is left out, and so are the corners beyond the inscribed circle.
    index = torch.where(ring <= rings, ring, torch.zeros_like(ring)).flatten()
    # Frequencies that are their own mirror images, or whose mirror image is there too, count half.
    weight = torch.where((u == 0) | (u == 0.5), 0.5, 1.0).to(r).expand(ring.shape).flatten()
    total = torch.zeros(len(r), rings + 1, dtype=r.dtype, device=r.device).index_add(1, index, power * weight)[:, 1:]
    number = slices * torch.zeros(rings + 1, dtype=r.dtype, device=r.device).index_add(0, index, weight)[1:]
    mean = (total / number).clamp_min(1e-300)
    n = number[None] * inside[:, None]
    expected = ((torch.digamma(n) - n.log()).mean(1) + (1 / n).sum(1) / (2 * rings**2)).exp()
    std = (torch.polygamma(1, n) - 1 / n).sum(1).sqrt() / rings
    return Statistic(mean.log().mean(1).exp() / mean.mean(1), expected, expected * std)


def _total(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)
