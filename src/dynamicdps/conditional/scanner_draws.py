"""Scanners drawn at random: what conditional models of whole volumes learn from.

They are wider than any operator of the package and share none of its code: a model that is to enhance scans of scanners that nobody
described must not have learned one description.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

Array = NDArray[np.float32]

# Voxels around a patch that are scanned with it, so that what blurs in from there is right.
MARGIN = 12
# What scanners of low field are used for most: a network of this size learns it better when it sees it more often than the limits.
USUAL: dict[str, Any] = {"thickness": (4.0, 6.0), "in_plane": (1.2, 2.2), "volumetric": 0.0, "signal_to_noise": (9.0, 40.0)}
# Where the brightest tissue lies, see `IntensityScale.robust`.
WHITE = 0.95
# Most lesions of a patch, their radii in mm (the logarithm is uniform), by which share of it their outline wavers, the width of their edge
# in mm, and the logarithms of their brightness over what was there: hyperintensities of T2w and FLAIR are brighter by 0.3 to 1, those of
# T1w darker.
MOST_LESIONS, LESION_RADII, WAVERING, LESION_EDGE, LESION_CONTRAST = 6, (1.5, 8.0), 0.25, (0.4, 1.2), (-0.6, 0.8)


@dataclass(frozen=True)
class ScannerRange:
    """Limits of what is drawn; lengths in mm, which are voxels of the image.

    Attributes:
        thickness: distance of slices.
        overlap: width of a slice's profile as a share of the distance.
        in_plane: acquired voxel in the plane.
        volumetric: share of acquisitions that are encoded along all axes.
        signal_to_noise: white matter's, before interpolation.
        shading: standard deviation of the logarithm along each axis.
        gain: standard deviation of the logarithm of the intensity scale's error.
        other_contrasts: share of scans whose intensities fall where those of the image rise.
        usual: share of scans as scanners of low field make them: one slice direction, `USUAL` in place of the limits above.
        outside: share of scans that show what lies around the brain.
        lesions: share of brains with spots that no anatomy tells of, brighter or darker than what is around them.
        mask_error: by how much a brain mask is too wide.
    """

    thickness: tuple[float, float] = (1.0, 8.0)
    overlap: tuple[float, float] = (0.8, 1.25)
    in_plane: tuple[float, float] = (0.8, 3.0)
    volumetric: float = 0.15
    signal_to_noise: tuple[float, float] = (8.0, 60.0)
    shading: float = 0.06
    gain: float = 0.06
    other_contrasts: float = 0.1
    usual: float = 0.5
    outside: float = 0.8
    lesions: float = 0.4
    mask_error: tuple[float, float] = (0.0, 4.0)

    def draw(self, rng: np.random.Generator) -> "ScannerRange":
        """The limits of one scan: the usual ones or all."""
        return replace(self, **USUAL) if rng.random() < self.usual else self

    def to_json(self) -> dict[str, object]:
        """Plain values for a model card."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Axis:
    """How one axis is measured.

    Attributes:
        signal: image to measured voxels, ``(measured, image)``.
        noise: white noise of acquired voxels to that of measured ones, or `None` where it stays white.
        back: measured voxels to the image's grid by cubic splines, ``(image, measured)``.
        spacing: of measured voxels, in image voxels.
    """

    signal: Array
    noise: Array | None
    back: Array
    spacing: float


def spline_matrix(count: int, positions: NDArray[np.floating[Any]]) -> Array:
    """Cubic spline interpolation as a matrix ``(positions, count)``; positions in voxels, mirrored beyond the edges."""
    rows, columns = np.meshgrid(positions, np.arange(count), indexing="ij")
    values = ndimage.map_coordinates(np.eye(count), [columns, rows], order=3, mode="mirror")
    return np.asarray(values, dtype=np.float32)


def encoded_axis(size: int, rng: np.random.Generator, voxel: float) -> Axis:
    """An axis that is encoded in k-space: cut, tapered and often filled with zeros before the transform."""
    kept = max(voxel, 1.0)
    taper = 0.0 if rng.random() < 0.3 else rng.uniform(0, 1)
    finer = 1.0 if rng.random() < 0.4 else rng.uniform(1.0, 2.0)
    spacing = kept / finer
    # Tukey's window falls from 1 to 0 over the outer `taper` of k-space, so that its half height is here.
    half = 1 - taper / 2

    def response(distance: NDArray[np.float64]) -> NDArray[np.float64]:
        d = distance / kept
        # The transform of a raised cosine; at its removable singularity stands the limit.
        beside = 1 - (taper * d) ** 2
        singular = np.abs(beside) < 1e-6
        roll = np.where(singular, np.pi / 4, np.cos(np.pi * taper * d / 2) / np.where(singular, 1, beside))
        return np.asarray(half * np.sinc(half * d) * roll / kept)

    first = rng.uniform(0, spacing)
    places = np.arange(first, size - 1, spacing)
    acquired = np.arange(first, size + kept, kept)
    image = np.arange(size)
    signal = response(places[:, None] - image[None])
    noise = kept * response(places[:, None] - acquired[None])
    back = spline_matrix(len(places), (image - first) / spacing)
    return Axis(signal.astype(np.float32), noise.astype(np.float32), back, spacing)


