from pathlib import Path

import pytest
import torch
from torch import Tensor

from dynamicdps.operators import LowField, Operator, ScanOperator
from dynamicdps.solvers import DynamicDPSConfig
from dynamicdps.solvers.calibrate import CANDIDATES, calibrate_start, spread_slabs
from dynamicdps.volumes import IntensityScale, load, to_slices
from tests.properties import input_error


@pytest.mark.parametrize(("per_scan", "chosen"), [(1, [6]), (2, [3, 9]), (4, [1, 4, 7, 10])])
def test_slices_lie_in_the_middle_of_equal_parts(scan_files: list[Path], per_scan: int, chosen: list[int]) -> None:
    """Of twelve slices; the second scan has another size in the plane and is left out."""
    volume = load(scan_files[0])
    slices = to_slices(IntensityScale.robust(volume.data).apply(volume).data)
    found = spread_slabs(scan_files, per_scan)
    assert len(found) == 2 * per_scan
    torch.testing.assert_close(found[:per_scan, :, 0], slices[chosen])
    slabs = spread_slabs(scan_files, per_scan, 3)
    assert slabs.shape == (2 * per_scan, 1, 3, *slices.shape[-2:])
    whole = spread_slabs(scan_files, 1, 12)
    torch.testing.assert_close(whole[0, 0], slices[:, 0])
    with input_error("no scan has 13 slices"):
        spread_slabs(scan_files, 1, 13)


class Shifted:
    """A conditional model that is wrong by one grey for each image."""

    def __init__(self, truth: Tensor, *by: float) -> None:
        self.truth, self.by = truth, torch.tensor(by).view(-1, 1, 1, 1)

    def enhance(self, y: Tensor, operator: Operator, shape: tuple[int, ...]) -> Tensor:
        assert tuple(shape) == tuple(self.truth.shape)
        return self.truth + self.by


class Knowing:
    """A prior that knows that all images are of the truth's grey."""

    errors: tuple[tuple[float, float], ...] = ()

    def __init__(self, truth: Tensor) -> None:
        self.truth = truth

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.truth.to(x).mean() + 0 * x


def test_calibration_tries_every_level_of_every_image() -> None:
    truth = torch.full((2, 1, 16, 12), 0.5)
    models = {"near": Shifted(truth, 0.04, 0.05), "far": Shifted(truth, 0.2, 0.25)}
    degradations = {"half": ScanOperator(LowField(in_plane_factor=2.0), 1e-4)}
    seen: list[tuple[int, int]] = []
    config = DynamicDPSConfig(samples=1, steps=2, estimate="mean")
    found = calibrate_start(
        truth,
        models,  # type: ignore[arg-type]
        degradations,
        Knowing(truth),
        config=config,
        source="made",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(k + 1, 2 * len(CANDIDATES)) for k in range(2 * len(CANDIDATES))]
    assert found.condition == ["near/half"] * 2 + ["far/half"] * 2
    # Means over larger voxels keep a constant: the misfit is the shift.
    torch.testing.assert_close(found.misfit, torch.tensor([0.04, 0.05, 0.2, 0.25]), rtol=0.01, atol=0)
    assert found.error.shape == (4, len(CANDIDATES))
    assert (found.error < 0.01).all()
    assert found.rule.source == "made"
    assert found.candidates == CANDIDATES
