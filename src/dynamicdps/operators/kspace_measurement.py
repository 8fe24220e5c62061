"""What a raw scan measured of a brain: its phase and sensitivities, its noise, and the k-space that is left to explain."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.kspace import coils_as_channels
from dynamicdps.operators.kspace_encoding import EncodedOperator, Encoding
from dynamicdps.operators.linear import conjugate_gradients
from dynamicdps.operators.operator import Operator, Size
from dynamicdps.operators.weighting import Weighting
from dynamicdps.volumes import RawScan, from_slices, to_batch, to_slices
from dynamicdps.volumes.noise_estimate import NoiseEstimate, background_noise

# Phase and sensitivities are taken as smooth over this length.
SMOOTH_MM = 8.0
COARSE_MM = 32.0
# What is darker than so many standard deviations of its noise has no phase of its own.
_SIGNAL = 3.0
_FEWEST_LINES = 2
_FEWEST_CORNERS = 200
_ITERATIONS = 40
_TOLERANCE = 1e-4
# Share of what is wholly sampled. Frequencies that phase carries over the edge of what is sampled, and aliases that coils hardly tell
# apart, are hardly seen. In k-space what explains them stays small, in the image their noise would grow without bounds: there it is damped.
_RIDGE, _IMAGE_RIDGE = 1e-3, 0.05


@dataclass(frozen=True, eq=False)
class KSpaceMeasurement:
    """The k-space of a scan's brain.

    Attributes:
        data: ``(1, 2 coils, depth, ky, kx)``, units of the file.
        encoding: Q, from images of the brain's box.
        weights: W, 1 in the brain and 0 outside, ``(z, y, x)`` of the box; `None` where the scan holds nothing else.
        image: what `data` is the k-space of, on the box ``(x, y, z)``, RAS order: real, of both signs where there is only noise.
        noise_std: standard deviation of the noise of the real and of the imaginary part of each sample, units of the file.
        share: share of `data` that counts.
        unexplained: root mean square of what no real image explains, in standard deviations of the noise: 1 is noise alone.
    """

    data: Tensor
    encoding: Encoding
    weights: Tensor | None
    image: NDArray[np.float32]
    noise_std: float
    share: float
    unexplained: float

    def operator(self, inner: Operator) -> EncodedOperator:
        """``A = Q W B`` with B, which measures on the grid of the box."""
        weighted = inner if self.weights is None else Weighting(self.weights) @ inner
        return EncodedOperator(weighted, self.encoding, self.share)

    def residual_image(self, residual: Tensor) -> NDArray[np.float32]:
        """A residual of `data` as an image of the box, ``(x, y, z)``; white noise keeps its standard deviation."""
        sampled = float(self.encoding.mask.double().mean())
        image = self.encoding.to_image(residual) / math.sqrt(sampled)
        if self.weights is not None:
            # Exactly 0 where nothing counts, as the residual of an image is.
            image = torch.where(self.weights.to(image.device) > 0, image, torch.zeros_like(image))
        return from_slices(image)

    def slice_misfits(self, residual: Tensor) -> NDArray[np.float64]:
        """Root mean square of a standardised residual of `data` over what counts of each slice, ``(slices,)``; without brain NaN."""
        square = residual[0].double().square().sum((0, 2, 3))
        inside = torch.ones(self.encoding.grid[::-1]) if self.weights is None else self._weights_of_grid()
        counts = inside.movedim(2 - self.encoding.orientation[2][0], 0).flatten(1).double().mean(1)
        counts = counts.flip(0) if self.encoding.orientation[2][1] < 0 else counts
        expected = counts / counts.sum() * self.share * residual[0].numel()
        return (square / torch.where(counts > 0, expected, torch.full_like(expected, torch.nan))).sqrt().cpu().numpy()

    def _weights_of_grid(self) -> Tensor:
        assert self.weights is not None
        (a, b, c), (x, y, z) = self.encoding.corner, self.weights.shape[::-1]
        whole = torch.zeros(self.encoding.grid[::-1])
        whole[c : c + z, b : b + y, a : a + x] = self.weights
        return whole


def measure_kspace(
    raw: RawScan,
    noise_std: float,
    *,
    weights: NDArray[Any] | None = None,
    box: tuple[slice, slice, slice] | None = None,
    generator: torch.Generator,
) -> KSpaceMeasurement:
    """The part of a scan's k-space that its brain is to explain.

    The scan measured ``y = Q u + n``, u real (Noll et al. 1991 for one coil, Pruessmann et al. 1999 for several) and all noise white.
    The least-squares image v of y splits the data term exactly: ``|y - Q u|^2 = |y - Q v|^2 + |Q v - Q u|^2``, so that Q v holds all that
    y says of u, and ``y - Q v`` tells only whether phase and sensitivities are right. Of Q v the k-space of what lies outside the brain
    is taken away: the measurement is ``Q v - Q (1 - W) v``, with W the mask, and the forward model ``Q W B``. That is exact where all of
    k-space is sampled, for there ``|Q W (v - B x)| = |W (v - B x)|``; else it is an approximation in so far as v is not u outside: aliases
    that the real image and the coils do not resolve stay. There v is damped (`_IMAGE_RIDGE`).

    Args:
        raw: with square voxels; exact zeros were not sampled.
        noise_std: as `kspace_noise` has it.
        weights: W, on the box, ``(x, y, z)`` in RAS order.
        box: where the brain is in the grid in RAS order; by default all.
        generator: draws the noise that `share` and `unexplained` are measured with.

    Raises:
        InputError: the middle of k-space was not sampled.
    """
    y = coils_as_channels(torch.from_numpy(raw.kspace)[None])
    orientation = tuple((int(axis), int(sign)) for axis, sign in raw.orientation)
    whole = Encoding(torch.from_numpy(raw.sampled), torch.from_numpy(smooth_maps(raw, noise_std)), orientation)  # type: ignore[arg-type]
    spans = box or tuple(slice(0, n) for n in whole.grid)
    corner: Size = tuple(span.start for span in spans)  # type: ignore[assignment]
    size: Size = tuple(span.stop - span.start for span in spans)  # type: ignore[assignment]
    part = replace(whole, box=size, corner=corner)
    kept = None if weights is None else to_slices(np.asarray(weights, dtype=np.float32))[:, 0]

    def explained(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a real image explains, what none does, and the image in the box."""
        best = whole.to_kspace(real_image(whole, samples))
        image = real_image(whole, samples, _IMAGE_RIDGE)
        spanned = image[:, :, spans[2], spans[1], spans[0]]
        inside = spanned if kept is None else spanned * kept
        outside = whole.to_kspace(image) - part.to_kspace(inside)
        return best - outside, samples - best, spanned

    data, left, image = explained(y)
    noise = whole.mask * torch.randn(y.shape, generator=generator)
    noise_data, noise_left, _ = explained(noise)
    share = float(noise_data.double().square().mean())
    rest = float(noise_left.double().square().sum())
    # Coils and samples that leave nothing over tell nothing.
    unexplained = float(left.double().norm()) / (noise_std * math.sqrt(rest)) if rest > 1e-3 * float(whole.mask.sum()) else 1.0
    return KSpaceMeasurement(data, part, kept, from_slices(image), noise_std, share, unexplained)


