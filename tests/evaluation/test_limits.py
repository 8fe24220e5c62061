"""Every measure takes the numbers that its documentation allows, ends included, and no others."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dynamicdps import evaluation as ev
from dynamicdps.evaluation.structures import structure_errors
from dynamicdps.operators import LowField
from dynamicdps.volumes import IntensityScale
from tests.conftest import make_phantom
from tests.properties import input_error

SLICES = torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
OTHER = SLICES.flip(0)
SAMPLES = torch.stack([SLICES, OTHER, SLICES.flip(2)])
HEAD = make_phantom((48, 56, 12))
LABELS = ev.segment(HEAD.data, HEAD.data > 0.05)
CENTRE = (20.0, 28.0, 6.0)
MM = (1.0, 1.0, 1.0)
LESION = ev.make_lesion(LABELS, MM, CENTRE, 3.0, 0.2)
NINE = [np.linspace(0, 1, 20) + i for i in range(9)]
ONES = [np.ones(20) for _ in range(9)]
MAP = ev.ConformalErrorMap.fit(NINE, ONES)
E = 1e-6


def place(**options: Any) -> Any:
    return ev.place_lesions(LABELS, MM, np.random.default_rng(0), **{"count": 1, **options})


def conformal(coverage: float, most_lost: float = 1.0, n: int = 9) -> Any:
    return ev.ConformalErrorMap.fit(NINE[:n], ONES[:n], coverage, most_lost)


def read(**values: Any) -> Any:
    return ev.ConformalErrorMap.from_json(MAP.to_json() | values)


def scan(**options: Any) -> Any:
    return ev.scanning_frc(SLICES, OTHER, SLICES > 0, **{"frequency": 0.2, "patch": 8, **options})


# What is called, what it takes, what it refuses.
LIMITS: list[tuple[str, Callable[[Any], Any], list[Any], list[Any]]] = [
    ("floor", lambda v: ev.error_heuristic(np.ones(3), floor=v), [E], [0.0, -E, math.nan]),
    ("coverage", conformal, [0.9, E], [0.0, 1.0, 0.91, -0.1, math.nan]),
    ("coverage of four", lambda v: conformal(v, n=4), [0.8, 0.5], [0.81]),
    ("most lost", lambda v: conformal(0.7, v), [0.3 + E, 1.0], [0.3, 1.0 + E, 0.2]),
    ("calibration's factor", lambda v: read(factor=v), [0.0, 2.0], [-E, math.nan]),
    ("calibration's coverage", lambda v: read(coverage=v), [E, 1 - E], [0.0, 1.0]),
    ("calibration's subjects", lambda v: read(subjects=v), [1], [0]),
    ("calibration's most lost", lambda v: read(most_lost=v), [E, 1.0], [0.0, 1 + E]),
    ("patch", lambda v: ev.hallucination_index(SAMPLES, SLICES, patch=v), [1, 12], [0, 13]),
    ("samples", lambda v: ev.hallucination_index(SAMPLES[:v], SLICES), [2], [0, 1]),
    ("reference", lambda v: ev.hallucination_index(SAMPLES, SLICES, reference_std=v), [E], [0.0, -E, math.nan]),
    ("diameter", lambda v: ev.make_lesion(LABELS, MM, CENTRE, v, 0.2), [3.0, 15.0], [3 - E, 15 + E, math.nan]),
    ("contrast", lambda v: ev.make_lesion(LABELS, MM, CENTRE, 4.0, v), [E, -1.0], [0.0]),
    ("ratios", lambda v: ev.make_lesion(LABELS, MM, CENTRE, 4.0, 0.2, (1.0, v, 1.0)), [0.5, 2.0], [0.5 - E, 2 + E]),
    ("centre", lambda v: ev.make_lesion(LABELS, MM, (v, 28.0, 6.0), 4.0, 0.2), [20.0], [-1.0, 48.0, 1000.0, 0.0]),
    ("count", lambda v: place(count=v), [1, 2], [0, -1]),
    ("smallest", lambda v: place(diameters_mm=(v, 5.0)), [3.0, 5.0], [3 - E, 5 + E]),
    ("largest", lambda v: place(diameters_mm=(3.0, v)), [15.0], [15 + E, 3 - E]),
    ("contrasts", lambda v: place(contrasts=v), [(0.1,)], [()]),
    ("elongation", lambda v: place(elongation=v), [1.0, 2.0], [1 - E, 2 + E]),
    ("snr", lambda v: ev.resolvable(LESION, LowField(), HEAD.data, noise_std=0.01, snr=v), [0.0], [-E, math.nan]),
    ("kept", lambda v: ev.resolvable(LESION, LowField(), HEAD.data, noise_std=0.01, kept=v), [0.0], [-E, math.nan]),
    ("signal", lambda v: ev.null_space_split(LowField(), SLICES, noise_std=0.01, signal=v), [E, math.inf], [0.0, -1.0, math.nan]),
    ("spread", lambda v: ev.sample_spread(SAMPLES[:v]), [2], [1]),
    ("patch of rings", lambda v: scan(patch=v), [8, 12], [7, 13]),
    ("frequency", lambda v: scan(frequency=v), [E], [0.0, -E, math.nan]),
    ("spacing", lambda v: scan(spacing=v), [E], [0.0, -E]),
    ("threshold", lambda v: scan(threshold=v), [E, 1 - E], [0.0, 1.0]),
    ("floor of rings", lambda v: scan(floor=v), [0.0], [-E]),
    ("stride", lambda v: scan(stride=v), [1], [0]),
    ("confidence", lambda v: ev.bootstrap_interval([1.0, 2.0], np.random.default_rng(0), coverage=v), [E, 1 - E], [0.0, 1.0]),
    ("p value", lambda v: ev.holm({"a": v, "b": 0.5}), [0.0, 1.0], [-E, 1 + E, math.nan]),
    ("scales", lambda v: ev.ms_ssim(SLICES, OTHER, v), [1], [0, 2]),
    ("intervals", lambda v: ev.tissue_intervals([HEAD.data] * 2, HEAD.data > 0.05, MM, coverage=v), [E, 1 - E], [0.0, 1.0]),
    ("samples of volumes", lambda v: ev.tissue_intervals([HEAD.data] * v, HEAD.data > 0.05, MM), [2], [1]),
    ("classes", lambda v: ev.segment(np.array([[[0.0, 1.0, 2.0]]]), np.ones((1, 1, 3), bool), v), [3], [4]),
    ("sizes of structures", lambda v: structure_errors(LABELS[:v], LABELS, MM), [48], [47]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "taken", "refused"), [case[1:] for case in LIMITS], ids=[case[0] for case in LIMITS])
def test_a_number_ends_where_it_says(call: Callable[[Any], Any], taken: list[Any], refused: list[Any]) -> None:
    for value in taken:
        call(value)
    for value in refused:
        with input_error():
            call(value)


def test_a_map_that_needs_no_width() -> None:
    assert ev.ConformalErrorMap.fit([np.zeros(4)] * 9, [np.ones(4)] * 9).factor == 0
    assert ev.ConformalErrorMap.fit([np.array([0.0, 0.0, 1.0])] * 9, [np.ones(3)] * 9, 0.5).factor == 0


def test_affines_may_differ_by_a_hundredth() -> None:
    scale = IntensityScale(1.0)
    for shift, fits in ((0.0099, True), (0.0101, False), (-0.0101, False)):
        affine = HEAD.affine.copy()
        affine[1, 3] += shift
        moved = replace(HEAD, affine=affine)
        if fits:
            ev.evaluate_volume(moved, HEAD, scale)
        else:
            with input_error("affines"):
                ev.evaluate_volume(moved, HEAD, scale)


def test_the_window_of_ssim_needs_its_seven_pixels() -> None:
    ev.ssim(SLICES[..., :7, :], OTHER[..., :7, :])
    with pytest.raises(ValueError, match="7 x 7"):
        ev.ssim(SLICES[..., :6, :], OTHER[..., :6, :])
