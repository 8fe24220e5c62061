"""Where solvers start: a conditional model's image or any volume, on the operator's grid and in the units of the scan."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynamicdps.conditional.model import ConditionalModel
from dynamicdps.operators import LowField, Operator, ScanOperator, simulate
from dynamicdps.solvers.initial import initial_from_model, initial_from_volume
from dynamicdps.volumes import Volume

SCANNER = ScanOperator(LowField(in_plane_factor=2.0), 1e-4)


class Recorded(ConditionalModel):
    """A conditional model that knows the answer, and keeps what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__(nn.Identity())
        self.answer, self.asked = answer, cast(tuple[Any, ...], ())

    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int], chunk: int = 8) -> Tensor:
        self.asked = y, operator, shape
        return self.answer


def test_a_model_sees_the_scan_in_image_intensities_and_its_image_comes_back_in_the_scans(phantom: Volume) -> None:
    bright = phantom.with_data(500 * phantom.data)
    scan, operator = simulate(bright, SCANNER, seed=0)
    scale = operator.intensity_scale
    assert scale is not None
    x, y, z = phantom.shape
    model = Recorded(torch.from_numpy(np.ascontiguousarray(bright.data.transpose(2, 1, 0)))[None, None] / scale)
    found = initial_from_model(scan, operator, model, "known")
    np.testing.assert_allclose(found.volume.data, bright.data, rtol=1e-5)
    np.testing.assert_allclose(found.volume.affine, bright.affine)
    assert found.source == "conditional model known"
    seen, forward, shape = model.asked
    assert shape == (1, 1, z, y, x)
    assert forward is operator.operator
    np.testing.assert_allclose(seen[0, 0].numpy().transpose(2, 1, 0), scan.data / scale, rtol=1e-5)


@pytest.mark.parametrize(("factor", "changed"), [(1.0, False), (1.4, False), (0.7, False), (1.6, True), (0.6, True), (1e-3, True)])
def test_units_are_the_scans_within_a_factor_of_one_and_a_half(phantom: Volume, factor: float, changed: bool) -> None:
    scan, operator = simulate(phantom, SCANNER, seed=0)
    found = initial_from_volume(scan, operator, phantom.with_data(factor * phantom.data), "file")
    assert ("scaled" in found.source) == changed
    np.testing.assert_allclose(found.volume.data, phantom.data * (1 if changed else factor), rtol=1e-3, atol=1e-6)
