"""Volumes and their slices."""

import numpy as np
import pytest
import torch

from dynamicdps.volumes import from_slices, to_batch, to_slices


def test_slices_and_back() -> None:
    data = np.random.default_rng(0).random((4, 5, 3), dtype=np.float32)
    slices = to_slices(data)
    assert slices.shape == (3, 1, 5, 4)
    assert slices.dtype == torch.float32
    assert slices[2, 0, 4, 1] == data[1, 4, 2]
    np.testing.assert_array_equal(from_slices(slices), data)
    batch = to_batch(data)
    assert batch.shape == (1, 1, 3, 5, 4)
    assert batch[0, 0, 2, 4, 1] == data[1, 4, 2]
    np.testing.assert_array_equal(from_slices(batch), data)


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 2, 5, 4), (2, 1, 3, 5, 4), (1, 2, 3, 5, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_slices(torch.zeros(shape))
