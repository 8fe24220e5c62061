"""Where several scans of one head lie to each other: rigid movements, from the headers first and then from the scans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dynamicdps.operators import Operator
from dynamicdps.operators.posed_voxels import PosedVoxels, posed
from dynamicdps.volumes import Volume, from_slices, to_batch
from dynamicdps.volumes.alignment import rigid_by_mutual_information
from dynamicdps.volumes.grids import Grid, covered, grid_over, native_grid, prior_grid, sample

Matrix = NDArray[np.float64]

# Images are compared on voxels of this edge before anything is moved.
COARSE_MM = 4.0
# Below this correlation of two images of a head its headers are not trusted, and the whole range of movements is searched.
TRUSTED = 0.85
# The search by mutual information counts where it makes two images this much more alike.
BETTER = 0.02
# At least this correlation of a scan with what the other scans foretell of it; another head has less.
SAME_HEAD = 0.75
# Edge of the voxels that images are compared on, most rounds, and the movement from which on another round says nothing new. Voxels of
# 1 mm found no better poses (0.05 to 0.09 mm on simulated heads, either way) in four times the time.
EDGE_MM, ROUNDS, STILL_MM = 2.0, 12, 0.05
ITERATIONS, MARGIN_MM = 4, 8.0
# Image intensity from which something is there, and the share of a voxel that is all of it.
LIT, WHOLE = 0.05, 0.98
# Classes of intensities, alike in number, whose means are the curve from one contrast to another.
CLASSES = 32
# Radius in mm of a head, where a rotation is a movement.
HEAD_MM = 70.0
FEWEST_POINTS, MOST_POINTS = 100, 60_000
# A residual beyond this many robust standard deviations counts less (Huber).
HUBER = 2.0


@dataclass(frozen=True)
class ScanToAlign:
    """What the search for a scan's pose needs of it.

    Attributes:
        measurement: the brain as it was scanned, 0 outside.
        inside: where it counts, same grid.
        operator: forward model on `image`'s grid.
        image: an enhanced image of this scan alone, image intensities, in the place that the header says.
        contrast: of the scan and its image; images of another one are brought to it by a curve before they are compared.
    """

    measurement: Volume
    inside: NDArray[np.bool_]
    operator: Operator
    image: Volume
    contrast: str = ""


@dataclass(frozen=True)
class SlicePoses:
    """Where the slices of a scan lie beyond the scan's own pose, in the image's space.

    Attributes:
        axis: of the scan's voxels, across the slices.
        middles: ``(slices, 3)``, point in mm of each slice that its shift belongs to, at the scan's pose.
        parameters: ``(slices, 6)``, shift (mm) after a rotation (radians) about the middle.
        errors: ``(6,)``, standard deviation that is left of these, median over the slices.
    """

    axis: int
    middles: NDArray[np.float64]
    parameters: NDArray[np.float64]
    errors: NDArray[np.float64]

    @property
    def movements(self) -> NDArray[np.float64]:
        """``(slices, 4, 4)``, a point in mm of each slice at the scan's pose to its own place."""
        return np.stack([rigid(own, middle) for own, middle in zip(self.parameters, self.middles, strict=True)])

    def to_json(self) -> dict[str, Any]:
        return {
            "axis": self.axis,
            "shift_mm": np.round(self.parameters[:, :3], 2).tolist(),
            "rotation_degrees": np.round(np.rad2deg(self.parameters[:, 3:]), 2).tolist(),
            "error_mm": np.round(self.errors[:3], 2).tolist(),
            "error_degrees": np.round(np.rad2deg(self.errors[3:]), 2).tolist(),
        }


