"""Motion between the slices of scans of one head: each slice has a place of its own, found from what the other scans foretell of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.data_term import data_step, join, scan_term
from dynamicdps.operators.posed_voxels import PosedVoxels
from dynamicdps.pipeline.poses import (
    FEWEST_POINTS,
    HEAD_MM,
    HUBER,
    MARGIN_MM,
    SlicePoses,
    comparable,
    image_grid,
    with_changes,
)
from dynamicdps.pipeline.scans_of_head import OneScan, mean_of
from dynamicdps.volumes import Volume, from_slices, to_batch
from dynamicdps.volumes.grids import Grid, covered

# Most rounds over all scans, and steps of a scan's slices in each.
ROUNDS, ITERATIONS = 3, 3
# Movement from which on another round says nothing new.
STILL_MM = 0.1
# Expected error of the mean image that the other scans' image starts from, and steps towards what explains them.
SPREAD, CG_STEPS, CG_TOLERANCE = 0.1, 12, 0.02
# Standard deviations of motion to start from, mm and radians, and the least of them: a scan without motion has less.
TYPICAL, LEAST = (1.0, 0.02), (0.01, 0.0002)
# Rounds in which motion's standard deviations settle.
SETTLING = 100
# Edge of the blocks of a slice that are taken apart to learn how far its voxels' misfits are alike, and the median of the mean of six
# squares of standard normal numbers.
BLOCK_MM, MEDIAN_OF_SIX = 8.0, 0.891


@dataclass(frozen=True)
class _Slices:
    """The voxels of a scan that say where its slices lie.

    Attributes:
        shown: what is expected of them.
        y: values ``(points,)``.
        places: ``(points, 3)``, mm, at the scan's pose.
        slices: ``(points,)``, number of each one's slice.
        half: whether a point is in the first half of its slice's blocks.
        count: of slices.
        middles: ``(slices, 3)``.
    """

    shown: Volume
    y: NDArray[np.float64]
    places: NDArray[np.float64]
    slices: NDArray[np.int_]
    half: NDArray[np.bool_]
    count: int
    middles: NDArray[np.float64]


def find_slice_motion(scans: Sequence[OneScan]) -> tuple[list[OneScan], list[str]]:
    """Scans at their poses with the poses of their slices, and warnings.

    In each round each scan's slices are moved to where they are most like what the other scans of its contrast foretell, by Gauss-Newton
    on three shifts, three rotations and a gain of each slice. What the others foretell is the image that explains them with the places of
    their slices so far. Motion is taken as normal about the scan's pose, with standard deviations of shifts and of rotations found from
    all its slices (empirical Bayes), so that slices that say little, and scans without motion, stay where they are.

    Args:
        scans: two or more, in the order of `in_order`, on which the result depends.
    """
    grid, warnings = _grid_of(scans), []
    for scan in scans:
        if not _alike(scan, scans):
            warnings.append(f"motion between the slices of {scan.name} was not looked for: no other scan has its contrast")
        elif _slices_of(scan, grid) is None:
            warnings.append(f"motion between the slices of {scan.name} was not looked for: it has no thick slices, or they lie askew")
    found = list(scans)
    for _ in range(ROUNDS):
        before = list(found)
        for k in range(len(found)):
            found[k] = _with_slices_moved(found, k)
        if max(_farthest(a, b) for a, b in zip(before, found, strict=True)) < STILL_MM:
            break
    return found, warnings


def _grid_of(scans: Sequence[OneScan]) -> Grid:
    return image_grid([(scan.head.brain, scan.counted) for scan in scans], MARGIN_MM)


def _slices_of(scan: OneScan, grid: Grid) -> PosedVoxels | None:
    """The scan's thick slices; `None` where they cannot have places of their own."""
    linear = scan.operator_on(grid).operator.linear
    part = None if linear is None else linear.mixing_part
    return part if isinstance(part, PosedVoxels) and part.scanner.slice_thickness is not None else None


def _farthest(a: OneScan, b: OneScan) -> float:
    """How far slices lie apart, mm."""
    (first, second) = (np.zeros((1, 6)) if s.pose is None or s.pose.slices is None else s.pose.slices.parameters for s in (a, b))
    between = np.abs(first - second)
    return float((np.linalg.norm(between[:, :3], axis=1) + HEAD_MM / 2 * np.linalg.norm(between[:, 3:], axis=1)).max())


def _alike(scan: OneScan, scans: Sequence[OneScan]) -> list[OneScan]:
    """The other scans of its contrast: a curve from another one leaves more than motion does."""
    return [other for other in scans if other.contrast == scan.contrast and other.name != scan.name]


def _with_slices_moved(scans: Sequence[OneScan], k: int) -> OneScan:
    """One of the scans with its slices moved to what the others of its contrast foretell."""
    grid, scan = _grid_of(scans), scans[k]
    part, others = _slices_of(scan, grid), _alike(scan, scans)
    if part is None or not others or scan.pose is None:
        return scan
    points = _points(scan, *_foretold(others, grid), part)
    start = np.zeros((points.count, 6)) if scan.pose.slices is None else scan.pose.slices.parameters
    parameters, errors = _settled(points, start)
    return replace(scan, pose=replace(scan.pose, slices=SlicePoses(part.slice_axis, points.middles, parameters, errors)))


