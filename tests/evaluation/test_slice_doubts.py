"""Slices that are explained worse than the others are named, and no others."""

import numpy as np
import pytest

from dynamicdps.evaluation.slice_doubts import slice_doubts, slice_misfits
from dynamicdps.volumes import Volume


def residual(factors: list[float], axis: int = 2) -> Volume:
    """White residuals whose standard deviation differs by slice."""
    data = np.random.default_rng(0).standard_normal((24, 30, len(factors))) * factors
    return Volume(np.moveaxis(data, 2, axis).astype(np.float32), np.eye(4))


def test_misfit_of_each_slice() -> None:
    factors = [1.0, 0.5, 2.0]
    np.testing.assert_allclose(slice_misfits(residual(factors)), factors, rtol=0.08)


def test_what_a_mask_leaves_out_does_not_count() -> None:
    masked = residual([1.0, 2.0, 1.0])
    masked.data[:12] = 0
    # A handful of voxels says nothing of its slice.
    masked.data[:, :, 2] = 0
    masked.data[3, 3, 2] = 50
    found = slice_misfits(masked)
    np.testing.assert_allclose(found[:2], [1, 2], rtol=0.1)
    assert np.isnan(found[2])


@pytest.mark.parametrize("factors", [[1.0] * 10, [1.4] * 10, [3.0] * 10, [1.0, 1.3, 1.0, 0.9], [0.2, 0.5, 0.2]])
def test_slices_that_are_alike_are_not_named(factors: list[float]) -> None:
    """A misfit that is high everywhere is the whole scan's, and said elsewhere."""
    assert slice_doubts(residual(factors)) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [((4,), "slice 5 of 12"), ((2, 3, 4), "slices 3 to 5 of 12"), ((0, 6, 7, 11), "slices 1, 7 to 8 and 12 of 12")],
)
def test_the_others_are(bad: tuple[int, ...], words: str) -> None:
    factors = [2.5 if i in bad else 1.0 for i in range(12)]
    (warning,) = slice_doubts(residual(factors))
    assert warning.startswith(words)
    assert "from below" in warning
    assert 2.3 < float(warning.partition("misfit up to ")[2].split(",")[0]) < 2.8


def test_sagittal_slices() -> None:
    (warning,) = slice_doubts(residual([1.0, 3.0, 1.0, 1.0], axis=0), axis=0)
    assert warning.startswith("slice 2 of 4 (counted from left)")


def test_an_empty_residual() -> None:
    assert slice_doubts(Volume(np.zeros((4, 4, 3), np.float32), np.eye(4))) == []