def real_image(encoding: Encoding, samples: Tensor, ridge: float = _RIDGE) -> Tensor:
    """The real image that explains samples best, by conjugate gradients; exact in one step where all of k-space is sampled.

    Args:
        encoding: Q.
        samples: ``(batch, 2 coils, depth, ky, kx)``.
        ridge: what is hardly seen is damped (Tikhonov): noise grows by no more than ``(1 + ridge) / (2 sqrt(ridge))``.
    """

    def normal(u: Tensor) -> Tensor:
        return encoding.to_image(encoding.to_kspace(u)) + ridge * u

    # The ridge is there for what is not sampled: elsewhere it is undone.
    return (1 + ridge) * conjugate_gradients(normal, encoding.to_image(samples), _ITERATIONS, _TOLERANCE).x


def smooth_maps(raw: RawScan, noise_std: float) -> NDArray[np.complex64]:
    """Sensitivities of the coils with the image's phase, from the middle of k-space, ``(coils, depth, y, x)``.

    Each coil's image at a resolution of `SMOOTH_MM`, divided by the root of the sum of squares over coils: the squares add up to 1, and the
    coils' images multiplied by the conjugates are real and positive where the phase is smooth (for one coil: homodyne, Noll et al. 1991).
    In the air, where that would be the noise's own phase, the resolution is `COARSE_MM`.

    Args:
        raw: the k-space.
        noise_std: as `kspace_noise` has it.

    Raises:
        InputError: the middle of k-space was not sampled.
    """
    fine, noise = _smooth_images(raw, SMOOTH_MM)
    coarse, _ = _smooth_images(raw, COARSE_MM)
    dark = (np.abs(fine) ** 2).sum(0) < (_SIGNAL * noise * noise_std) ** 2 * 2 * len(fine)
    smooth = np.where(dark, coarse, fine)
    size = np.sqrt((np.abs(smooth) ** 2).sum(0, keepdims=True))
    equal = np.full_like(smooth, 1 / math.sqrt(len(smooth)))
    return np.where(size > 0, smooth / np.maximum(size, np.finfo(np.float32).tiny), equal).astype(np.complex64)


