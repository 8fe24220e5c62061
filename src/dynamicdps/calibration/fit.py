"""The operator of a scan, found from the scan and an initial image: never from the truth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from torch import Tensor

from dynamicdps.calibration.least_squares import LeastSquaresFit, fit_least_squares, profile_likelihood
from dynamicdps.calibration.parameter_estimator import ParameterEstimate, ParameterEstimator, load_estimator
from dynamicdps.calibration.scan_statistics import scan_statistics
from dynamicdps.calibration.shading import Shading, without_shading
from dynamicdps.errors import InputError
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.noise import Noise
from dynamicdps.operators.operator import Composition, Operator
from dynamicdps.operators.scan_operator import ScanOperator, covered_grid
from dynamicdps.operators.swap_slice_axis import SwapSliceAxis
from dynamicdps.volumes import Volume, crop, resample_to, swap_axes, to_batch
from dynamicdps.volumes.noise_estimate import NoiseEstimate, estimate_noise

FITTED = ("gamma", "blur", "slice_thickness", "noise_std")
BOUNDS = {"gamma": (0.1, 3.0), "blur": (0.0, 6.0), "slice_thickness": (0.3, 20.0)}
SCALE_BOUNDS = (0.2, 5.0)
IMAGE_MM = 1.0
# Slices no further apart than this are those of the image: nothing is said about their profile.
_THIN_MM = 1.25
# In-plane voxels of the scans whose fits were compared with the truth (docs/operators.md).
_MEASURED_MM = 2.0
# Edges that differ by no more are those of a square; with `_ALMOST` the image grid has voxels of the same shape.
_SQUARE, _ALMOST = 0.02, 0.05
_ENOUGH = 1_000_000
_UNDETERMINED = 0.5  # of the range that the estimator covers
# Standard deviations of logarithms: slices are about as thick as they are far apart; and the statistics err by as much on scanners whose
# profile and encoding they have not learned (whole heads of another simulator: 2.2 and 2.8 mm were read where slices had 5 mm).
_CONTIGUOUS, _OTHER_PHYSICS = 0.1, 0.7
# The same of contrast and noise, and a standard deviation of the blur in mm: what fits of whole heads by another simulator were off beyond
# their own intervals (docs/operators.md).
_OTHER_CONTRAST, _OTHER_NOISE, _OTHER_BLUR_MM = 0.2, 0.08, 0.2


@dataclass(frozen=True)
class OperatorFit:
    """A scan's operator with what is known of its errors.

    Attributes:
        scan_operator: the operator and the scan's intensity scale.
        intervals: 95 %, by parameter that was fitted, in the operator's units; wide enough for scanners of other physics than `LowField`'s.
        known: parameters that were given or read from a header, and kept.
        warnings: what could not be told, one sentence each.
        estimate: what the scan's statistics alone say.
        least_squares: which contrast leads from the initial image to the scan, if there was one.
    """

    scan_operator: ScanOperator
    intervals: dict[str, tuple[float, float]]
    known: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    estimate: ParameterEstimate | None = None
    least_squares: LeastSquaresFit | None = None

    @property
    def operator(self) -> Operator:
        return self.scan_operator.operator

    @property
    def unshaded(self) -> Operator:
        """The operator without shading and a curve to another contrast: `LowField`, or `SwapSliceAxis` for slices that are not axial."""
        parts = self.operator.operators if isinstance(self.operator, Composition) else (self.operator,)
        return next(part for part in parts if isinstance(part, LowField | SwapSliceAxis))

    @property
    def scanner(self) -> LowField:
        """The parameters that were fitted, slices along z."""
        inner = self.unshaded.inner if isinstance(self.unshaded, SwapSliceAxis) else self.unshaded
        assert isinstance(inner, LowField)
        return inner

    def to_json(self) -> dict[str, Any]:
        """The operator's JSON with `intervals`, `known`, `warnings`, and `correlations` of the least squares' errors by pair."""
        pairs = combinations(self.least_squares.values, 2) if self.least_squares is not None else ()
        return self.scan_operator.to_json() | {
            "correlations": {f"{a}, {b}": round(self.least_squares.correlation(a, b), 3) for a, b in pairs if self.least_squares},
            "intervals": {name: [float(f"{v:.6g}") for v in limits] for name, limits in self.intervals.items()},
            "known": self.known,
            "warnings": self.warnings,
        }


def fit_operator(
    scan: Volume,
    initial: Volume | None = None,
    *,
    fit: Sequence[str] = FITTED,
    known: Mapping[str, float] | None = None,
    noise: NoiseEstimate | None = None,
    shading: Shading | None = None,
    scale: float | None = None,
    estimator: ParameterEstimator | None = None,
) -> OperatorFit:
    """Find contrast, blur, slice thickness, noise and intensity scale of a scan.

    Voxel size and slice distance are the scan's. Noise is measured in the background or the quietest tissue. The statistics of the
    scan say the rest (`ParameterEstimator`), whatever an initial image invents; which contrast leads from the initial image to the
    scan is found by least squares, and both answers are weighed by their errors on held-out heads. Blur and thickness are not
    taken from the initial image: conditional models smooth, and least squares would find too little of both.

    Args:
        scan: skull-stripped measurement in scanner units.
        initial: any model's enhanced image of it, any units; without it the contrast is less certain.
        fit: what to find, some of `FITTED`. What is neither here nor in `known` has the default of `LowField`; noise is measured in
            any case.
        known: values from a header or a phantom, kept: `gamma`; `blur` and `slice_thickness` in mm; `noise_std` as a share of the
            image's intensity range.
        noise: in units of the scan, where it was measured elsewhere: in the air around the head that this brain was cut out of.
        shading: of `find_shading`: where it is kept, the scan is read without it and it is the operator's last factor.
        scale: scanner units of one image-intensity unit; by default the statistics say, which know T1w scans.
        estimator: by default the bundled one.

    Raises:
        InputError: a name is unknown or in both, the voxels are not square in the plane, or the scan has no head in it.
    """
    given = {name: float(value) for name, value in (known or {}).items()}
    _check_names(fit, given)
    if shading is not None and shading.kept:
        even = fit_operator(shading.flat(scan), initial, fit=fit, known=known, noise=noise, scale=scale, estimator=estimator)
        factor = shading.factor()
        shaded = even.operator if factor is None else Composition((factor, even.operator))
        return replace(even, scan_operator=replace(even.scan_operator, operator=shaded))
    across = slice_axis(scan.spacing)
    if across != 2:
        upright = fit_operator(swap_axes(scan, across), initial, fit=fit, known=known, noise=noise, scale=scale, estimator=estimator)
        turned = replace(upright.scan_operator, operator=SwapSliceAxis(upright.operator, across))
        return replace(upright, scan_operator=turned)
    spacing = scan.spacing
    if abs(spacing[0] / spacing[1] - 1) > _ALMOST:
        raise InputError(
            f"the voxels are {spacing[0]:.3g} x {spacing[1]:.3g} mm in the plane; expected square ones; describe the scanner in a JSON file"
        )
    read = estimator or load_estimator()
    y = to_batch(scan.data)
    noise = noise or estimate_noise(y)
    statistics = scan_statistics(y[0, 0], spacing, float(noise.std[0]))
    estimate, found = _near_spacing(read(statistics), spacing[2]), None
    scale = scale or statistics.top / estimate.mean["top"]
    noise_std = min(max(given.get("noise_std", float(noise.std[0]) / scale), 1e-6), 1.0)
    values = {n: estimate.mean[n] for n in BOUNDS if n in fit} | {n: v for n, v in given.items() if n in BOUNDS}
    operator = low_field(values, spacing)
    if initial is not None and "gamma" in fit:
        # One contrast for all slices: the middle ones of a large scan are enough to find it.
        slab = _middle(scan)
        within = _on_grid(initial, crop(scan, (slice(None), slice(None), slab)), operator)
        found = contrast_from_image(operator, y[:, :, slab] / scale, within)
        estimate = read.weigh_contrast(estimate, found.values["gamma"])
        operator = replace(operator, gamma=min(max(estimate.mean["gamma"], BOUNDS["gamma"][0]), BOUNDS["gamma"][1]))
    intervals = {name: estimate.intervals[name] for name in BOUNDS if name in fit}
    if "gamma" in intervals and found is None:
        intervals["gamma"] = _widened_by_factor(intervals["gamma"], _OTHER_CONTRAST)
    if "blur" in intervals:
        low, high = _widened(intervals["blur"], _OTHER_BLUR_MM)
        intervals["blur"] = (max(low, 0.0) / _pixel(spacing), high / _pixel(spacing))
    if operator.slice_thickness is None:
        intervals.pop("slice_thickness", None)
    if "noise_std" in fit:
        intervals["noise_std"] = _widened_by_factor((noise_std / read.noise_ratio[1], noise_std / read.noise_ratio[0]), _OTHER_NOISE)
    warnings = [*noise.warnings, *_doubts(estimate, fit, spacing, read)]
    return OperatorFit(ScanOperator(operator, Noise(noise_std), intensity_scale=scale), intervals, given, warnings, estimate, found)


def _near_spacing(estimate: ParameterEstimate, spacing_mm: float) -> ParameterEstimate:
    """The estimate with the distance of slices as what is known beforehand of their thickness.

    Both are logarithms with normal errors. Little is left of the statistics: whose header says that slices overlap or have gaps should
    give the thickness.
    """
    name = "slice_thickness"
    own = max(estimate.mean[name], 0.1)
    spread = math.hypot(min(estimate.std[name] / own, 1.0), _OTHER_PHYSICS)
    weight = _CONTIGUOUS**2 / (_CONTIGUOUS**2 + spread**2)
    centre = (1 - weight) * math.log(spacing_mm) + weight * math.log(own)
    half = 1.96 * _CONTIGUOUS * math.sqrt(1 - weight)
    return replace(
        estimate,
        mean=estimate.mean | {name: math.exp(centre)},
        std=estimate.std | {name: math.exp(centre) * half / 1.96},
        intervals=estimate.intervals | {name: (math.exp(centre - half), math.exp(centre + half))},
    )


def _widened(interval: tuple[float, float], spread: float) -> tuple[float, float]:
    """A 95 % interval with another error, by its standard deviation."""
    centre, half = (interval[0] + interval[1]) / 2, math.hypot((interval[1] - interval[0]) / 2, 1.96 * spread)
    return centre - half, centre + half


def _widened_by_factor(interval: tuple[float, float], spread: float) -> tuple[float, float]:
    """The same of a number greater than 0, by the standard deviation of its logarithm."""
    low, high = _widened((math.log(interval[0]), math.log(interval[1])), spread)
    return math.exp(low), math.exp(high)


def slice_axis(spacing: tuple[float, float, float]) -> int:
    """The axis across the slices of voxels that are square in the other two: z where they are cubes or none is."""
    for axis in (2, 1, 0):
        first, second = (length for i, length in enumerate(spacing) if i != axis)
        if abs(first / second - 1) <= _SQUARE:
            return axis
    return 2


def contrast_from_image(operator: LowField, y: Tensor, x: Tensor) -> LeastSquaresFit:
    """The operator that leads from an image to a measurement, both in image intensities: its contrast is what it is for.

    Blur and thickness are free beside it, because the image is smoother than the truth: what that takes from them would otherwise be
    taken from the contrast.
    """
    names = [name for name in BOUNDS if name != "slice_thickness" or operator.slice_thickness is not None]
    return fit_least_squares(operator, y, x, {name: BOUNDS[name] for name in names}, scale=SCALE_BOUNDS, starts=1)


def fit_profiles(scan: Volume, initial: Volume, found: OperatorFit, names: Sequence[str], points: int = 9) -> list[dict[str, str | float]]:
    """How well values around a fitted one explain the scan, given the initial image, when all other parameters follow.

    A flat profile belongs to a parameter that others make up for: which ones is in their columns.

    Args:
        scan: as for `fit_operator`.
        initial: as there.
        found: its result.
        names: parameters to step through, of `gamma`, `blur` and `slice_thickness`.
        points: values of each, over its interval and half of it to both sides.

    Returns:
        A row for each value: ``parameter``, ``value``, ``residual`` (root mean square, in standard deviations of the noise), and the
        values of ``gamma``, ``blur``, ``slice_thickness`` and ``scale`` there, in the operator's units.

    Raises:
        InputError: a name was not fitted.
    """
    operator = found.scanner
    scan = without_shading(scan, found.operator)
    if isinstance(found.unshaded, SwapSliceAxis):
        scan = swap_axes(scan, found.unshaded.axis)
    y = to_batch(scan.data)
    y = y / float(found.scan_operator.intensity_scale or 1.0)
    x = _on_grid(initial, scan, operator)
    free = {name: BOUNDS[name] for name in BOUNDS if name != "slice_thickness" or operator.slice_thickness is not None}
    rows: list[dict[str, str | float]] = []
    for name in names:
        if name not in free or name not in found.intervals:
            fitted = ", ".join(n for n in free if n in found.intervals) or "none"
            raise InputError(f"{name!r} has no profile, for it was not fitted; expected some of {fitted}")
        low, high = found.intervals[name]
        wide = (high - low) / 2
        grid = np.unique(np.linspace(low - wide, high + wide, points).clip(*BOUNDS[name]))
        for value, residual, others in profile_likelihood(operator, y, x, name, grid.tolist(), free, scale=SCALE_BOUNDS):
            row: dict[str, str | float] = {"parameter": name, "value": value, "residual": residual / found.scan_operator.noise.std}
            rows.append(row | others | {name: value})
    return rows


def _check_names(fit: Sequence[str], given: Mapping[str, float]) -> None:
    unknown = [name for name in (*fit, *given) if name not in FITTED]
    if unknown:
        raise InputError(f"there is no parameter {unknown[0]!r} that a scan tells; expected some of {', '.join(FITTED)}")
    if both := [name for name in given if name in fit]:
        raise InputError(f"{both[0]} is to be fitted and known; expected one of the two; leave it out of one")


def low_field(values: Mapping[str, float], spacing: tuple[float, float, float]) -> LowField:
    """The operator on an image grid of 1 mm, or of the scan's voxels where they are smaller; lengths in mm."""
    clipped = {n: min(max(values[n], BOUNDS[n][0]), BOUNDS[n][1]) for n in BOUNDS if n in values}
    pixel = _pixel(spacing)
    thin = spacing[2] <= _THIN_MM
    return LowField(
        gamma=clipped.get("gamma", 1.0),
        in_plane_factor=_side(spacing) / pixel,
        blur=clipped.get("blur", 0.0) / pixel,
        slice_thickness=None if thin else clipped.get("slice_thickness", spacing[2]),
        slice_spacing=None if thin else spacing[2],
        image_spacing=spacing[2] if thin else IMAGE_MM,
    )