@torch.inference_mode()
def _foretold(others: Sequence[OneScan], grid: Grid) -> tuple[Volume, Volume]:
    """The image that explains scans, image intensities, and 1 where one of them was taken."""
    images = [each.to_align().image for each in others]
    known = np.any([covered(image, grid) for image in images], axis=0)
    terms = [scan_term(each.head.brain, each.operator_on(grid), each.scale, whole=True) for each in others]
    start, spread = mean_of(images, grid), torch.full((1,), SPREAD)
    step = data_step(join(terms), to_batch(start.data), spread, iterations=1, cg_iterations=CG_STEPS, cg_tolerance=CG_TOLERANCE)
    return start.with_data(from_slices(step.x)), start.with_data(known.astype(np.float32))


def _points(scan: OneScan, expected: Volume, known: Volume, part: PosedVoxels) -> _Slices:
    described = scan.to_align()
    shown, index = comparable(described, np.eye(4), expected, known)
    affine, axis, count = described.measurement.affine, part.slice_axis, part.measured[part.slice_axis]
    places = index @ affine[:3, :3].T + affine[:3, 3]
    slices = index[:, axis]
    plane = [a for a in range(3) if a != axis]
    blocks = np.floor(index[:, plane] * np.array(described.measurement.spacing)[plane] / BLOCK_MM).astype(int)
    number = np.bincount(slices, minlength=count)
    middles = np.stack([np.bincount(slices, places[:, a], count) for a in range(3)], 1) / np.maximum(number, 1)[:, None]
    y = described.measurement.data[tuple(index.T)].astype(np.float64)
    enough = number[slices] >= FEWEST_POINTS
    return _Slices(shown, y[enough], places[enough], slices[enough], blocks.sum(1)[enough] % 2 > 0, count, middles)


def _settled(points: _Slices, parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The slices' shifts and rotations by Gauss-Newton from `parameters`, and their errors, ``(6,)``."""
    spread = np.full(6, np.inf)
    for _ in range(ITERATIONS):
        information, pull = _information(points, parameters)
        wanted = (information @ parameters[..., None])[..., 0] + pull
        parameters, spread = _towards_none(information, wanted)
    return parameters, spread


def _towards_none(information: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The posterior mean of each slice's parameters, and their errors, where both variances of motion are those that the slices show."""
    said = np.trace(information, axis1=1, axis2=2) > 0
    variances = np.asarray(np.square(np.repeat(TYPICAL, 3)), dtype=np.float64)
    mean, covariance = np.zeros_like(wanted), np.zeros_like(information)
    for _ in range(SETTLING):
        covariance = np.asarray(np.linalg.inv(information + np.diag(1 / variances)), dtype=np.float64)
        mean = (covariance @ wanted[..., None])[..., 0]
        if not said.any():
            break
        square = (mean**2 + np.diagonal(covariance, axis1=1, axis2=2))[said]
        found = np.maximum([square[:, :3].mean(), square[:, 3:].mean()], np.square(LEAST))
        variances = np.asarray(np.repeat(found, 3), dtype=np.float64)
    errors = np.sqrt(np.median(np.diagonal(covariance, axis1=1, axis2=2), axis=0))
    return np.asarray(mean), np.asarray(errors)


def _information(points: _Slices, parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each slice says of its parameters near the given ones: information ``(slices, 6, 6)``, and information times step.

    Both count the slice's voxels as many independent ones as its blocks, taken apart, show.
    """
    movements = SlicePoses(0, points.middles, parameters, np.zeros(6)).movements[points.slices]
    at = (movements[:, :3, :3] @ points.places[..., None])[..., 0] + movements[:, :3, 3]
    arms = at - points.middles[points.slices] - parameters[points.slices, :3]
    f, changes = with_changes(points.shown, at, arms)
    gain = float((f * points.y).sum() / max(float((f * f).sum()), 1e-12))
    rest = points.y / max(gain, 1e-12) - f
    information, pull = np.zeros((points.count, 6, 6)), np.zeros((points.count, 6))
    apart = []
    for k in np.unique(points.slices):
        own = points.slices == k
        columns, left = np.column_stack([changes[own], f[own], np.ones(own.sum())]), rest[own]
        solution, weights = np.zeros(8), np.ones(len(left))
        for _ in range(3):
            misfit = left - columns @ solution
            scale = 1.4826 * float(np.median(np.abs(misfit - np.median(misfit)))) + 1e-9
            weights = 1 / np.maximum(1, np.abs(misfit) / (HUBER * scale))
            solution = np.linalg.lstsq(np.sqrt(weights)[:, None] * columns, np.sqrt(weights) * left, rcond=1e-6)[0]
        information[k], pull[k] = _reduced(columns, left, weights / scale**2)
        halves = [_reduced(columns[h], left[h], (weights / scale**2)[h]) for h in (points.half[own], ~points.half[own])]
        if min(points.half[own].sum(), (~points.half[own]).sum()) >= FEWEST_POINTS:
            difference = np.subtract(*(np.linalg.solve(n, b) for n, b in halves))
            expected = np.sum([np.linalg.inv(n) for n, _ in halves], axis=0)
            apart.append(float(difference @ np.linalg.solve(expected, difference)) / 6)
    excess = max(1.0, float(np.median(apart)) / MEDIAN_OF_SIX) if apart else 1.0
    return information / excess, pull / excess


def _reduced(
    columns: NDArray[np.float64], left: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normal equations of the six movements, gain and offset being free."""
    normal, side = columns.T @ (weights[:, None] * columns), columns.T @ (weights * left)
    normal += 1e-9 * np.trace(normal) / len(normal) * np.eye(len(normal))
    free = np.linalg.solve(normal[6:, 6:], np.column_stack([normal[6:, :6], side[6:]]))
    return normal[:6, :6] - normal[:6, 6:] @ free[:, :6], side[:6] - normal[:6, 6:] @ free[:, 6]
