"""Motion between the slices of several scans of one head."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.affines import apply_affine

import dynamicdps as dd
from dynamicdps.operators import LowField, ScanOperator
from dynamicdps.pipeline.scans_of_head import OneScan, align
from dynamicdps.pipeline.slice_motion import find_slice_motion
from dynamicdps.solvers.initial import Initial
from dynamicdps.volumes import BrainMask, BrainScan, Volume
from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.grids import Grid, native_grid, sample
from tests.pipeline.head_scans import movement, one_head, scan_in_motion, scanner_of
from tests.properties import input_error

AXES = (2, 1, 0)
STILL = [[np.eye(4)]] * 3
# Four packets a scan, each from a place of its own.
MOVED = [[movement(1.5, 1.2, 10 * across + packet) for packet in range(4)] for across in AXES]


def placed(places: list[list[np.ndarray]], contrasts: tuple[str, ...] = ("T1w",) * 3) -> list[OneScan]:
    """Scans of one head at their poses, each with itself, interpolated, as its enhanced image."""
    head, scans = one_head(), []
    for across, own, contrast in zip(AXES, places, contrasts, strict=False):
        seen = head if contrast == "T1w" else head.with_data(np.where(head.data > 0.05, 1.2 - 0.9 * head.data, 0).astype(np.float32))
        scan, operator = (
            scan_in_motion(seen, across, own, 100.0, seed=across),
            ScanOperator(scanner_of(across), 0.02, intensity_scale=100.0),
        )
        image = sample(scan, Grid(*operator.grid_for(scan)), order=1)
        brain = BrainScan(scan, Acquisition(slice_axis=across), BrainMask(scan.data > 10, "none", []), scan, None)
        scans.append(OneScan(f"scan {across}", brain, operator, Initial(image, "the scan"), None, contrast=contrast))
    return align(scans, keep_all=True)[0]


def misplacements(scans: list[OneScan], places: list[list[np.ndarray]]) -> np.ndarray:
    """How far each slice's corners lie from where the head was, mm, but for a movement that all slices have in common."""
    nets, parts = [], []
    for scan, across, own in zip(scans, AXES, places, strict=False):
        assert scan.pose is not None
        header = np.linalg.inv(scan.pose.movement) @ scan.head.whole.affine
        for number in range(scan.head.whole.shape[across]):
            inside = np.take(scan.head.mask.inside, number, across)
            if inside.sum() < 300:
                continue
            corners = np.insert(np.array([[15, 15], [15, 35], [35, 15], [35, 35]]), across, number, axis=1)
            moves = np.eye(4) if scan.pose.slices is None else scan.pose.slices.movements[number]
            nets.append(apply_affine(moves @ scan.pose.movement @ header, corners))
            parts.append(apply_affine(own[number % len(own)] @ header, corners))
    found, truth = np.concatenate(nets), np.concatenate(parts)
    u, _, v = np.linalg.svd((found - found.mean(0)).T @ (truth - truth.mean(0)))
    off = (found - found.mean(0)) @ u @ v + truth.mean(0) - truth
    return np.sqrt((off**2).sum(1).reshape(-1, 4).mean(1))


@pytest.mark.parametrize("count", [2, 3])
def test_slices_that_moved_are_found(count: int) -> None:
    scans = placed(MOVED[:count])
    before = misplacements(scans, MOVED)
    found, warnings = find_slice_motion(scans)
    after = misplacements(found, MOVED)
    assert not warnings
    assert np.median(before) > 0.5
    assert np.median(after) < 0.4 * np.median(before)
    assert np.sqrt(np.mean(after**2)) < 0.5 * np.sqrt(np.mean(before**2))


def test_a_head_that_kept_still_stays_where_it_is() -> None:
    scans = placed(STILL)
    found, _ = find_slice_motion(scans)
    assert np.median(misplacements(found, STILL)) < 0.1
    for scan in found:
        assert scan.pose is not None
        assert scan.pose.slices is not None
        assert np.median(np.abs(scan.pose.slices.parameters[:, :3])) < 0.05
        assert np.rad2deg(np.median(np.abs(scan.pose.slices.parameters[:, 3:]))) < 0.2


def test_motion_is_not_looked_for_where_nothing_tells_of_it() -> None:
    """In the only scan of its contrast; in one whose voxels are no slices."""
    scans = placed([[np.eye(4)], MOVED[1]], ("T1w", "T2w"))
    found, warnings = find_slice_motion(scans)
    assert ["no other scan has its contrast" in warning for warning in warnings] == [True, True]
    assert all(scan.pose is not None and scan.pose.slices is None for scan in found)
    thin = replace(scans[1], contrast="T1w", operator=replace(scans[1].operator, operator=LowField(in_plane_factor=1.2)))
    _, warnings = find_slice_motion([scans[0], replace(thin, head=scans[0].head, name="thin")])
    assert ["no thick slices" in warning for warning in warnings] == [True]


@pytest.fixture
def moving(tmp_path: Path) -> list[Path]:
    head, paths = one_head(), []
    for across, places in zip(AXES, MOVED, strict=True):
        paths.append(scan_in_motion(head, across, places, 100.0, seed=across).save(tmp_path / f"scan-{across}_T1w.nii.gz"))
        ScanOperator(scanner_of(across), 0.02, intensity_scale=100.0).save(tmp_path / f"scan-{across}_T1w.operator.json")
    return paths


def test_the_image_is_better_where_motion_is_found(moving: list[Path], quick: dict[str, Any], tmp_path: Path) -> None:
    known = {name: quick[name] for name in ("prior", "conditional")} | {"solver": "data-step", "contrast": "T1w", "mask": "none"}
    found, without = dd.enhance(moving, slice_motion=True, **known), dd.enhance(moving, **known)
    misfits = [each.metrics["data-step"].data_misfit for each in (found, without)]
    assert misfits[0] < 0.85 * misfits[1]
    page = found.write(tmp_path / "out").read_text()
    assert "slices moved by, mm" in page
    scans = json.loads((tmp_path / "out" / "run.json").read_text())["scans"]
    for scan, path in zip(scans, moving, strict=True):
        slices = scan["pose"]["slices"]
        assert len(slices["shift_mm"]) == len(slices["rotation_degrees"]) == dd.load(path).shape[slices["axis"]]
    assert all("slices" not in scan["pose"] for scan in without.facts["scans"])
    # Apart from a movement, the image is that of the head.
    head = one_head()
    errors = []
    for each in (found, without):
        image = Volume(each.image.data, each.image.affine)
        there = sample(image, native_grid(head), order=1).data
        inside = head.data > 0.1
        errors.append(float(np.corrcoef(there[inside], head.data[inside])[0, 1]))
    assert errors[0] > errors[1]


def test_one_scan_alone_says_nothing_of_its_slices(moving: list[Path], quick: dict[str, Any]) -> None:
    with input_error("--slice-motion is given for one scan"):
        dd.enhance(moving[0], slice_motion=True, prior=quick["prior"], conditional=quick["conditional"])
