"""A head whose every part is known: skin, bone, fluid, cortex, white matter and ventricles as ellipsoids."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dynamicdps.volumes import Volume

SEMI_AXES = np.array([76.0, 96.0, 80.0])
SKIN, BONE, FLUID, GREY, WHITE, AIR = 1.3, 0.05, 0.25, 0.6, 0.8, 0.0


@dataclass(frozen=True)
class Head:
    volume: Volume
    brain: NDArray[np.bool_]
    shading: NDArray[np.float64]


def rotation(degrees: tuple[float, float, float], shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def make_head(
    spacing: tuple[float, float, float] = (3.0, 3.0, 5.0),
    field_of_view: tuple[float, float, float] = (200.0, 230.0, 200.0),
    noise: float = 0.03,
    shading: float = 0.0,
    stripped: bool = False,
    clean_air: bool = False,
    movement: NDArray[np.float64] | None = None,
) -> Head:
    """The head around the origin, moved, on a RAS grid in the middle of the field of view.

    Values are of the voxel's centre. `shading` is the size of the log field; `clean_air` sets everything outside the head to 0.
    """
    shape = tuple(round(f / s) for f, s in zip(field_of_view, spacing, strict=True))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.inv(np.eye(4) if movement is None else movement)
    point = world @ back[:3, :3].T + back[:3, 3]

    def inside(thickness: float) -> NDArray[np.bool_]:
        return ((point / (SEMI_AXES - thickness)) ** 2).sum(-1) < 1

    x, y, z = np.moveaxis(point, -1, 0)
    folds = 0.03 * np.cos(11 * np.arctan2(y, x)) * np.cos(z / 12)
    white = ((point / (SEMI_AXES - 24)) ** 2).sum(-1) < (1 + folds) ** 2
    data = np.select([white & inside(18), inside(18), inside(14), inside(7), inside(0)], [WHITE, GREY, FLUID, BONE, SKIN], AIR)
    for side in (-1, 1):
        data[((x - side * 12) / 8) ** 2 + ((y + 5) / 28) ** 2 + ((z - 5) / 12) ** 2 < 1] = FLUID
    # One dark mark on the left: without it a mirrored head looks the same.
    data[((x + 35) / 9) ** 2 + ((y - 20) / 9) ** 2 + ((z - 20) / 12) ** 2 < 1] = FLUID
    brain, head = inside(14), inside(0)
    a, b, c = np.moveaxis(world / (np.array(field_of_view) / 2), -1, 0)
    field = np.exp(shading * (0.7 * a + 0.8 * b - 0.9 * a**2 + 0.5 * c))
    field /= field[brain].mean()
    random = np.random.default_rng(0).standard_normal((2, *shape)) * noise
    data = np.hypot(data * field + random[0], random[1])
    if stripped:
        data = np.where(brain, data, 0)
    elif clean_air:
        data = np.where(head, data, 0)
    return Head(Volume((700 * data).astype(np.float32), affine), brain, field)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
