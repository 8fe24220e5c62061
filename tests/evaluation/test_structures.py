import numpy as np
import pytest
from numpy.typing import NDArray

from dynamicdps.evaluation import structure_errors
from tests.properties import input_error

Labels = NDArray[np.uint8]
MM = (1.0, 1.0, 1.0)


@pytest.fixture
def truth() -> Labels:
    """White matter with a grey rim and a fluid one: a box in a box in a box."""
    labels = np.zeros((40, 40, 20), np.uint8)
    for value, margin in ((1, 2), (2, 4), (3, 8)):
        labels[margin:-margin, margin:-margin, margin // 2 : -(margin // 2)] = value
    return labels


def test_equal_maps_have_no_errors(truth: Labels) -> None:
    errors = structure_errors(truth, truth, MM)
    assert (errors.false, errors.lost) == ([], [])
    assert errors.dice == {"csf": 1, "gm": 1, "wm": 1}


def test_an_invented_region_is_found_with_its_place_and_size(truth: Labels) -> None:
    labels = truth.copy()
    labels[15:19, 16:19, 8:11] = 2
    errors = structure_errors(labels, truth, (1.0, 2.0, 1.5))
    (region,) = errors.false
    assert (region.tissue, region.mm3) == ("gm", 4 * 3 * 3 * 3.0)
    assert region.box == ((15, 19), (16, 19), (8, 11))
    assert region.centroid == (16.5, 17.0, 9.0)
    assert errors.false_mm3 == region.mm3
    # The white matter that had to go.
    assert [lost.tissue for lost in errors.lost] == []
    assert errors.dice["gm"] < 1


def test_lost_is_false_the_other_way_round(truth: Labels) -> None:
    labels = truth.copy()
    labels[15:19, 16:20, 8:12] = 1
    one, other = structure_errors(labels, truth, MM), structure_errors(truth, labels, MM)
    assert one.false == other.lost
    assert one.lost == other.false
    assert one.false != []


def test_a_lost_structure_is_found(truth: Labels) -> None:
    with_nucleus = truth.copy()
    with_nucleus[15:19, 16:20, 8:12] = 2
    errors = structure_errors(truth, with_nucleus, MM)
    (region,) = errors.lost
    assert (region.tissue, region.mm3) == ("gm", 64)
    assert errors.lost_mm3 == 64


@pytest.mark.parametrize("shift", [(1, 0, 0), (-1, 1, 0), (1, 1, 1), (0, -1, 1)])
def test_a_boundary_off_by_one_voxel_is_no_structure(truth: Labels, shift: tuple[int, int, int]) -> None:
    errors = structure_errors(np.roll(truth, shift, (0, 1, 2)), truth, MM)
    assert (errors.false, errors.lost) == ([], [])
    assert all(value < 1 for value in errors.dice.values())


def test_thickness_of_a_wrong_layer_decides() -> None:
    truth = np.full((30, 30, 30), 3, np.uint8)
    truth[:15] = 2
    for thickness, found in ((1, 0), (2, 0), (3, 1)):
        labels = truth.copy()
        labels[15 : 15 + thickness] = 2
        assert len(structure_errors(labels, truth, MM).false) == found


def test_a_blob_that_touches_its_tissue_is_found(truth: Labels) -> None:
    """Its voxels beside the true tissue count with it."""
    labels = truth.copy()
    labels[8:13, 16:20, 8:12] = 2
    (region,) = structure_errors(labels, truth, MM).false
    assert region.mm3 == 5 * 4 * 4


def test_regions_join_over_corners_and_small_ones_do_not_count(truth: Labels) -> None:
    labels = truth.copy()
    labels[14:16, 14:16, 8:10] = 2
    labels[16:18, 16:18, 10:12] = 2
    assert [r.mm3 for r in structure_errors(labels, truth, MM).false] == [16]
    assert structure_errors(labels, truth, MM, threshold_mm3=17).false == []
    labels[24:27, 24:27, 8:11] = 1
    assert [(r.tissue, r.mm3) for r in structure_errors(labels, truth, MM).false] == [("csf", 27), ("gm", 16)]


def test_a_single_slice_has_eight_neighbours() -> None:
    truth = np.full((24, 24, 1), 3, np.uint8)
    labels = truth.copy()
    labels[5:8, 5:8], labels[8:11, 8:11] = 2, 2
    (region,) = structure_errors(labels, truth, MM).false
    assert region.mm3 == 18
    assert region.box[2] == (0, 1)


def test_maps_must_fit(truth: Labels) -> None:
    with input_error("tissue maps have shapes"):
        structure_errors(truth[:-1], truth, MM)
    with input_error("tissue maps have shapes"):
        structure_errors(truth[..., 0], truth[..., 0], MM)