def sliced_axis(size: int, rng: np.random.Generator, distance: float, overlap: tuple[float, float]) -> Axis:
    """An axis across excited slices: each a mean with a profile between a box and a Gaussian."""
    width = max(distance * rng.uniform(*overlap), 1.0)
    steep = rng.uniform(0, 0.5)
    first = rng.uniform(0, distance)
    places = np.arange(first, size - 1, distance)
    fine = (np.arange(size * 5) - 2) / 5
    u = np.abs(places[:, None] - fine[None])
    if rng.random() < 0.3:
        profile = np.exp(-4 * math.log(2) * (u / width) ** 2)
    else:
        # A trapezoid whose half height is at half the width.
        profile = np.clip((width / 2 * (1 + steep) - u) / max(width * steep, 0.1), 0, 1)
    signal = profile.reshape(len(places), size, 5).sum(-1)
    signal /= signal.sum(1, keepdims=True)
    back = spline_matrix(len(places), (np.arange(size) - first) / distance)
    return Axis(signal.astype(np.float32), None, back, distance)


def draw_axes(shape: tuple[int, ...], rng: np.random.Generator, limits: ScannerRange) -> list[Axis]:
    """How the axes ``(z, y, x)`` of one scan are measured."""
    if rng.random() < limits.volumetric:
        voxels = rng.uniform(*limits.in_plane) * np.exp(rng.normal(0, 0.2, 3))
        return [encoded_axis(n, rng, float(np.clip(v, *limits.in_plane))) for n, v in zip(shape, voxels, strict=True)]
    across = rng.choice(3, p=(0.5, 0.25, 0.25))
    distance = rng.uniform(*limits.thickness)
    plane = rng.uniform(*limits.in_plane)
    return [
        sliced_axis(n, rng, distance, limits.overlap) if axis == across else encoded_axis(n, rng, plane) for axis, n in enumerate(shape)
    ]


def draw_contrast(rng: np.random.Generator, other: float = 0.0) -> tuple[Array, Array]:
    """A curve of intensities as abscissae and values, increasing or, as a share of the draws, falling.

    White matter stays where it is; of curves that fall the brightest tissue comes there.

    Args:
        rng: source of all randomness.
        other: share of curves that fall, from fluid to what is brighter than white matter.
    """
    x = np.array([0, 0.12, 0.3, 0.5, 0.7, 0.85, WHITE, 1.3, 2.5])
    if rng.random() < other:
        y = np.exp(-np.cumsum(rng.exponential(0.2, len(x))))
        y[0] = 0
        y *= WHITE / y[1]
    elif rng.random() < 0.4:
        y = WHITE * (x / WHITE) ** math.exp(rng.uniform(-0.7, 0.35))
    else:
        y = np.concatenate([[0], np.cumsum(np.diff(x) * np.exp(rng.normal(0, 0.5, len(x) - 1)))])
        y *= WHITE / y[6]
    fine = np.linspace(0, 2.5, 501)
    return fine.astype(np.float32), PchipInterpolator(x, y)(fine).astype(np.float32)


def smooth_field(shape: tuple[int, ...], rng: np.random.Generator, knots: int) -> Array:
    """Normal numbers at `knots` points an axis, interpolated smoothly."""
    out = rng.normal(size=(knots,) * len(shape)).astype(np.float32)
    for axis, n in enumerate(shape):
        matrix = spline_matrix(knots, np.linspace(0, knots - 1, n))
        out = np.moveaxis(np.tensordot(matrix, out, (1, axis)), 0, axis)
    return out


def draw_surroundings(image: Array, distance: Array, rng: np.random.Generator) -> Array:
    """The image with fluid, bone and soft tissue around its brain, each of random width and brightness.

    Args:
        image: brain, 0 outside.
        distance: from the brain in voxels, 0 inside.
    """
    wavy = distance + 1.5 * smooth_field(distance.shape, rng, 9)
    fluid, bone = rng.uniform(0, 4), rng.uniform(2, 8)
    soft = rng.uniform(0.3, 1.6) * np.exp(0.35 * smooth_field(distance.shape, rng, 13))
    around = np.where(wavy < fluid, rng.uniform(0.0, 0.35), np.where(wavy < fluid + bone, rng.uniform(0.0, 0.3), soft))
    around = np.where(wavy > fluid + bone + rng.uniform(3, 15), 0.0, around)
    return np.where(distance > 0, around, image).astype(np.float32)