def _smooth_images(raw: RawScan, length_mm: float) -> tuple[NDArray[np.complex64], float]:
    """Complex images at a low resolution, and what is left of a standard deviation of 1 in each sample."""
    ny, nx = raw.sampled.shape[1:]
    lengths = np.linalg.norm(raw.affine[:3, :2], axis=0) * (nx, ny)
    middle = np.asarray(raw.sampled.all(0))
    windows = []
    for line, length in zip((middle[ny // 2], middle[:, nx // 2]), lengths, strict=True):
        reach = _run(line)
        if reach < min(_FEWEST_LINES, (len(line) - 1) // 2):
            raise InputError("the middle of k-space is not sampled; expected at least five lines there to find the phase; check the file")
        half = max(1, min(round(length / length_mm), reach))
        offset = np.arange(len(line)) - len(line) // 2
        windows.append(np.where(np.abs(offset) <= half, np.cos(np.pi * offset / (2 * (half + 1))) ** 2, 0.0))
    window = windows[1][:, None] * windows[0]
    return replace(raw, kspace=(raw.kspace * window).astype(np.complex64)).images, math.sqrt((window**2).mean())


def kspace_noise(raw: RawScan) -> NoiseEstimate:
    """Standard deviation of the noise in the real and in the imaginary part of each sample, units of the file.

    From the air around the head in the magnitude; without air from the corners of k-space, outside the ellipse that its
    samples span, where nearly nothing but noise is.

    Raises:
        InputError: there is neither.
    """
    sampled = raw.sampled
    try:
        magnitude = to_batch(raw.magnitude().data)
        found = background_noise(magnitude, coils=len(raw.kspace))
        return replace(found, std=found.std / math.sqrt(sampled.mean()))
    except InputError as error:
        rows, columns = (np.asarray(sampled.any(axes)) for axes in ((0, 2), (0, 1)))
        v, u = (2 * (np.arange(len(line)) - len(line) // 2) / max(1, line.sum()) for line in (rows, columns))
        corner = sampled & (v[:, None] ** 2 + u**2 > 1)
        if corner.sum() * len(raw.kspace) < _FEWEST_CORNERS:
            raise InputError(f"the noise of the k-space is not known: {error}") from error
        # Of the square of a complex normal number the median is 2 ln 2 times its parts' variance.
        std = math.sqrt(float(np.median(np.abs(raw.kspace[:, corner]) ** 2)) / (2 * math.log(2)))
        remark = "the noise was measured in the corners of k-space, because the image has no air: it is too high where they hold signal"
        return NoiseEstimate(torch.tensor([std]), ("background",), (remark,))


def _run(line: NDArray[np.bool_]) -> int:
    """How far it is sampled without a gap to both sides of the middle, at least 0; -1 if the middle is not."""
    middle = len(line) // 2
    gaps = np.flatnonzero(~line)
    ahead, behind = len(line) - middle, middle + 1
    reach = min([ahead, behind, *np.abs(gaps - middle).tolist()])
    return int(reach) - 1