def _on_grid(initial: Volume, scan: Volume, operator: LowField) -> Tensor:
    """The initial image on the operator's image grid, ``(1, 1, depth, height, width)``, scaled to a maximum near 1."""
    nothing = InputError(
        "the initial image has no voxel greater than 0 where the scan is; expected an enhanced image of the same head; check it"
    )
    if not (initial.data > 0).any():
        raise nothing
    volume = resample_to(initial, *covered_grid(operator, scan))
    x = to_batch(volume.data).clamp_min(0)
    inside = x[x > 0]
    if not inside.numel():
        raise nothing
    # The 99th percentile at 0.95, as images are.
    return x * (0.95 / float(np.percentile(inside.numpy(), 99)))


def _middle(scan: Volume) -> slice:
    """Slices around the middle whose image has at most `_ENOUGH` voxels, but no fewer than eight."""
    x, y, z = scan.spacing
    a_slice = scan.shape[0] * scan.shape[1] * max(x, IMAGE_MM) * max(y, IMAGE_MM) * max(z, IMAGE_MM) / IMAGE_MM**3
    count = min(scan.shape[2], max(8, int(_ENOUGH / a_slice)))
    first = (scan.shape[2] - count) // 2
    return slice(first, first + count)


def _pixel(spacing: tuple[float, float, float]) -> float:
    """Voxel of the image grid in the plane in mm."""
    return min(IMAGE_MM, _side(spacing))


