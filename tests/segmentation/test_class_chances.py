"""What follows from known chances: the brain, volumes and labels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dynamicdps.segmentation import ClassChances
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.segmentation.head_check import check_brain
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import Grid
from tests.properties import input_error

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = -60.0
SHAPE = (61, 61, 61)
WHITE = CLASSES.index("white matter")


def places() -> NDArray[np.float64]:
    return np.stack(np.meshgrid(*(2.0 * np.arange(n) - 60 for n in SHAPE), indexing="ij"))


def chances_of(white: NDArray[np.generic]) -> ClassChances:
    """White matter with a chance, else nothing that is reported."""
    values = np.zeros((len(CLASSES), *SHAPE), np.float32)
    values[WHITE] = white
    values[0] = 1 - values[WHITE]
    return ClassChances(values, AFFINE)


def test_what_hangs_on_the_brain_by_a_thin_bridge_is_no_brain() -> None:
    x, y, z = places()
    brain, eye = x**2 + y**2 + z**2 < 28**2, x**2 + (y - 50) ** 2 + z**2 < 9**2
    bridge = (x**2 + z**2 < 9) & (y > 0) & (y < 46)
    found = chances_of(brain | eye | bridge).inside
    assert found[brain].mean() > 0.999
    assert not found[eye].any()


def test_a_slab_of_a_few_slices_stays_whole() -> None:
    x, y, z = places()
    slab = (x**2 + y**2 < 30**2) & (z < -54)
    found = chances_of(slab).inside
    assert found[slab].mean() > 0.99


def test_half_a_chance_is_half_a_volume() -> None:
    x, y, z = places()
    radius = np.sqrt(x**2 + y**2 + z**2)
    sharp, soft = (chances_of(np.clip((30 - radius) / width + 0.5, 0, 1)) for width in (1e-6, 4.0))
    whole = 4 / 3 * np.pi * 30**3
    for chances in (sharp, soft):
        (volume,) = (slices.sum() for structure, slices in chances.volumes(None).items() if structure.name == "white matter")
        assert volume == pytest.approx(whole, rel=0.015)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.6, 1.6, 5.0)])
def test_labels_lie_on_any_grid(spacing: tuple[float, float, float]) -> None:
    x, y, z = places()
    chances = chances_of(np.clip((30 - np.sqrt(x**2 + y**2 + z**2)) / 4 + 0.5, 0, 1))
    shape = tuple(int(100 / s) for s in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -50
    grid = Grid(shape, affine)  # type: ignore[arg-type]
    brain = chances.brain_on(grid)
    labels = chances.labels_on(grid, brain, None)
    assert labels.shape == shape
    assert set(np.unique(labels)) == {0, 2}
    np.testing.assert_array_equal(labels > 0, brain)
    assert (labels > 0).sum() * np.prod(spacing) == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.03)


def test_another_brain_takes_the_place_of_the_one_that_is_found() -> None:
    x, y, z = places()
    chances = chances_of(x**2 + y**2 + z**2 < 30**2)
    half = Volume((x < 0).astype(np.float32), AFFINE)
    np.testing.assert_array_equal(chances.within(half).inside, x < 0)


def test_a_brain_that_the_network_does_not_see_is_refused() -> None:
    x, y, z = places()
    head = Volume((100 + 40 * np.sin(x / 5)).astype(np.float32), AFFINE)
    seen = chances_of(x**2 + y**2 + z**2 < 12**2)
    with input_error("of the brain are recognised"):
        check_brain(seen.within(Volume((x**2 + y**2 + z**2 < 40**2).astype(np.float32), AFFINE)), head)
    with input_error("100% white matter"):
        check_brain(seen, head)
