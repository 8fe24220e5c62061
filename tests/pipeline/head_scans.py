"""Poor scans of one made-up head, each from its own place and across its own axis."""

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dynamicdps.operators import LowField, Operator, SwapSliceAxis
from dynamicdps.volumes import Volume, from_slices, to_slices
from dynamicdps.volumes.grids import Grid, native_grid, sample
from tests.conftest import make_phantom

SHAPE = (54, 60, 50)
NOISE = 0.02


def one_head(seed: int = 0) -> Volume:
    """The phantom with structure of its own along z, so that no axis is free to slide."""
    head = make_phantom(SHAPE, seed=seed)
    rough = ndimage.gaussian_filter(np.random.default_rng(seed + 1).standard_normal(SHAPE), 3)
    data = np.where(head.data > 0.3, head.data + 0.12 * rough / rough.std(), head.data)
    z = np.abs(np.arange(SHAPE[2]) - (SHAPE[2] - 1) / 2) < 0.42 * SHAPE[2]
    return head.with_data((data * z).clip(0).astype(np.float32))


def movement(degrees: float, millimetres: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn, shift = rng.normal(size=3), rng.normal(size=3)
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(turn / np.linalg.norm(turn) * degrees, degrees=True).as_matrix()
    out[:3, 3] = shift / np.linalg.norm(shift) * millimetres
    return out


def scanner_of(across: int, thickness: float = 3.0) -> Operator:
    inner = LowField(in_plane_factor=1.2, slice_thickness=thickness)
    return inner if across == 2 else SwapSliceAxis(inner, across)


def scan_from(head: Volume, across: int, place: np.ndarray, scale: float = 1.0, seed: int = 0, thickness: float = 3.0) -> Volume:
    """A scan whose header says nothing of where it was taken from: `place` brings its points to the head's."""
    moved = sample(Volume(head.data, np.linalg.inv(place) @ head.affine), native_grid(head), order=3)
    operator = scanner_of(across, thickness)
    y = operator(to_slices(moved.data.clip(0)).movedim(0, 1)[None])
    data = from_slices(y[0].movedim(1, 0))
    data = data + NOISE * np.random.default_rng(seed).standard_normal(data.shape) * (data > 0.05)
    affine = operator.grid(Grid(head.shape, head.affine)).affine
    return Volume((scale * data).astype(np.float32), affine)


def scan_in_motion(head: Volume, across: int, places: list[np.ndarray], scale: float = 1.0, seed: int = 0) -> Volume:
    """A scan whose interleaved packets of slices were each taken from a place of their own."""
    scans = [scan_from(head, across, place, scale, seed) for place in places]
    data = scans[0].data.copy()
    slices = np.moveaxis(data, across, 0)
    for number, scan in enumerate(scans):
        slices[number :: len(scans)] = np.moveaxis(scan.data, across, 0)[number :: len(scans)]
    return scans[0].with_data(data)