def _side(spacing: tuple[float, float, float]) -> float:
    return math.sqrt(spacing[0] * spacing[1])


def _doubts(estimate: ParameterEstimate, fit: Sequence[str], spacing: tuple[float, float, float], read: ParameterEstimator) -> list[str]:
    doubts = []
    if estimate.is_unusual:
        doubts.append("the scan is unlike those that the fit was calibrated on: take its parameters as guesses")
    covered = {"in_plane_factor": _side(spacing), "slice_spacing": spacing[2]}
    for name, value in covered.items():
        low, high = min(read.ranges[name]), max(read.ranges[name])
        if not 0.8 * low <= value <= 1.2 * high:
            doubts.append(f"voxels of {value:.3g} mm lie outside the {low:g} to {high:g} mm that the fit was calibrated on")
    if _side(spacing) > _MEASURED_MM:
        doubts.append(
            f"voxels of {_side(spacing):.3g} mm in the plane are coarser than the {_MEASURED_MM:g} mm up to which the fit was measured: "
            "blur and contrast may lie outside their intervals; give what you know of the scanner"
        )
    thin = spacing[2] <= _THIN_MM
    for name in (n for n in BOUNDS if n in fit and not (thin and n == "slice_thickness")):
        low, high = read.ranges[name]
        below, above = estimate.intervals[name]
        if not low <= estimate.mean[name] <= high:
            doubts.append(f"{name} {estimate.mean[name]:.3g} lies outside the {low:g} to {high:g} that the fit was calibrated on")
        elif above - below > _UNDETERMINED * (high - low):
            doubts.append(f"{name} is hardly determined by this scan: anything from {below:.2g} to {above:.2g} is possible")
    return doubts