@dataclass(frozen=True)
class Pose:
    """A scan's place in the space of the image.

    Attributes:
        movement: ``(4, 4)``, a point in mm of the scan's header to its place in the image's space.
        centre: point in mm that `shift` belongs to.
        error_mm: of the shift along x, y, z: half of what the scan's even and odd slices, each alone, differ by; NaN of too few voxels.
        error_degrees: of the rotation about them, likewise.
        correlation: of the scan with what the other scans foretell of it; 0 where they share too little.
        slices: where its slices lie beyond that; `None` where it was not looked for.
    """

    movement: Matrix
    centre: NDArray[np.float64]
    error_mm: tuple[float, float, float]
    error_degrees: tuple[float, float, float]
    correlation: float
    slices: SlicePoses | None = None

    @property
    def shift_mm(self) -> NDArray[np.float64]:
        """How far the centre of the head is moved, ``(3,)``."""
        return np.asarray(apply_affine(self.movement, self.centre) - self.centre)

    @property
    def degrees(self) -> NDArray[np.float64]:
        """Rotation vector, ``(3,)``."""
        return np.asarray(Rotation.from_matrix(self.movement[:3, :3]).as_rotvec(degrees=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "movement": np.round(self.movement, 6).tolist(),
            "shift_mm": np.round(self.shift_mm, 3).tolist(),
            "rotation_degrees": np.round(self.degrees, 3).tolist(),
            "error_mm": [round(e, 3) if np.isfinite(e) else None for e in self.error_mm],
            "error_degrees": [round(e, 3) if np.isfinite(e) else None for e in self.error_degrees],
            "correlation": round(self.correlation, 4),
            **({} if self.slices is None else {"slices": self.slices.to_json()}),
        }


def moved(volume: Volume, movement: Matrix) -> Volume:
    """The volume in another place; no voxel changes."""
    return Volume(volume.data, movement @ volume.affine, volume.native)


def find_poses(scans: Sequence[ScanToAlign]) -> list[Pose]:
    """The poses of two or more scans of one head, of one or several contrasts.

    The mean movement of those in the first one's contrast is none, so that the order of scans of one contrast says nothing. Headers come
    first. Where the images do not agree there, mutual information is searched from far (dipy). Then each scan's own
    voxels are compared with what the other scans' images foretell of them, by Gauss-Newton on three shifts, three rotations and a gain.
    Errors are from scans taken apart into even and odd slices.
    """
    centre = np.mean([_middle(each) for each in scans], axis=0)
    movements = [np.eye(4) for _ in scans]
    for k, each in enumerate(scans[1:], 1):
        movements[k] = _from_far(scans[0].image, each.image, each.contrast == scans[0].contrast)
    leading = [each.contrast == scans[0].contrast for each in scans]
    movements = _about_the_mean(movements, centre, leading)
    errors, correlations = [np.full(6, np.nan) for _ in scans], [0.0] * len(scans)
    for _ in range(ROUNDS):
        grid = image_grid([(moved(s.measurement, m), s.inside) for s, m in zip(scans, movements, strict=True)], MARGIN_MM, EDGE_MM)
        images = [sample(moved(s.image, m), grid).data for s, m in zip(scans, movements, strict=True)]
        shown = [covered(moved(s.image, m), grid) for s, m in zip(scans, movements, strict=True)]
        found = list(movements)
        for k, each in enumerate(scans):
            count = np.sum([known for j, known in enumerate(shown) if j != k], axis=0)
            near = [
                image if scans[j].contrast == each.contrast else as_contrast_of(images[k], image)
                for j, image in enumerate(images)
                if j != k
            ]
            total = np.sum(near, axis=0)
            others = Volume(np.asarray(total / np.maximum(count, 1), dtype=np.float32), grid.affine)
            # Masks of two contrasts end at different tissues: what is beyond one of them says nothing of the pose.
            alone = all(other.contrast != each.contrast for j, other in enumerate(scans) if j != k)
            known = others.with_data(((count > 0) & (not alone or others.data > LIT)).astype(np.float32))
            wanted, errors[k], correlations[k] = _refined(each, movements[k], others, known, centre, shaded=alone)
            # The others come as far towards this scan: two that went the whole way would change places.
            found[k] = rigid((len(scans) - 1) / len(scans) * wanted, centre) @ movements[k]
        before, movements = movements, _about_the_mean(found, centre, leading)
        if max(_farthest(a, b, centre) for a, b in zip(before, movements, strict=True)) < STILL_MM:
            break
    return [
        Pose(movement, centre, tuple(error[:3]), tuple(np.rad2deg(error[3:])), correlation)
        for movement, error, correlation in zip(movements, errors, correlations, strict=True)
    ]


def _middle(scan: ScanToAlign) -> NDArray[np.float64]:
    return np.asarray(apply_affine(scan.measurement.affine, np.argwhere(scan.inside)).mean(0))


def _from_far(fixed: Volume, moving: Volume, one_contrast: bool) -> Matrix:
    """The movement of one image onto another; none where the headers are right to a few mm."""
    coarse = [sample(_smooth(each), prior_grid(each, COARSE_MM)) for each in (fixed, moving)]
    before = _alike(coarse[0], coarse[1], one_contrast)
    if before >= TRUSTED:
        return np.eye(4)
    found = rigid_by_mutual_information(coarse[0], coarse[1])
    return found if _alike(coarse[0], moved(coarse[1], found), one_contrast) > before + BETTER else np.eye(4)


def as_contrast_of(image: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Another image of the same place with the contrast of `image`: the mean of `image` at each of its intensities; 0 where nothing is."""
    both = (image > LIT) & (other > LIT)
    if both.sum() < FEWEST_POINTS:
        return other
    order = np.argsort(other[both], kind="stable")
    levels, means = (np.array([part.mean() for part in np.array_split(values[both][order], CLASSES)]) for values in (other, image))
    return np.asarray(np.interp(other, [0.0, *levels], [0.0, *means]), dtype=np.float32)


def _smooth(volume: Volume) -> Volume:
    return volume.with_data(ndimage.gaussian_filter(volume.data, [COARSE_MM / 2.355 / edge for edge in volume.spacing]))


def _alike(fixed: Volume, moving: Volume, one_contrast: bool) -> float:
    """Correlation over what either shows where both were measured; 0 where that is less than half of what one of them shows."""
    other = sample(moving, native_grid(fixed)).data
    other = other if one_contrast else as_contrast_of(fixed.data, other)
    either = ((fixed.data > LIT) | (other > LIT)) & covered(moving, native_grid(fixed))
    least = max(100, min((fixed.data > LIT).sum(), (moving.data > LIT).sum()) / 2)
    return float(np.corrcoef(fixed.data[either], other[either])[0, 1]) if either.sum() > least else 0.0


def _refined(
    scan: ScanToAlign, movement: Matrix, expected: Volume, known: Volume, centre: NDArray[np.float64], *, shaded: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Shift (mm) and rotation (radians) that make a scan more like what is expected, their errors, and the correlation there.

    What counts is where something is expected (`known` is 1) of the whole of a voxel: a slab says nothing of the rest of the head. A scan
    that is the only one of its contrast may have a shading of its own, which is found with the pose.
    """
    shown, index = comparable(scan, movement, expected, known)
    if len(index) < FEWEST_POINTS:
        return np.zeros(6), np.full(6, np.nan), 0.0
    index = index[:: max(1, len(index) // MOST_POINTS)]
    y = scan.measurement.data[tuple(index.T)].astype(np.float64)
    places = apply_affine(scan.measurement.affine, index)
    whole = np.zeros(6)
    for _ in range(ITERATIONS):
        step, _ = _step(shown, y, places, rigid(whole, centre) @ movement, centre, shaded)
        whole = whole + step
        if np.abs(step[:3]).max() < 0.01 and np.abs(step[3:]).max() < 1e-4:
            break
    final = rigid(whole, centre) @ movement
    across = int(np.argmax(scan.measurement.spacing))
    odd = index[:, across] % 2 > 0
    halves = [
        _step(shown, y[k], places[k], final, centre, shaded)[0] if k.sum() >= FEWEST_POINTS else np.full(6, np.nan) for k in (odd, ~odd)
    ]
    values = _step(shown, y, places, final, centre, True)[1] if shaded else _values(shown, apply_affine(final, places))
    return whole, np.abs(halves[0] - halves[1]) / 2, float(np.corrcoef(values, y)[0, 1])


def comparable(scan: ScanToAlign, movement: Matrix, expected: Volume, known: Volume) -> tuple[Volume, NDArray[np.int_]]:
    """What is expected as the scan would show it, on the image's grid, and which of the scan's voxels lie wholly where `known` is 1.

    The voxels are indices ``(points, 3)``.
    """
    shown = _as_measured(scan, movement, expected)
    index = np.argwhere(scan.inside)
    whole_voxel = _values(_as_measured(scan, movement, known), apply_affine(movement @ scan.measurement.affine, index))
    return shown, index[whole_voxel > WHOLE * max(whole_voxel.max(initial=0), 0.5)]


def _as_measured(scan: ScanToAlign, movement: Matrix, expected: Volume) -> Volume:
    """The expected image with the scan's contrast and the blur of its voxels, still on the image's grid."""
    near = posed(scan.operator, scan.image.shape, movement @ scan.image.affine, expected.affine)
    x = to_batch(expected.data)
    with torch.inference_mode():
        if near is None:
            return _smooth(expected)
        x = x if near.contrast is None else near.contrast(x)
        part = None if near.linear is None else near.linear.mixing_part
        x = part.blurred(x) if isinstance(part, PosedVoxels) else x
    return expected.with_data(from_slices(x))


def _step(
    shown: Volume, y: NDArray[np.float64], places: NDArray[np.float64], movement: Matrix, centre: NDArray[np.float64], shaded: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Gauss-Newton step of shift (mm) and rotation (radians) about the centre, and what is expected there with gain and shading."""
    at = apply_affine(movement, places)
    arms = at - centre
    f, changes = with_changes(shown, at, arms)
    own = [f[:, None], np.ones((len(f), 1))]
    if shaded:
        u = arms / HEAD_MM
        own += [f[:, None] * u, f[:, None] * u**2, f[:, None] * u[:, [0, 0, 1]] * u[:, [1, 2, 2]]]
    columns = np.column_stack([changes, *own])
    size = columns.shape[1]
    gain = float((f * y).sum() / max(float((f * f).sum()), 1e-12))
    rest = y / max(gain, 1e-12) - f
    weights = np.ones_like(f)
    solution = np.zeros(size)
    for _ in range(3):
        left = rest - columns @ solution
        spread = 1.4826 * float(np.median(np.abs(left - np.median(left)))) + 1e-9
        weights = 1 / np.maximum(1, np.abs(left) / (HUBER * spread))
        normal = columns.T @ (weights[:, None] * columns)
        solution = np.linalg.solve(normal + 1e-9 * np.trace(normal) / size * np.eye(size), columns.T @ (weights * rest))
    return np.asarray(solution[:6]), np.asarray(f + columns[:, 6:] @ solution[6:])


def with_changes(shown: Volume, at: NDArray[np.float64], arms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values at points ``(points, 3)`` in mm, and what they change by with shift (mm) and rotation (radians), ``(points, 6)``."""
    slopes = np.stack([_values(shown, at + d) - _values(shown, at - d) for d in np.eye(3) / 2], axis=1)
    # A rotation w moves a point by w x arm; its share of the change is slope . (w x arm) = w . (arm x slope).
    return _values(shown, at), np.column_stack([slopes, np.cross(arms, slopes)])


def _values(volume: Volume, places: NDArray[np.float64]) -> NDArray[np.float64]:
    index = apply_affine(np.linalg.inv(volume.affine), places)
    return np.asarray(ndimage.map_coordinates(volume.data, index.T, order=1, mode="constant"), dtype=np.float64)


def rigid(parameters: NDArray[np.float64], centre: NDArray[np.float64]) -> Matrix:
    """Shift (mm) after a rotation (radians) about a point."""
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(parameters[3:]).as_matrix()
    out[:3, 3] = centre + parameters[:3] - out[:3, :3] @ centre
    return out


def _about_the_mean(movements: Sequence[Matrix], centre: NDArray[np.float64], leading: Sequence[bool]) -> list[Matrix]:
    """The movements without what the leading ones have in common."""
    leaders = [m for m, leads in zip(movements, leading, strict=True) if leads]
    turns = Rotation.from_matrix([m[:3, :3] for m in leaders]).mean()
    common = np.eye(4)
    common[:3, :3] = turns.as_matrix()
    target = np.mean([apply_affine(m, centre) for m in leaders], axis=0)
    common[:3, 3] = target - common[:3, :3] @ centre
    return [np.linalg.inv(common) @ m for m in movements]


def _farthest(a: Matrix, b: Matrix, centre: NDArray[np.float64]) -> float:
    """How far two movements take the head apart, mm."""
    between = np.linalg.inv(a) @ b
    turn = float(Rotation.from_matrix(between[:3, :3]).magnitude())
    return float(np.linalg.norm(apply_affine(between, centre) - centre)) + HEAD_MM * turn


def image_grid(places: Sequence[tuple[Volume, NDArray[np.bool_]]], margin_mm: float, edge_mm: float = 1.0) -> Grid:
    """Voxels along the world's axes around what masks hold of volumes, with a margin."""
    corners = []
    for volume, inside in places:
        points = apply_affine(volume.affine, np.argwhere(inside))
        corners += [points.min(0) - margin_mm, points.max(0) + margin_mm]
    return grid_over(corners, edge_mm)
