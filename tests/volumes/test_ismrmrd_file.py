"""ISMRMRD files: the image comes back, in its place; what is something else is refused."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dynamicdps.volumes import read_kspace
from tests.properties import input_error
from tests.volumes.ismrmrd_files import WORDS, transform, write_ismrmrd

ismrmrd = pytest.importorskip("ismrmrd", reason="needs ismrmrd: pip install 'dynamicdps[ismrmrd]'")


def image(coils: int = 2, depth: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(coils, depth, 15, 12)) + 1j * rng.normal(size=(coils, depth, 15, 12))


@pytest.mark.parametrize("oversampling", [1, 2])
def test_the_image_comes_back(tmp_path: Path, oversampling: int) -> None:
    raw = read_kspace(write_ismrmrd(tmp_path / "raw.h5", image(), oversampling=oversampling))
    # Cutting the readout keeps each voxel's value.
    np.testing.assert_allclose(raw.images, image(), atol=2e-5)
    assert raw.sampled.all()
    known = raw.acquisition.to_json()
    assert known.pop("field_strength_t") == pytest.approx(0.055)
    assert known == {
        "echo_time_ms": 13.0,
        "repetition_time_ms": 52.0,
        "flip_angle_deg": 40.0,
        "slice_thickness_mm": 4.0,
        "slice_spacing_mm": 5.0,
        "slice_axis": 2,
    }


def test_place_in_space(tmp_path: Path) -> None:
    """ISMRMRD's coordinates grow to the left and back, those of volumes to the right and front."""
    turn = Rotation.from_euler("xyz", (10, -5, 20), degrees=True).as_matrix()
    raw = read_kspace(write_ismrmrd(tmp_path / "raw.h5", image(), directions=turn, position=(7.0, -3.0, 11.0)))
    to_ras = np.array([-1.0, -1.0, 1.0])
    for x, y, z in ((6, 7, 0), (0, 0, 0), (11, 14, 2)):
        expected = np.array([7.0, -3.0, 11.0]) + turn @ [(x - 6) * 200 / 12, (y - 7) * 240 / 15, 5.0 * z]
        np.testing.assert_allclose((raw.affine @ [x, y, z, 1])[:3], to_ras * expected, atol=1e-4)


def test_slices_lie_in_the_order_of_their_places(tmp_path: Path) -> None:
    """The slice direction points down: the last counter is the highest of the volume."""
    down = np.diag([1.0, 1.0, -1.0])
    path = write_ismrmrd(tmp_path / "raw.h5", image(), directions=down, position=(0.0, 0.0, 50.0))
    with h5py.File(path, "a") as file:
        rows = file["dataset/data"][:]
        # Counters turned around: they need not follow the places.
        rows["head"]["idx"]["slice"] = 2 - rows["head"]["idx"]["slice"]
        file["dataset/data"][:] = rows
    raw = read_kspace(path)
    np.testing.assert_allclose(raw.images, image(), atol=2e-5)
    np.testing.assert_allclose((raw.affine @ [6, 7, 2, 1])[:3], [0, 0, 40], atol=1e-4)


def test_lines_that_were_not_sampled_are_zero(tmp_path: Path) -> None:
    lines = np.array([0, 2, 5, 6, 7, 8, 9, 12])
    raw = read_kspace(write_ismrmrd(tmp_path / "raw.h5", image(), lines=lines))
    expected = np.zeros(15, bool)
    expected[lines] = True
    np.testing.assert_array_equal(raw.sampled, np.broadcast_to(expected[:, None], (3, 15, 12)))
    np.testing.assert_allclose(raw.kspace[:, :, lines], transform(image())[:, :, lines], atol=2e-5)


def test_averages_are_averaged(tmp_path: Path) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1, 2), averages=4, noise=0.1, oversampling=1)
    left = read_kspace(path).kspace - transform(image(1, 2))
    parts = np.concatenate([left.real.ravel(), left.imag.ravel()])
    assert parts.std() == pytest.approx(0.1 / 2, rel=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trajectory": "radial"}, "Cartesian"),
        ({"matrix_z": 8}, "3-D"),
        ({"kspace_encode_step_2": [0, 1]}, "3-D"),
        ({"contrast": [0, 1]}, "2 values of contrast"),
        ({"repetition": [0, 1, 2]}, "3 values of repetition"),
        ({"distance": 0.0}, "one place"),
        ({"directions": np.ones((3, 3))}, "right angles"),
        ({"field_of_view": (0.0, 240.0)}, "field"),
        ({"lines": np.array([3, 14]), "position": (np.nan, 0.0, 0.0)}, "right angles"),
    ],
)
def test_other_scans_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1), **change)
    with input_error(message):
        read_kspace(path)


def test_a_file_that_says_its_geometry_takes_no_other(tmp_path: Path) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    with input_error("ISMRMRD file"):
        read_kspace(path, voxel_size_mm=(1, 1, 5))


def test_damage_is_refused(tmp_path: Path) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    with h5py.File(path, "a") as file:
        text = file["dataset/xml"][0]
        file["dataset/xml"][0] = b'<!DOCTYPE x [<!ENTITY y "z">]>' + text
    with input_error("header"):
        read_kspace(path)
    with h5py.File(path, "a") as file:
        file["dataset/xml"][0] = b"<ismrmrdHeader/"
    with input_error("header"):
        read_kspace(path)
    with h5py.File(path, "a") as file:
        file["dataset/xml"][0] = text
        rows = file["dataset/data"][:]
        rows[3]["data"] = rows[3]["data"][:4]
        file["dataset/data"][:] = rows
    with input_error("a line of 4 numbers"):
        read_kspace(path)


def test_nothing_of_the_person_is_kept(tmp_path: Path) -> None:
    raw = read_kspace(write_ismrmrd(tmp_path / "raw.h5", image(1)))
    kept = repr(raw.acquisition) + str(raw.acquisition.to_json())
    assert not [word for word in WORDS if word in kept]