def draw_lesions(image: Array, distance: Array, rng: np.random.Generator) -> Array:
    """The image with spots of random place, size, outline and brightness in its brain: a network that has seen them does not take what it
    has not seen in healthy brains for noise.

    Args:
        image: any contrast, ``(z, y, x)``.
        distance: from the brain in voxels, 0 inside; without any brain the image stays.
        rng: source of all randomness.

    Returns:
        The same shape; outside of the brain nothing changes.
    """
    inside = np.flatnonzero(distance.ravel() == 0)
    if len(inside) == 0:
        return image
    logarithm = np.zeros(image.shape, np.float32)
    low, high = np.log(LESION_RADII)
    for _ in range(rng.integers(1, MOST_LESIONS + 1)):
        centre = np.unravel_index(rng.choice(inside), image.shape)
        axes = math.exp(rng.uniform(low, high)) * np.exp(rng.normal(0, 0.25, 3))
        box = tuple(
            slice(max(0, c - reach), min(n, c + reach + 1))
            for c, reach, n in zip(centre, np.ceil(1.5 * axes).astype(int) + 2, image.shape, strict=True)
        )
        away = np.sqrt(
            sum(
                ((np.arange(b.start, b.stop) - c) / a).reshape([-1 if i == axis else 1 for i in range(3)]) ** 2
                for axis, (b, c, a) in enumerate(zip(box, centre, axes, strict=True))
            )
        )
        outline = 1 + WAVERING * smooth_field(away.shape, rng, 4)
        # How deep inside the outline, in voxels.
        deep = (outline - away) * axes.min()
        share = np.clip(deep / rng.uniform(*LESION_EDGE) + 0.5, 0, 1)
        logarithm[box] += rng.uniform(*LESION_CONTRAST) * share
    changed = image * np.exp(logarithm.clip(*LESION_CONTRAST))
    return np.where(distance == 0, changed, image).astype(np.float32)


def along(volume: Array, matrices: list[Array | None]) -> Array:
    """The volume with one matrix applied along each of its axes; `None` leaves an axis."""
    tensor = torch.from_numpy(np.ascontiguousarray(volume))
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            tensor = torch.tensordot(torch.from_numpy(matrix), tensor, ([1], [axis])).movedim(0, axis)
    return tensor.contiguous().numpy()


def draw_scan(image: Array, distance: Array, rng: np.random.Generator, limits: ScannerRange) -> tuple[Array, Array, Array]:
    """A random scanner's magnitude image, interpolated on the image's grid and masked, and its voxel.

    What a network is to make of it is the brain in the scan's own contrast and shading: blur, slices and noise are the same for every
    contrast, and which contrast it is, is for the fit to say.

    Args:
        image: brain in image intensities, 0 outside, ``(z, y, x)``.
        distance: from the brain in voxels, 0 inside.
        rng: source of all randomness.
        limits: of what is drawn.

    Returns:
        The interpolated scan, the logarithm to the base 2 of the measured voxel's edges, and what an ideal scanner would show of the brain.
    """
    shape = image.shape
    limits = limits.draw(rng)
    seen = draw_surroundings(image, distance, rng) if rng.random() < limits.outside else image
    curve = draw_contrast(rng, limits.other_contrasts)
    seen = np.interp(seen, *curve).astype(np.float32)
    if rng.random() < limits.lesions:
        seen = draw_lesions(seen, distance, rng)
    shade = sum(
        rng.normal(0, limits.shading)
        * np.cos(rng.uniform(0.2, 0.7) * np.linspace(-1, 1, n) + rng.uniform(-2, 2)).reshape([-1 if i == a else 1 for i in range(3)])
        for a, n in enumerate(shape)
    )
    seen = (seen * np.exp(shade + rng.normal(0, limits.gain))).astype(np.float32)
    axes = draw_axes(shape, rng, limits)
    measured = along(seen, [a.signal for a in axes])
    low, high = limits.signal_to_noise
    std = WHITE / (low * (high / low) ** rng.uniform())
    acquired = [len(a.signal) if a.noise is None else a.noise.shape[1] for a in axes]
    real, imaginary = (along(rng.normal(0, std, acquired).astype(np.float32), [a.noise for a in axes]) for _ in range(2))
    magnitude = np.hypot(measured + real, imaginary)
    scan = along(magnitude, [a.back for a in axes])
    wide, edge = rng.uniform(*limits.mask_error), rng.uniform(0.5, 4)
    mask = np.clip((wide + edge - distance) / edge, 0, 1)
    ideal = np.where(distance > 0, 0, seen)
    return (scan * mask).astype(np.float32), np.log2([a.spacing for a in axes]).astype(np.float32), ideal.astype(np.float32)
