"""Tissue volumes of a run: on the right grid, with intervals where there are samples."""

from dataclasses import replace

import numpy as np
import pytest

from dynamicdps.cli.table import volumes_line
from dynamicdps.evaluation import TISSUES, segment, tissue_intervals, tissue_volumes
from dynamicdps.operators import LowField, ScanOperator, simulate
from dynamicdps.pipeline.brain_volumes import brain_on, keeping_samples, measure_volumes
from dynamicdps.solvers import DynamicDPSConfig
from dynamicdps.solvers.reconstruction import PlainConfig
from dynamicdps.volumes import BrainScan, Volume, brain_mask
from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.brain_extraction import BrainMask
from tests.conftest import make_phantom


def noisy(phantom: Volume, std: float, seed: int = 0) -> Volume:
    return phantom.with_data(phantom.data + std * np.random.default_rng(seed).standard_normal(phantom.shape))


def test_volumes_and_intervals_are_the_evaluations(phantom: Volume) -> None:
    mask = brain_mask(phantom)
    samples = tuple(noisy(phantom, 0.05, seed) for seed in range(4))
    found = measure_volumes({"conditional": noisy(phantom, 0.1), "dps": phantom}, samples, mask)
    assert found.of["dps"] == tissue_volumes(segment(phantom.data, mask), phantom.spacing)
    assert set(found.of) == {"conditional", "dps"}
    known = tissue_intervals([each.data for each in samples], mask, phantom.spacing, estimate=found.of["dps"], pairs=True)
    assert found.intervals == known.interval_mm3
    assert found.warnings == []
    assert measure_volumes({"dps": phantom}, samples[:1], mask).intervals == {}


def test_an_image_that_cannot_be_segmented_is_a_doubt_and_no_end() -> None:
    phantom = make_phantom()
    found = measure_volumes({"dps": phantom.with_data(np.ones(phantom.shape))}, (), brain_mask(phantom))
    assert (found.of, found.intervals) == ({}, {})
    (doubt,) = found.warnings
    assert doubt.startswith("the tissue volumes are unknown: the image has 1 different values")


def test_the_scans_mask_on_the_grid_of_the_image() -> None:
    """Thick slices of 4 mm whose brain is the middle two: on 1 mm, where linear interpolation passes one half."""
    inside = np.zeros((4, 4, 4), dtype=bool)
    inside[:, :, 1:3] = True
    whole = Volume(np.ones((4, 4, 4), dtype=np.float32), np.diag([1.0, 1.0, 4.0, 1.0]))
    head = BrainScan(whole, Acquisition(), BrainMask(inside, "classical"), whole, None)
    fine = Volume(np.zeros((4, 4, 16), dtype=np.float32), np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -1.5], [0, 0, 0, 1.0]]))
    along_z = brain_on(head, fine)[0, 0]
    # From 2 to 10 mm: voxels at 2.5 to 9.5 mm, of which the first lies at -1.5 mm.
    assert np.flatnonzero(along_z).tolist() == list(range(4, 12))


def test_samples_are_kept_where_there_are_several() -> None:
    config = DynamicDPSConfig(samples=3)
    assert keeping_samples(config) == replace(config, keep_samples=True)
    one = DynamicDPSConfig(samples=1)
    assert keeping_samples(one) is one
    plain = PlainConfig()
    assert keeping_samples(plain) is plain


@pytest.mark.parametrize(("slab", "of"), [(True, "the slab that was scanned"), (False, "the enhanced brain")])
def test_the_line_says_volumes_in_millilitres(slab: bool, of: str) -> None:
    volumes = dict(zip(TISSUES, (50_000.0, 700_250.0, 500_000.0), strict=True))
    line = volumes_line(volumes, {"gm": (690_000.0, 712_000.0)}, slab)
    assert line == f"tissue volumes of {of} in ml (95 % intervals): CSF 50.0, GM 700.2 (690.0 to 712.0), WM 500.0"
    assert volumes_line({}, {}, slab) == ""


def test_half_filled_voxels_around_a_stripped_brain_are_no_fluid() -> None:
    """A brain through voxels of 4 mm is measured larger than it is; its estimate says where it ends. Of a head the mask says it alone."""
    truth = make_phantom((48, 56, 8))
    measured, _ = simulate(truth, ScanOperator(LowField(in_plane_factor=4.0), 0.001), seed=1)
    size = int(brain_mask(truth).sum())
    for method, low, high in (("none", 0.99, 1.01), ("classical", 1.1, 1.5)):
        head = BrainScan(measured, Acquisition(), BrainMask(brain_mask(measured), method), measured, None)
        assert low * size <= int(brain_on(head, truth).sum()) <= high * size


def test_exact_zeros_around_a_brain_are_not_measured() -> None:
    brain = make_phantom((24, 28, 6))
    empty = Volume(np.concatenate([brain.data, np.zeros((24, 28, 2), np.float32)], axis=2), brain.affine)
    inside = brain_mask(empty)
    measured = BrainScan(empty, Acquisition(), BrainMask(inside, "none"), empty, None).measured
    assert measured is not None
    assert (measured[..., :6] == inside[..., :6]).all()
    # A slice without any brain has nothing to be left out of.
    assert (measured[..., 6:] == 1).all()
    filled = noisy(empty, 0.01)
    assert BrainScan(filled, Acquisition(), BrainMask(inside, "none"), filled, None).measured is None
    weights = inside.astype(np.float32)
    assert BrainScan(filled, Acquisition(), BrainMask(inside, "classical"), filled, weights).measured is weights
