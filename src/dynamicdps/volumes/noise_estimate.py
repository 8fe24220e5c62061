"""Standard deviation of a scan's noise, from its background or from its finest details."""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.nn import functional

from dynamicdps.errors import InputError
from dynamicdps.volumes.acquired_matrix import acquired_matrix, on_acquired_matrix
from dynamicdps.volumes.acquisition import across_slices
from dynamicdps.volumes.brain_scan import BrainScan
from dynamicdps.volumes.slices import to_batch

KINDS = ("auto", "background", "image")
MAD_OF_NORMAL = 0.6744897501960817  # median of |z|, z standard normal

# Background: windows of air are chosen, voxels in them measured.
_WINDOW = 5
_MOST_ZEROS = 0.3  # share of exact zeros in a window beyond which it is masked, not measured
_MASKED = 0.05  # share of exact zeros in a scan beyond which they, not the lack of air, are the reason
_FEWEST_VOXELS = 200
_SMALLEST_SHARE = 0.02  # of all voxels
_TRIM = 0.9  # probability below which squared intensities are used
_SPREAD_TOLERANCE = 0.05  # deviation of the background's spread from the noise model's, as a share; real Rayleigh air stays within 0.01
_FEWEST_PAIRS = 1000
_CLIPPED = 0.99
_LAGS = 8
_SLOPE = 33
_LEAST_SHARE = 0.25  # zero-filling doubles a matrix each way; air that is smoother than that was filtered, and says nothing of the brain
_WHITE = 0.9  # share of independent voxels above which noise is taken as white

# Image: diagonal details are measured where the image is quiet.
_QUIET_SHARE = 0.25
_FEWEST_DETAILS = 500
_STRONGER = 1.1  # noise of the brain over that of the air from which on the brain's counts: the finest details err by a tenth
_TISSUE = 0.3  # share of the image's 99th percentile above which a place without a mask is tissue
_COARSE_TO_FINE = 1.5  # ratio of coarse to fine diagonal details beyond which they are not white noise


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """Noise of each image of a batch.

    Attributes:
        std: standard deviation, ``(batch,)``, units of the images. Of a magnitude: of each channel of the complex signal behind it.
        method: ``"background"`` or ``"image"``, for each image.
        warnings: what limits the estimates, one sentence each.
    """

    std: Tensor
    method: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """Noise of one image.

    Attributes:
        std: standard deviation; none where it cannot be told.
        remark: why not, or what limits it; a clause without a full stop.
    """

    std: float | None
    remark: str | None = None


def estimate_noise(y: Tensor, mask: Tensor | None = None, kind: str = "auto", coils: int = 1) -> NoiseEstimate:
    """Standard deviation of the noise of each image.

    The background is preferred: there is no anatomy in it. Scans without one (skull-stripped) are measured inside the brain.

    Args:
        y: measurements ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``, any units. A volume has one value.
        mask: voxels of the head or brain, same shape, boolean; by default found from the intensities.
        kind: ``"background"``, ``"image"``, or ``"auto"``: the background where there is one.
        coils: receive coils of a root-sum-of-squares magnitude; 1 for a Rician one.

    Raises:
        InputError: an image does not allow the estimate asked for, or shape, kind or coils are out of range.
    """
    if kind not in KINDS:
        raise InputError(f"kind of the noise estimate is {kind!r}; expected one of {', '.join(KINDS)}")
    if kind == "background":
        return background_noise(y, None if mask is None else ~_like(mask, y), coils, search=True)
    if kind == "image":
        return image_noise(y, mask)
    _check(y, coils)
    air = None if mask is None else ~_like(mask, y)
    found, method = [], []
    for i in range(len(y)):
        here = _background(y[i], None if air is None else air[i], coils, search=True)
        method.append("image" if here.std is None else "background")
        if here.std is None:
            inside = _image(y[i], None if mask is None else _like(mask, y)[i])
            remarks = [text for text in (here.remark, inside.remark) if text]
            here = _Found(inside.std, "; ".join(remarks))
        found.append(here)
    return _collect(found, tuple(method), y)


