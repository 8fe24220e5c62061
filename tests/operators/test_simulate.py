"""A simulated scan lies where the scan lies, and its operator's file says how it was made."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynamicdps.operators import PRESETS, Identity, KSpace, LowField, Noise, ScanOperator, preset, read_operator, simulate
from dynamicdps.operators.image_grid import voxel_factors
from dynamicdps.volumes import IntensityScale, Volume
from tests.conftest import make_phantom
from tests.properties import input_error, measured_shape


def world_centre(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    return affine @ [*((np.array(shape) - 1) / 2), 1]


def centre_of_mass(volume: Volume) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    weights = volume.data.reshape(-1) / volume.data.sum()
    return volume.affine @ [*(weights @ index), 1]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("shape", [(48, 56, 12), (33, 41, 9)])
def test_grids_share_their_centre(name: str, shape: tuple[int, int, int]) -> None:
    scan = make_phantom(shape, spacing=(1.0, 0.9, 1.1))
    measurement, operator = simulate(scan, preset(name))
    assert measurement.shape == measured_shape(operator.operator, scan.shape)
    np.testing.assert_allclose(world_centre(measurement.shape, measurement.affine), world_centre(scan.shape, scan.affine), atol=1e-9)
    factors = voxel_factors(operator.operator)
    np.testing.assert_allclose(measurement.spacing, np.array(scan.spacing) * factors)
    if name == "thick-5mm":
        assert measurement.spacing[2] == pytest.approx(5.0)


@pytest.mark.parametrize(
    "parameters",
    [
        {"in_plane_factor": 4.0, "blur": 1.0},
        {"in_plane_factor": 1.5, "slice_thickness": 5.0},
        {"slice_thickness": 3.0, "slice_profile": "box"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(40, 44, 30), (41, 43, 31)])
def test_bright_spot_keeps_its_place_in_the_world(parameters: dict[str, Any], shape: tuple[int, int, int]) -> None:
    affine = np.array([[0.96, -0.28, 0, 10], [0.28, 0.96, 0, -20], [0, 0, 1.0, 5], [0, 0, 0, 1]])
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    spot = np.exp(-((index - [17.3, 24.6, 16.2]) ** 2).sum(-1) / (2 * 3.0**2)).astype(np.float32)
    scan = Volume(spot, affine)
    measurement, _ = simulate(scan, ScanOperator(LowField(**parameters), 1e-6))
    np.testing.assert_allclose(centre_of_mass(measurement), centre_of_mass(scan), atol=0.03)


def test_same_seed_same_scan_and_units_carry_through(phantom: Volume) -> None:
    first, operator = simulate(phantom, preset("iqt-in"), seed=3)
    again, _ = simulate(phantom, preset("iqt-in"), seed=3)
    other, _ = simulate(phantom, preset("iqt-in"), seed=4)
    np.testing.assert_array_equal(first.data, again.data)
    assert np.abs(first.data - other.data).max() > 0
    bright, scaled = simulate(phantom.with_data(phantom.data * 500), preset("iqt-in"), seed=3)
    np.testing.assert_allclose(bright.data, first.data * 500, rtol=1e-4, atol=1e-2)
    assert operator.intensity_scale is not None
    assert scaled.intensity_scale == pytest.approx(500 * operator.intensity_scale)
    fixed, recorded = simulate(phantom, preset("iqt-in"), scale=IntensityScale(2.0))
    assert recorded.intensity_scale == 2.0
    assert fixed.data.max() > 0


def test_rician_measurements_are_magnitudes(phantom: Volume) -> None:
    measurement, _ = simulate(phantom, ScanOperator(LowField(), Noise(0.05, "rician")))
    assert (measurement.data >= 0).all()
    assert measurement.data[phantom.data == 0].mean() > 0.04


def test_the_parts_of_a_composition_know_the_slice_distance() -> None:
    scan = make_phantom((40, 44, 12), spacing=(1.0, 1.0, 1.3))
    inner = LowField(slice_thickness=4.0)
    alone, _ = simulate(scan, ScanOperator(inner, 0.05), seed=1)
    composed, tied = simulate(scan, ScanOperator(Identity() @ inner, 0.05), seed=1)
    np.testing.assert_array_equal(composed.data, alone.data)
    np.testing.assert_allclose(composed.affine, alone.affine)
    assert tied.to_json()["operators"][1]["image_spacing"] == pytest.approx(1.3)


def test_raw_kspace_is_no_scan(phantom: Volume) -> None:
    with input_error("raw k-space"):
        simulate(phantom, ScanOperator(KSpace(torch.ones(56, 48)), 0.001))


def test_unusable_scans_are_refused(phantom: Volume) -> None:
    with input_error("6 x 56 voxels"):
        simulate(Volume(phantom.data[:6], phantom.affine), preset("iqt-in"))
    with input_error("no voxel greater than 0"):
        simulate(phantom.with_data(np.zeros(phantom.shape)), preset("iqt-in"))


@pytest.mark.parametrize("name", PRESETS)
def test_file_round_trip(name: str, phantom: Volume, tmp_path: Path) -> None:
    measurement, written = simulate(phantom, preset(name))
    path = tmp_path / "low.operator.json"
    written.save(path)
    read = read_operator(path)
    assert read.to_json() == written.to_json()
    assert json.loads(path.read_text(encoding="utf-8"))["type"] == "LowField"
    shape, affine = read.grid_for(measurement)
    assert shape == phantom.shape
    np.testing.assert_array_equal(affine, phantom.affine)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_grid_without_a_record_is_the_largest_covered(phantom: Volume) -> None:
    measurement, operator = simulate(phantom, preset("thick-5mm"))
    shape, affine = replace(operator, image_shape=None).grid_for(measurement)
    assert measured_shape(operator.operator, shape) == measurement.shape
    assert all(found >= size for found, size in zip(shape, phantom.shape, strict=True))
    np.testing.assert_allclose(world_centre(shape, affine), world_centre(phantom.shape, phantom.affine), atol=1e-9)
    np.testing.assert_allclose(Volume(np.zeros(shape, np.float32), affine).spacing, phantom.spacing)


def test_grid_of_another_measurement_is_refused(phantom: Volume) -> None:
    measurement, operator = simulate(phantom, preset("iqt-in"))
    with input_error("use the operator of this scan"):
        operator.grid_for(Volume(measurement.data[1:], measurement.affine))


def test_names_are_operators() -> None:
    assert read_operator("iqt-out").to_json() == PRESETS["iqt-out"].to_json()


GOOD: dict[str, Any] = {"type": "LowField", "gamma": 0.5}
EYE = np.eye(4).tolist()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1, 2]",
        "3",
        "null",
        '{"type": "Motion"}',
        json.dumps({"gamma": 0.5}),
        *(
            json.dumps(GOOD | change)
            for change in (
                {"gamma": 9},
                {"gamma": "high"},
                {"gamma": None},
                {"gamma": [0.5, 0.6]},
                {"gamma": float("nan")},
                {"gamma": 10**400},
                {"slice_profile": ["box"]},
                {"noise": 3},
                {"image_shape": [1, 2], "image_affine": EYE},
                {"image_shape": [0, 2, 2], "image_affine": EYE},
                {"image_shape": [10**6, 2, 2], "image_affine": EYE},
                {"image_shape": [float("inf"), 2, 2], "image_affine": EYE},
                {"image_shape": "large", "image_affine": EYE},
                {"image_shape": 7, "image_affine": EYE},
                {"image_shape": [8, 8, 8], "image_affine": [1, 2, 3]},
                {"image_shape": [8, 8, 8], "image_affine": np.zeros((4, 4)).tolist()},
                {"image_shape": [8, 8, 8], "image_affine": "none"},
                {"intensity_scale": -1},
                {"intensity_scale": 0},
                {"intensity_scale": "bright"},
                {"intensity_scale": float("inf")},
            )
        ),
    ],
)
def test_bad_files_give_one_sentence(content: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.operator.json"
    path.write_text(content, encoding="utf-8")
    with input_error():
        read_operator(path)


def test_missing_folder_and_binary_files_give_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(bytes(range(128, 256)))
    for name in ("iqt", tmp_path / "missing.json", tmp_path, tmp_path / "binary.json"):
        with input_error():
            read_operator(name)


def test_eight_voxels_in_the_plane_are_enough() -> None:
    rough = ScanOperator(LowField(), 0.001)
    scan = make_phantom((8, 9, 4))
    assert simulate(scan, rough)[0].shape == scan.shape
    with input_error("7 x 9 voxels"):
        simulate(make_phantom((7, 9, 4)), rough)
