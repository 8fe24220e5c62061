from dataclasses import replace

import numpy as np
import pytest
import torch

from dynamicdps.evaluation.benchmark.cut import Cut
from dynamicdps.evaluation.benchmark.lesion_pass import check_room, insert_lesions, lesion_rows
from dynamicdps.operators import LowField, ScanOperator
from dynamicdps.volumes import from_slices, to_slices
from tests.conftest import make_phantom
from tests.properties import input_error

MM = (1.0, 1.0, 1.0)


def cut_of(numbers: list[int], seed: int = 1) -> Cut:
    scan = make_phantom((64, 72, 16)).data
    truth = to_slices(scan)[numbers]
    return Cut("sub-1", numbers, truth, truth > 0, MM, seed)


@pytest.mark.parametrize("numbers", [[2, 6, 10, 14], list(range(3, 13))], ids=["apart", "neighbours"])
def test_lesions_are_placed_in_white_matter(numbers: list[int]) -> None:
    cut = cut_of(numbers)
    lesioned = insert_lesions(cut, 4)
    assert len(lesioned.lesions) == 4
    assert sorted(np.sign(lesion.contrast) for lesion in lesioned.lesions) == [-1, -1, 1, 1]
    assert all(3 <= lesion.diameter_mm <= 15 for lesion in lesioned.lesions)
    changed = from_slices(lesioned.cut.truth) != lesioned.healthy
    assert bool((cut.labels[changed] == 3).all())
    masks = np.array([lesion.mask > 0 for lesion in lesioned.lesions])
    assert int(masks.sum(0).max()) == 1
    deep = [int(mask.any((0, 1)).sum()) for mask in masks]
    # Slices that are no neighbours have discs; a lesion of 3 mm and more is in several neighbours.
    assert deep == [1] * 4 if numbers[1] - numbers[0] > 1 else min(deep) >= 3
    assert torch.equal(cut.truth, to_slices(lesioned.healthy)), "the truth without lesions is as it was"


def test_lesions_depend_on_the_subject_alone() -> None:
    first, again, other = (insert_lesions(cut_of([4, 8], seed), 2) for seed in (1, 1, 2))
    assert torch.equal(first.cut.truth, again.cut.truth)
    assert not torch.equal(first.cut.truth, other.cut.truth)
    # The largest is dark in one subject and bright in another.
    assert first.lesions[0].contrast == -other.lesions[0].contrast


def test_fewer_where_there_is_no_room() -> None:
    scan = make_phantom((64, 72, 16)).data
    truth = to_slices(scan)[[8]]
    mask = torch.zeros_like(truth, dtype=torch.bool)
    # A window with a little of each tissue.
    mask[..., 8:24, 4:26] = True
    crowded = insert_lesions(Cut("a", [8], truth, mask & (truth > 0), MM, 1), 20)
    assert 0 < len(crowded.lesions) < 20
    none = replace(cut_of([8]))
    none.__dict__["labels"] = np.where(none.labels == 3, 2, none.labels).astype(np.uint8)
    assert insert_lesions(none, 2).lesions == []


def test_stacks_too_thin_for_a_lesion() -> None:
    check_room(1, 1.0)
    check_room(5, 1.0)
    check_room(3, 1.5)
    with input_error("stack of 4 neighbouring slices of 1 mm has no room for lesions; expected at least 5"):
        check_room(4, 1.0)
    lesioned = insert_lesions(cut_of([6, 7, 8, 9, 10]), 1)
    assert len(lesioned.lesions) == 1
    assert insert_lesions(cut_of([6, 7, 8, 9]), 1).lesions == []


def test_rows() -> None:
    """The truth keeps all, the image without lesions nothing, and a half-way image half."""
    cut = cut_of([2, 6, 10, 14])
    lesioned = insert_lesions(cut, 4)
    sharp = ScanOperator(LowField(), 0.001)
    verdicts = lesioned.resolvability(sharp)
    assert all(verdict.resolvable for verdict in verdicts)
    images = {"truth": lesioned.cut.truth, "none": cut.truth, "half": (cut.truth + lesioned.cut.truth) / 2}
    rows = {name: lesion_rows(image, lesioned, verdicts, "c", name) for name, image in images.items()}
    for number, (kept, lost, half) in enumerate(zip(rows["truth"], rows["none"], rows["half"], strict=True), start=1):
        assert (kept.lesion, kept.subject, kept.condition, kept.solver) == (number, "sub-1", "c", "truth")
        assert kept.kept == 1
        assert kept.shown_contrast == kept.truth_contrast
        assert half.kept == pytest.approx((1 + lost.kept) / 2)
        assert lost.kept == pytest.approx(0, abs=0.25), "texture of the tissue"
        assert kept.slice in cut.numbers
        assert kept.measured == pytest.approx(1)
    blurred = lesioned.resolvability(ScanOperator(LowField(in_plane_factor=8.0), 0.2))
    assert not any(verdict.resolvable for verdict in blurred)


def test_a_lesion_between_thick_slices() -> None:
    cut = cut_of(list(range(3, 13)))
    lesioned = insert_lesions(cut, 2)
    thick = ScanOperator(LowField(slice_thickness=5.0), 0.01)
    y = lesioned.cut.measure(thick)
    assert y.shape[2] == 2
    verdicts = lesioned.resolvability(thick)
    thin = lesioned.resolvability(ScanOperator(LowField(), 0.01))
    assert all(0 < a.snr < b.snr and a.kept < b.kept for a, b in zip(verdicts, thin, strict=True))
