"""Patches that do not follow the truth: scanning Fourier ring correlation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.errors import InputError

SMALLEST_PATCH = 8


@dataclass(frozen=True)
class RingCorrelation:
    """Patches whose correlation with the truth is lost too early.

    Attributes:
        boxes: first row and column of each such patch with its slice, ``(slice, row, column)``.
        patch: length of the square patches in pixels.
        patches: patches that were looked at.
        crossings: frequency in cycles/mm where each one's correlation falls under the threshold, ``(patches,)``; infinite where never.
    """

    boxes: list[tuple[int, int, int]]
    patch: int
    patches: int
    crossings: Tensor

    @property
    def count(self) -> int:
        return len(self.boxes)

    @property
    def share(self) -> float:
        """Share of the patches; NaN where there were none."""
        return self.count / self.patches if self.patches else math.nan


def scanning_frc(
    image: Tensor,
    truth: Tensor,
    mask: Tensor,
    *,
    frequency: float,
    spacing: float = 1.0,
    patch: int = 32,
    stride: int | None = None,
    threshold: float = 0.5,
    floor: float = 0.01,
) -> RingCorrelation:
    """Scanning Fourier ring correlation (sFRC; Kc, Zeng, Soni and Badano, arXiv:2603.04673).

    Patches scan image and truth; one whose Fourier ring correlation first falls under the threshold at less than `frequency` is a
    suspect: below that frequency the measurement resolves the truth, so that what disagrees is invented or lost there. As in
    the authors' program, patches have a Hann window and the threshold is a constant.

    Three things are our own: patches overlap by half by default, because the window hides what lies in their corners; the means
    are taken off first, because they would leak into the first ring; and `floor` is added to both spectra, so that rings without
    structure in either image, only faint noise, count as agreeing.

    Args:
        image: ``(slices, 1, height, width)``, [0, 1].
        truth: the same shape.
        mask: brain, booleans that broadcast to it; patches that are at least half brain are looked at.
        frequency: cycles/mm, below the measurement's Nyquist frequency (`nyquist_frequency`); half of it is a start. Tune it on
            images whose faults are known, as the authors do.
        spacing: of pixels in mm.
        patch: length of a patch in pixels, at least 8.
        stride: distance of patches in pixels, at least 1; by default half the patch.
        threshold: of the correlation, from 0 to 1.
        floor: amplitude of structure that may differ, image intensities.

    Raises:
        InputError: the patch does not fit the slices, or a number is out of range.
        ValueError: the shapes differ or are not those of slices.
    """
    if image.shape != truth.shape or image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f"slices have shapes {tuple(image.shape)} and {tuple(truth.shape)}; expected (slices, 1, height, width) twice")
    if not SMALLEST_PATCH <= patch <= min(image.shape[-2:]):
        size = " x ".join(map(str, image.shape[-2:]))
        raise InputError(f"the patch is {patch} pixels; expected from {SMALLEST_PATCH} to what slices of {size} pixels hold")
    if not (frequency > 0 and spacing > 0 and 0 < threshold < 1 and floor >= 0 and (stride is None or stride >= 1)):
        raise InputError(
            f"frequency, spacing, threshold, floor and stride are {frequency}, {spacing}, {threshold}, {floor}, {stride}; expected "
            "numbers greater than 0 and a threshold below 1; change them"
        )
    step = patch // 2 if stride is None else stride

    def scan(u: Tensor) -> Tensor:
        return u[:, 0].double().unfold(-2, patch, step).unfold(-2, patch, step)

    where = (scan(mask.expand_as(truth)).mean((-2, -1)) >= 0.5).nonzero()
    index = tuple(where.unbind(1))
    if not len(where):
        return RingCorrelation([], patch, 0, torch.zeros(0, dtype=torch.float64, device=image.device))
    correlation = fourier_ring_correlation(scan(image)[index], scan(truth)[index], floor)
    crossings = _first_crossing(correlation, threshold) / (patch * spacing)
    early = where[crossings < frequency].tolist()
    return RingCorrelation([(s, row * step, column * step) for s, row, column in early], patch, len(where), crossings)


def fourier_ring_correlation(a: Tensor, b: Tensor, floor: float = 0.0) -> Tensor:
    """Correlation of two images on rings of equal frequency (Saxton and Baumeister 1982), with a Hann window, means taken off.

    Args:
        a: square images ``(batch, n, n)``.
        b: the same shape.
        floor: standard deviation of white structure that both are taken to share.

    Returns:
        ``(batch, n // 2)``, from -1 to 1; ring k holds k cycles an image, to half a ring. Ring 0 is 1 by definition: the means are off.
    """
    n = a.shape[-1]
    line = torch.hann_window(n, periodic=False, dtype=a.dtype, device=a.device)
    window = line[:, None] * line[None]
    first, second = (torch.fft.fft2((u - u.mean((-2, -1), keepdim=True)) * window, norm="ortho") for u in (a, b))
    cycles = torch.fft.fftfreq(n, 1 / n, dtype=a.dtype, device=a.device)
    ring = (cycles[:, None].square() + cycles[None].square()).sqrt().round().long().flatten()
    # Rings beyond the inscribed circle are only corners.
    rings = n // 2
    ring = ring.clamp(max=rings)

    def total(power: Tensor) -> Tensor:
        sums = torch.zeros(len(a), rings + 1, dtype=a.dtype, device=a.device)
        return sums.index_add(1, ring, power.flatten(1) + floor**2 * window.square().mean())[:, :rings]

    cross = total((first * second.conj()).real)
    power = total(first.abs().square()) * total(second.abs().square())
    correlation = torch.where(power > 0, cross / power.clamp_min(1e-300).sqrt(), torch.ones_like(cross))
    return torch.cat([torch.ones_like(correlation[:, :1]), correlation[:, 1:]], 1)


def _first_crossing(correlation: Tensor, threshold: float) -> Tensor:
    """Ring, interpolated, where each curve first falls under the threshold; infinite where it does not."""
    below = correlation < threshold
    ring = below.long().argmax(1).clamp_min(1)
    after = correlation.gather(1, ring[:, None])[:, 0]
    before = correlation.gather(1, ring[:, None] - 1)[:, 0]
    crossing = ring - (threshold - after) / (before - after).clamp_min(1e-12)
    return torch.where(below.any(1), crossing, torch.full_like(crossing, math.inf))
