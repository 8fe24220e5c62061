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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_entities_in_letters_of_two_bytes_are_refused(tmp_path: Path, encoding: str) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    with h5py.File(path, "a") as file:
        text = file["dataset/xml"][0].decode()
        del file["dataset/xml"]
        body = text[text.index("?>") + 2 :]
        content = f'<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x [<!ENTITY y "z">]>{body}'.encode(encoding) + b"."
        file["dataset"].create_dataset("xml", data=np.array([content]))
    with input_error("no plain header"):
        read_kspace(path)


def test_a_header_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    monkeypatch.setattr("dynamicdps.volumes.ismrmrd_file._MOST_HEADER_BYTES", 100)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("it was read"))
    with input_error("no plain header"):
        read_kspace(path)


def rewritten(path: Path, rows: np.ndarray, **settings: Any) -> Path:
    """The file with other lines, stored otherwise."""
    with h5py.File(path, "a") as file:
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=rows, **settings)
    return path


def lines_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file["dataset/data"][:])


@pytest.mark.parametrize("settings", [{}, {"chunks": (7,)}, {"chunks": (64,), "maxshape": (None,)}], ids=["whole", "chunks", "one chunk"])
def test_lines_may_be_stored_otherwise(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    expected = read_kspace(path).kspace
    np.testing.assert_array_equal(read_kspace(rewritten(path, lines_of(path), **settings)).kspace, expected)


def test_lines_may_have_gaps_between_their_parts(tmp_path: Path) -> None:
    """So compilers lay them out, and ISMRMRD's C library writes what it has in memory."""
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    expected, old = read_kspace(path).kspace, lines_of(path)
    kinds = [old.dtype[name] for name in ("head", "traj", "data")]
    rows = np.zeros(len(old), {"names": ["head", "traj", "data"], "formats": kinds, "offsets": [0, 344, 360], "itemsize": 376})
    for name in rows.dtype.names or ():
        rows[name] = old[name]
    rewritten(path, rows)
    assert lines_of(path).dtype.itemsize == 376
    np.testing.assert_array_equal(read_kspace(path).kspace, expected)


def test_packed_lines_are_refused(tmp_path: Path) -> None:
    """What their lengths are cannot be seen from outside."""
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    with input_error("packed"):
        read_kspace(rewritten(path, lines_of(path), chunks=(8,), compression="gzip"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": h5py.vlen_dtype(np.float64)}, "another type"),
        ({"more": h5py.vlen_dtype(np.float32)}, "another type"),
        ({"head": np.dtype([("flags", "u8"), ("name", h5py.string_dtype())])}, "another type"),
        ({"head": np.dtype([("flags", "u8"), ("more", "u1", (2000,))])}, "heads of 2040 bytes"),
    ],
)
def test_lines_of_another_type_are_refused(tmp_path: Path, change: dict[str, np.dtype[Any]], message: str) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    old = lines_of(path)
    kinds = {name: old.dtype[name] for name in old.dtype.names or ()} | change
    rows = np.zeros(3, list(kinds.items()))
    for row in rows:
        for name in set(kinds) - {"head"}:
            row[name] = np.zeros(2, h5py.check_vlen_dtype(kinds[name]))
        if kinds["head"].hasobject:
            row["head"]["name"] = "a"
    with input_error(message):
        read_kspace(rewritten(path, rows))


def test_lines_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(2))
    expected = read_kspace(path).kspace
    sizes = []
    read = h5py.Dataset.__getitem__

    def noted(self: h5py.Dataset, *arguments: Any) -> Any:
        found = read(self, *arguments)
        sizes.append(sum(each.nbytes for each in found["data"]) if self.name.endswith("data") else 0)
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", noted)
    # Two coils of 24 samples take 384 bytes.
    monkeypatch.setattr("dynamicdps.volumes.ismrmrd_file._BLOCK_BYTES", 1600)
    np.testing.assert_array_equal(read_kspace(path).kspace, expected)
    assert max(sizes) == 4 * 384


def test_a_matrix_that_the_lines_do_not_fill_is_refused(tmp_path: Path) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    with h5py.File(path, "a") as file:
        file["dataset/xml"][0] = file["dataset/xml"][0].replace(b"<y>15</y>", b"<y>400000</y>")
    with input_error("promises"):
        read_kspace(path)


def test_lines_of_other_lengths_than_their_heads_say_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", image(1))
    rows = lines_of(path)
    rows["head"]["number_of_samples"] = 4
    rewritten(path, rows)
    read = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, *a: pytest.fail("it was read") if self.name.endswith("data") else read(self, *a)
    )
    with input_error("a line of 48 numbers"):
        read_kspace(path)


def test_values_that_no_receiver_gives_are_refused(tmp_path: Path) -> None:
    for value, message in ((1e30, "up to"), (3e38, "up to|not finite"), (np.inf, "not finite"), (np.nan, "not finite")):
        made = image(1)
        made[0, 1] *= value
        with np.errstate(all="ignore"):
            path = write_ismrmrd(tmp_path / "raw.h5", made)
        with input_error(message):
            read_kspace(path)


def test_nothing_of_the_person_is_kept(tmp_path: Path) -> None:
    raw = read_kspace(write_ismrmrd(tmp_path / "raw.h5", image(1)))
    kept = repr(raw.acquisition) + str(raw.acquisition.to_json())
    assert not [word for word in WORDS if word in kept]