def scan_noise(scan: BrainScan) -> NoiseEstimate:
    """Noise of a scan in its own units, as strong as a forward model of white noise has to take it.

    It is measured in the air around the head where there is any; see `estimate_noise`. Scanners zero-fill k-space and interpolate:
    neighbouring voxels then share their noise, and n of them know less than n voxels. If a share s is independent, noise that is
    stronger by ``1 / sqrt(s)`` weighs what was measured rightly; noise alone then has a data misfit of the root of s. The share is that of
    the acquired matrix where the spectrum shows one, because faint ghosts of the head in the air are alike in neighbouring voxels too.

    Air may have less noise than the brain: what goes with the signal (an unsteady field, interference that is taken off badly) lies on the
    head. On the acquired matrix noise is white and the brain's finest details are read as well; the stronger of the two counts.
    """
    y = to_batch(scan.whole.data)
    if scan.weights is None:
        return estimate_noise(y)
    try:
        found = background_noise(y)
    except InputError:
        # A scanner that sets the air to 0: the quietest tissue of the brain is what is left.
        return image_noise(y, to_batch(scan.mask.inside) > 0)
    matrix = acquired_matrix(scan.whole)
    filled = matrix != scan.whole.shape
    if filled:
        found = _at_least_the_brains(found, scan, matrix)
    share = max(math.prod(matrix) / scan.whole.data.size if filled else independent_share(y[0]), _LEAST_SHARE)
    if share > _WHITE:
        return found
    remark = (
        f"the noise of neighbouring voxels is correlated, as in an interpolated or zero-filled scan: {share:.0%} of them count as "
        f"independent, and the noise as {share**-0.5:.2f} times as strong"
    )
    return replace(found, std=found.std * share**-0.5, warnings=(*found.warnings, remark))


def _at_least_the_brains(air: NoiseEstimate, scan: BrainScan, matrix: tuple[int, int, int]) -> NoiseEstimate:
    """The noise of a zero-filled scan's air, or that of its brain where it is stronger and as white as noise."""
    places = np.ix_(*(np.arange(count) * size // count for count, size in zip(matrix, scan.whole.shape, strict=True)))
    acquired = on_acquired_matrix(scan.whole.data, matrix)
    # Details are those of the slices, whichever axis these lie along.
    across = across_slices(scan.whole.spacing)
    slices, inside = (to_batch(np.moveaxis(v, 2 if across is None else across, 2)) for v in (acquired, scan.mask.inside[places]))
    try:
        brain = image_noise(slices, inside)
    except InputError:
        return air
    ratio = float(brain.std / air.std)
    if brain.warnings or ratio < _STRONGER:
        return air
    remark = f"the noise in the brain is {ratio:.2f} times that of the air around the head, and counts"
    return replace(brain, warnings=(*air.warnings, remark))


def independent_share(image: Tensor) -> float:
    """Share of the voxels of a slice that are independent, from the noise in the air around the head.

    It is one over the sum of the squared correlations with all other voxels of the slice: for zero-filled k-space the share that was
    measured. The covariance of the squares of two noise voxels is that of the voxels squared, for real noise and magnitudes alike
    (Isserlis 1918), so that no phase is needed.

    Args:
        image: magnitude or real image of one coil, ``(1, height, width)`` or ``(1, depth, height, width)``, any units.

    Returns:
        0 to 1; 1 for white noise, and where there is not enough air.
    """
    slices = image.detach().double().reshape(-1, 1, *image.shape[-2:])
    air = _windows_of_air(slices, torch.ones_like(slices, dtype=torch.bool), 1)
    if int(air.sum()) < _FEWEST_PAIRS:
        return 1.0
    squares = slices.square()
    # Ghosts and the head's rim are among the air: a few large squares must not decide.
    squares = squares.clamp_max(float(torch.quantile(_sample(squares[air]), _CLIPPED)))
    # Air that is brighter on one side of the head has a slope, not correlated noise.
    pool = functools.partial(functional.avg_pool2d, kernel_size=_SLOPE, stride=1, padding=_SLOPE // 2)
    local = pool(torch.where(air, squares, torch.zeros_like(squares))) / pool(air.double()).clamp_min(1e-9)
    squares = torch.where(air, squares - local, torch.zeros_like(squares))
    variance = float(squares.square().sum() / air.sum())
    share = 1.0
    for axis in (-2, -1):
        sums = 1.0
        for lag in range(1, min(_LAGS, slices.shape[axis] - 1) + 1):
            length = slices.shape[axis] - lag
            pairs = (air.narrow(axis, 0, length) & air.narrow(axis, lag, length)).sum()
            together = (squares.narrow(axis, 0, length) * squares.narrow(axis, lag, length)).sum()
            correlation = float(together / pairs.clamp_min(1)) / variance if int(pairs) >= _FEWEST_PAIRS else 0.0
            sums += 2 * max(correlation, 0.0) * (correlation > 3 / math.sqrt(max(1, int(pairs))))
        share /= sums
    return share


def background_noise(y: Tensor, air: Tensor | None = None, coils: int = 1, search: bool | None = None) -> NoiseEstimate:
    """Noise from the air around the head, where a magnitude is Rayleigh or chi distributed (Gudbjartsson and Patz 1995).

    Air is found as the windows whose mean square fits noise of the darkest ones, as in PIESNO (Koay et al. 2009); a scan whose
    background takes both signs is not a magnitude, and its noise is normal. The value follows from the squares below their 90 %
    quantile, so that signal voxels among the air do not count.

    Args:
        y: as for `estimate_noise`.
        air: voxels of the background, same shape, boolean; by default it is found.
        coils: as for `estimate_noise`.
        search: look for windows of air inside `air`; by default only where `air` is not given.

    Raises:
        InputError: an image has no background with noise, with the reason.
    """
    _check(y, coils)
    air = None if air is None else _like(air, y)
    search = air is None if search is None else search
    found = [_background(y[i], None if air is None else air[i], coils, search) for i in range(len(y))]
    return _collect(found, ("background",) * len(y), y)


def image_noise(y: Tensor, mask: Tensor | None = None) -> NoiseEstimate:
    """Noise from the median of the finest diagonal wavelet details (Donoho and Johnstone 1994), Haar, in the plane, all shifts.

    Anatomy is in the details too, most at edges. Only the quarter of the places with the least contrast to their neighbours in
    the other three wavelet bands counts: of white noise these bands are independent of the details, so the choice does not bias
    the median. Magnitudes (images without negative values) are corrected for the smaller spread of Rician noise at low signal
    (Koay and Basser 2006): within 8 % from a signal-to-noise ratio of 2, up to 30 % too high at 1.

    White noise is assumed: a scan that was interpolated or zero-filled has finest details that are too small. Where voxels are
    so coarse or noise so little that anatomy fills the finest details, the estimate is too high; a warning says so where it shows.

    Args:
        y: as for `estimate_noise`.
        mask: as for `estimate_noise`; by default where the image is above 0.3 of its 99th percentile.

    Raises:
        InputError: an image has too few such places.
    """
    _check(y, 1)
    mask = None if mask is None else _like(mask, y)
    found = [_image(y[i], None if mask is None else mask[i]) for i in range(len(y))]
    return _collect(found, ("image",) * len(y), y)


def _check(y: Tensor, coils: int) -> None:
    if y.ndim not in (4, 5) or y.shape[1] != 1:
        raise InputError(
            f"the measurement has shape {tuple(y.shape)}; expected (batch, 1, height, width) or (batch, 1, depth, height, width); "
            "give one channel"
        )
    if coils < 1:
        raise InputError(f"coils is {coils}; expected a number from 1")
    if not bool(torch.isfinite(y).all()):
        raise InputError("the measurement has values that are not finite; expected numbers; mask or repair them")


def _like(mask: Tensor, y: Tensor) -> Tensor:
    if mask.shape != y.shape:
        raise InputError(f"the mask has shape {tuple(mask.shape)}; expected the measurement's, {tuple(y.shape)}; resample it")
    return mask.to(y.device) > 0


def _collect(found: list[_Found], method: tuple[str, ...], y: Tensor) -> NoiseEstimate:
    several = len(found) > 1
    for i, here in enumerate(found):
        if here.std is None:
            which = f"image {i}" if several else "the scan"
            raise InputError(
                f"the noise of {which} cannot be estimated: {here.remark}; expected a scan with noise; give its standard deviation"
            )
    std = torch.tensor([here.std for here in found], dtype=y.dtype, device=y.device)
    warnings = tuple(f"image {i}: {here.remark}" if several else here.remark for i, here in enumerate(found) if here.remark)
    return NoiseEstimate(std, method, warnings)


# -- from the background


def _background(image: Tensor, air: Tensor | None, coils: int, search: bool) -> _Found:
    """Noise of one image ``(1, ..., height, width)`` from its air."""
    slices = image.detach().double().reshape(-1, 1, *image.shape[-2:])
    allowed = torch.ones_like(slices, dtype=torch.bool) if air is None else air.reshape(slices.shape)
    chosen = _windows_of_air(slices, allowed, coils) if search else allowed
    values = _unrounded(slices[chosen])
    if values.numel() < max(_FEWEST_VOXELS, _SMALLEST_SHARE * slices.numel() if search else 0):
        return _Found(None, _no_background(slices, values.numel()))
    dof = _degrees(values, coils)
    variance = _trimmed_variance(values.square(), dof)
    if variance == 0:
        return _Found(None, _no_background(slices, 0))
    spread = _relative_spread(values, variance, dof)
    if abs(spread - 1) <= _SPREAD_TOLERANCE + 2 / math.sqrt(values.numel()):
        return _Found(math.sqrt(variance))
    if search and _share_of_zeros(slices) > _MASKED:
        return _Found(None, _no_background(slices, 0))
    remark = f"the background varies {spread:.2f} times as much as noise of {coils} coil{'s' * (coils > 1)} does"
    return _Found(None, remark) if search else _Found(math.sqrt(variance), remark)


def _no_background(slices: Tensor, count: int) -> str:
    zeros = _share_of_zeros(slices)
    if zeros > _MASKED:
        return f"{100 * zeros:.0f} % of the voxels are exactly 0, as in a skull-stripped scan, so there is no background with noise"
    return f"there is no background: {count} voxels look like air, {_FEWEST_VOXELS} are needed"


def _share_of_zeros(slices: Tensor) -> float:
    return float((slices == 0).double().mean())


def _degrees(values: Tensor, coils: int) -> int:
    """Degrees of freedom of the squares: two channels a coil, or one for an image that takes both signs."""
    return 1 if float((values < 0).double().mean()) > 0.25 else 2 * coils


def _windows_of_air(slices: Tensor, allowed: Tensor, coils: int) -> Tensor:
    """Voxels at the centre of windows whose mean square fits the darkest windows' noise."""
    if min(slices.shape[-2:]) < _WINDOW:
        return torch.zeros_like(allowed)
    square = _window_mean(slices.square())
    usable = (_window_mean(allowed.double()) > 1 - 1e-6) & (_window_mean((slices == 0).double()) <= _MOST_ZEROS)
    if not bool(usable.any()):
        return usable
    threshold = torch.quantile(_sample(square[usable]), 0.05) * (1 + 3.5 * math.sqrt(2 / (coils * _WINDOW**2)))
    chosen = usable & (square <= threshold)
    for _ in range(30):
        values = _unrounded(_sample(slices[chosen], 100_000))
        dof = _degrees(values, coils)
        variance = _trimmed_variance(values.square(), dof)
        # A window's mean of squares scatters by sqrt(2 / (dof * voxels)) of itself.
        new = usable & (square <= dof * variance * (1 + 3.5 * math.sqrt(2 / (dof * _WINDOW**2))))
        if bool((new == chosen).all()) or not bool(new.any()):
            break
        chosen = new
    return chosen


def _window_mean(x: Tensor) -> Tensor:
    """Mean over a square window; outside the slice the edge's values are not made up."""
    return functional.avg_pool2d(x, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)


def _sample(values: Tensor, most: int = 1_000_000) -> Tensor:
    """Evenly spaced values: they are enough for a quantile, and `torch.quantile` takes no more than 16 million."""
    return values[:: max(1, values.numel() // most)]


def _unrounded(values: Tensor) -> Tensor:
    """Values that were stored as integers, spread over their steps: a quantile of little noise would fall on a step's edge."""
    steps = torch.unique(values)
    if len(steps) < 2 or len(steps) > values.numel() / 20:
        return values
    noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(0), dtype=values.dtype).to(values.device)
    return values + float(steps.diff().median()) * (noise - 0.5)


def _trimmed_variance(square: Tensor, dof: int) -> float:
    """Variance s2 for which ``square / s2`` is chi-squared, from the squares below their 90 % quantile.

    Starts at the median's value; the mean below a quantile is more precise.
    """
    limit, below = _limit(dof), _mean_below(dof)
    variance = float(square.median()) / (2 * float(special.gammaincinv(dof / 2, 0.5)))
    for _ in range(50):
        kept = square[square <= limit * variance]
        if kept.numel() == 0:
            break
        new = float(kept.mean()) / below
        if abs(new - variance) <= 1e-6 * variance:
            break
        variance = new
    return variance


def _relative_spread(values: Tensor, variance: float, dof: int) -> float:
    """Spread over mean of the magnitudes below the quantile, as a multiple of the noise model's: 1 if they are noise."""
    kept = values.abs()[values.square() <= _limit(dof) * variance]
    mean, square = float(kept.mean()), float(kept.square().mean())
    # Moments of a chi variable below its quantile.
    chi_mean = (
        math.sqrt(2) * math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2)) * float(special.gammainc((dof + 1) / 2, _limit(dof) / 2))
    )
    expected = (chi_mean / _TRIM) ** 2 / _mean_below(dof)
    return math.sqrt(max(0.0, 1 - mean**2 / square) / (1 - expected))


def _limit(dof: int) -> float:
    """Quantile of chi-squared below which squares are used."""
    return 2 * float(special.gammaincinv(dof / 2, _TRIM))


def _mean_below(dof: int) -> float:
    """Mean of a chi-squared variable below that quantile."""
    return dof * float(special.gammainc(dof / 2 + 1, _limit(dof) / 2)) / _TRIM


# -- from the image


def _image(image: Tensor, mask: Tensor | None) -> _Found:
    """Noise of one image ``(1, ..., height, width)`` from its finest diagonal details."""
    slices = image.detach().double().reshape(-1, 1, *image.shape[-2:])
    if min(slices.shape[-2:]) < 8:
        return _Found(None, f"its slices have {slices.shape[-1]} x {slices.shape[-2]} voxels, fewer than 8 x 8")
    smooth, vertical, horizontal, diagonal = _haar(slices)
    inside = _inside(slices, smooth, None if mask is None else mask.reshape(slices.shape))
    count = int(inside.sum())
    if count < 50:
        return _Found(None, f"only {count} places lie inside the brain, 50 are needed")
    contrast = torch.stack([_steepest(smooth), 2 * vertical.abs(), 2 * horizontal.abs()]).amax(0)[inside]
    quiet = contrast.argsort()[: max(int(_QUIET_SHARE * count), min(_FEWEST_DETAILS, count))]
    fine = float(diagonal[inside][quiet].abs().median()) / MAD_OF_NORMAL
    if fine == 0:
        return _Found(None, "its finest details are exactly 0: it was interpolated, rounded or has no noise")
    coarse = float(_coarse_diagonal(smooth)[inside][quiet].abs().median()) / MAD_OF_NORMAL
    remark = None
    if coarse > _COARSE_TO_FINE * fine:
        remark = "details grow with their size as anatomy's or interpolated noise do, so the estimate from the image may be far off"
    if float(slices.min()) >= 0:
        fine = _without_rician_bias(fine, float(smooth[inside][quiet].median()) / 2)
    return _Found(fine, remark)


def _haar(slices: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four bands of one orthonormal Haar level at every shift, ``(slices, height - 1, width - 1)`` each."""
    a, b, c, d = slices[:, 0, :-1, :-1], slices[:, 0, :-1, 1:], slices[:, 0, 1:, :-1], slices[:, 0, 1:, 1:]
    return (a + b + c + d) / 2, (a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2


def _inside(slices: Tensor, smooth: Tensor, mask: Tensor | None) -> Tensor:
    """Places whose four voxels lie in the mask, or in tissue by their mean; never where voxels are exactly 0."""
    measured = slices != 0
    if mask is not None:
        return _all_of_four(measured & mask)
    tissue = _TISSUE * torch.quantile(_sample(slices[measured]), 0.99) if bool(measured.any()) else torch.zeros(())
    return _all_of_four(measured) & (smooth / 2 > tissue.to(smooth))


def _all_of_four(mask: Tensor) -> Tensor:
    m = mask[:, 0]
    return m[:, :-1, :-1] & m[:, :-1, 1:] & m[:, 1:, :-1] & m[:, 1:, 1:]


def _shifted(x: Tensor) -> list[Tensor]:
    """`x` two voxels (the next place of the same decimated transform) away in four directions, edges held."""
    wide = functional.pad(x[:, None], (2, 2, 2, 2), mode="replicate")[:, 0]
    return [wide[:, 4:, 2:-2], wide[:, :-4, 2:-2], wide[:, 2:-2, 4:], wide[:, 2:-2, :-4]]


def _steepest(smooth: Tensor) -> Tensor:
    return torch.stack([(other - smooth).abs() for other in _shifted(smooth)]).amax(0)


def _coarse_diagonal(smooth: Tensor) -> Tensor:
    """Diagonal details of the next Haar level, from the smooth band two voxels apart; as large as the fine ones in white noise."""
    wide = functional.pad(smooth[:, None], (0, 2, 0, 2), mode="replicate")[:, 0]
    return (smooth - wide[:, :-2, 2:] - wide[:, 2:, :-2] + wide[:, 2:, 2:]) / 2


def _without_rician_bias(spread: float, mean: float) -> float:
    """Standard deviation of each channel from spread and mean of a Rician magnitude: the fixed point of Koay and Basser (2006)."""
    ratio = (mean / spread) ** 2
    # Rayleigh: a smaller ratio is not Rician.
    if ratio <= math.pi / (4 - math.pi):
        return spread / math.sqrt(2 - math.pi / 2)
    theta = math.sqrt(ratio)
    for _ in range(500):
        theta, before = math.sqrt(max(0.0, _koay(theta) * (1 + ratio) - 2)), theta
        if abs(theta - before) < 1e-9:
            break
    return spread / math.sqrt(_koay(theta))


def _koay(theta: float) -> float:
    """Variance of a Rician magnitude in units of the channels' variance, at signal-to-noise ratio `theta`."""
    square = theta**2
    bessel = (2 + square) * float(special.ive(0, square / 4)) + square * float(special.ive(1, square / 4))
    return 2 + square - math.pi / 8 * bessel**2
