"""Weights with their cards, and raw k-space."""

import hashlib
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from dynamicdps.calibration.parameter_estimator import EstimatorNetwork, load_estimator
from dynamicdps.conditional import CONDITIONAL_KINDS, RRDBConfig, load_conditional
from dynamicdps.conditional.esrgan import RRDBNetwork
from dynamicdps.models.model_file import read_model, write_model
from dynamicdps.networks import NetworkConfig, SliceUNet
from dynamicdps.priors import load_prior
from dynamicdps.volumes import read_kspace
from tests.fuzz.harness import bounded_memory, cases, many, only_input_errors
from tests.fuzz.mutation import damaged, damaged_json, damaged_json_text
from tests.properties import input_error
from tests.volumes.ismrmrd_files import write_ismrmrd

TINY = NetworkConfig(channels=(16, 16), residual_blocks=(1, 1), attention=(False, False), norm_groups=8)
SMALL = RRDBConfig(channels=8, growth=4, blocks=1)


def make_model(kind: str, folder: Path) -> Path:
    if kind == "operator-fit":
        card = json.loads((Path(str(files("dynamicdps.models"))) / "operator-fit.json").read_text())
        weights = EstimatorNetwork(int(card["members"])).state_dict()
    else:
        network = RRDBNetwork(SMALL) if kind == "esrgan" else SliceUNet(TINY)
        config = SMALL.to_json() if kind == "esrgan" else TINY.to_json()
        card = {
            "kind": kind,
            "network": config,
            "data_mean": 0.4,
            "data_std": 0.3,
            "denoising_rmse": {"0.1": 0.03},
            "spacing_mm": [1.0] * 3,
        }
        weights = network.state_dict()
    return write_model(folder / "model.safetensors", weights, card).path


READERS: dict[str, Callable[[Path], object]] = {
    "prior": load_prior,
    "unet": load_conditional,
    "esrgan": load_conditional,
    "operator-fit": load_estimator,
}


@pytest.mark.parametrize("kind", READERS)
@many(2_000)
def test_model_cards(kind: str, count: int, place: Path) -> None:
    path = make_model(kind, place)
    values = json.loads(path.with_suffix(".json").read_text())

    @cases(count if count > 200 else 60)
    @given(damaged_json_text(values))
    def check(text: bytes) -> None:
        path.with_suffix(".json").write_bytes(text)
        only_input_errors(lambda: READERS[kind](path))

    READERS[kind](path)
    with bounded_memory():
        check()


@pytest.mark.parametrize("kind", READERS)
@many(2_000)
def test_weights(kind: str, count: int, place: Path) -> None:
    """Bytes of the header at least half of the time, with a card that names their hash."""
    path = make_model(kind, place)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    body, card = content[8 + length :], json.loads(path.with_suffix(".json").read_text())
    some = dict(list(header.items())[:3]) | {"__metadata__": {"a": "b"}}
    # All tensors stay; damage is in the first few.
    headers = damaged_json(some).map(lambda v: {**header, **v} if isinstance(v, dict) else v)

    @cases(count if count > 200 else 60)
    @given(st.booleans(), headers, damaged(content, header=8 + length))
    def check(by_header: bool, values: Any, data: bytes) -> None:
        if by_header:
            text = json.dumps(values).encode()
            data = struct.pack("<Q", len(text)) + text + body
        path.write_bytes(data)
        path.with_suffix(".json").write_text(json.dumps(card | {"sha256": hashlib.sha256(data).hexdigest()}))
        only_input_errors(lambda: READERS[kind](path))

    with bounded_memory():
        check()


def test_nothing_is_unpickled(place: Path) -> None:
    """A pickle under the name of weights is refused, and what it would run does not run."""

    class Planted:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (place / "ran",)

    data = pickle.dumps(Planted())
    (place / "model.safetensors").write_bytes(data)
    (place / "model.json").write_text(json.dumps({"kind": "prior", "sha256": hashlib.sha256(data).hexdigest()}))
    with input_error("cannot be read"):
        read_model(place / "model.safetensors", "prior")
    torch.save({"a": torch.ones(2)}, place / "model.safetensors")
    with input_error("cannot be read|differs"):
        read_model(place / "model.safetensors", CONDITIONAL_KINDS)
    np.savez(place / "raw.npz", kspace=np.array([Planted()], dtype=object), allow_pickle=True)
    with input_error("cannot be read"):
        read_kspace(place / "raw.npz")
    assert not (place / "ran").exists()


def test_a_card_that_promises_a_huge_network(place: Path) -> None:
    path = make_model("prior", place)
    card = json.loads(path.with_suffix(".json").read_text())
    for network in ({"channels": [10**9, 16]}, {"channels": [4096, 4096]}, {"residual_blocks": [10**9, 1]}, {"channels": [16] * 1000}):
        path.with_suffix(".json").write_text(json.dumps(card | {"network": card["network"] | network}))
        with bounded_memory(64), input_error():
            load_prior(path)


def test_weights_that_are_no_numbers(place: Path) -> None:
    path = make_model("prior", place)
    for value in (torch.full((3,), torch.nan), torch.ones(3, dtype=torch.complex64), torch.ones(3, dtype=torch.bool)):
        save_file({"a": value}, path)
        card = {"kind": "prior", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        path.with_suffix(".json").write_text(json.dumps(card))
        with input_error("cannot be read"):
            read_model(path, "prior")


def kspace() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.standard_normal((8, 6, 2)) + 1j * random.standard_normal((8, 6, 2))


@pytest.mark.parametrize("compressed", [False, True])
@many(3_000)
def test_kspace_archives(compressed: bool, count: int, place: Path) -> None:
    path = place / "raw.npz"
    (np.savez_compressed if compressed else np.savez)(path, kspace=kspace(), voxel_size_mm=[1.0, 1.5, 5.0], affine=np.eye(4))
    content = path.read_bytes()

    @cases(count)
    @given(damaged(content, header=len(content)))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        only_input_errors(lambda: read_kspace(path).magnitude())

    with bounded_memory():
        check()


@many(1_500)
def test_arrays_of_other_kinds(count: int, place: Path) -> None:
    dtypes = st.sampled_from(("c8", "c16", "f4", "f8", "i2", "u1", "?", "S3", "M8[s]", "V4"))
    shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)
    sizes = st.lists(st.sampled_from((1.0, 0.0, -1.0, 5.0, 1e9, float("nan"), float("inf"))), max_size=4)

    @cases(count)
    @given(dtypes, shapes, sizes, st.sampled_from((0, 1, -1, 1e38, float("nan"))), dtypes, st.booleans())
    def check(dtype: str, shape: tuple[int, ...], size: list[float], value: float, other: str, affine: bool) -> None:
        with np.errstate(all="ignore"):
            array = np.zeros(shape, dtype)
            if array.dtype.kind in "cf" and array.size:
                array.flat[0] = value
            facts: dict[str, Any] = {"affine": np.zeros((4, 4), other)} if affine else {"voxel_size_mm": np.array(size)}
        np.savez(place / "raw.npz", kspace=array, **facts)
        only_input_errors(lambda: read_kspace(place / "raw.npz").magnitude())

    with bounded_memory():
        check()


def npy_header(shape: tuple[int, ...], descr: str = "<c8") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_archives_that_promise_more_than_they_hold(place: Path) -> None:
    for shape in ((2**20, 2**20, 1), (512, 512, 512), (-1, 4, 4), (2**62, 2**62, 4)):
        with zipfile.ZipFile(place / "raw.npz", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("kspace.npy", npy_header(shape) + bytes(1000))
        with bounded_memory(32), input_error():
            read_kspace(place / "raw.npz")
    with zipfile.ZipFile(place / "raw.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("kspace.npy", npy_header((1024, 1024, 8)) + bytes(2**26))
    with bounded_memory(64), input_error("promises"):
        read_kspace(place / "raw.npz")


def test_hdf5_that_promises_more_than_it_holds(place: Path) -> None:
    with h5py.File(place / "raw.h5", "w") as file:
        file.create_dataset("kspace", (4096, 4096, 4096), "c8", chunks=(64, 64, 64))
        file["voxel_size_mm"] = [1.0, 1.0, 5.0]
    with bounded_memory(32), input_error("promises"):
        read_kspace(place / "raw.h5")
    with h5py.File(place / "raw.h5", "w") as file:
        file.create_dataset("kspace", (512, 512, 512), "c8", chunks=(64, 64, 64))
        file["voxel_size_mm"] = [1.0, 1.0, 5.0]
    with bounded_memory(32), input_error("promises"):
        read_kspace(place / "raw.h5")


def test_hdf5_that_points_to_other_files(place: Path) -> None:
    with h5py.File(place / "other.h5", "w") as file:
        file["kspace"] = kspace()
    with h5py.File(place / "raw.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("other.h5", "/kspace")
        file["voxel_size_mm"] = [1.0, 1.0, 5.0]
    with input_error("no array of this file"):
        read_kspace(place / "raw.h5")
    (place / "secret").write_bytes(kspace().astype("c8").tobytes())
    with h5py.File(place / "raw.h5", "w") as file:
        file.create_dataset("kspace", (8, 6, 2), "c8", external=[(str(place / "secret"), 0, h5py.h5f.UNLIMITED)])
        file["voxel_size_mm"] = [1.0, 1.0, 5.0]
    with input_error("another file"):
        read_kspace(place / "raw.h5")


@many(1_500)
def test_kspace_in_hdf5(count: int, place: Path) -> None:
    path = place / "raw.h5"
    with h5py.File(path, "w") as file:
        file["kspace"], file["voxel_size_mm"] = kspace(), [1.0, 1.5, 5.0]
    content = path.read_bytes()

    @cases(count)
    @given(damaged(content, most=3, header=2048))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        only_input_errors(lambda: read_kspace(path).magnitude())

    with bounded_memory():
        check()


def test_arrays_of_an_archive_that_are_not_named_as_such(place: Path) -> None:
    """numpy reads a member of the plain name too: it must not pass by what is checked of the others."""
    with zipfile.ZipFile(place / "raw.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("kspace", npy_header((1024, 1024, 8)) + bytes(2**26))
    with bounded_memory(32), input_error("no array 'kspace'"):
        read_kspace(place / "raw.npz")


def test_arrays_of_one_name(place: Path) -> None:
    data = kspace().astype("<c8").tobytes()
    with zipfile.ZipFile(place / "raw.npz", "w") as file:
        file.writestr("kspace.npy", npy_header((8, 6, 2)) + data)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("kspace.npy", npy_header((6, 8, 2)) + data)
    with input_error("2 arrays 'kspace'"):
        read_kspace(place / "raw.npz", voxel_size_mm=(1, 1, 5))


def point_to(path: Path, places: list[int], descriptor: bytes) -> None:
    """Overwrite what stands where values of varying length are: their length, and where in the file they lie."""
    with path.open("r+b") as file:
        for at in places:
            file.seek(at)
            file.write(descriptor)


def test_many_values_that_are_one(place: Path) -> None:
    """Half a gigabyte of rows that all point to the same megabyte."""
    path = place / "raw.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("kspace", (512,), h5py.vlen_dtype(np.float32))
        rows[0] = np.ones(2**18, np.float32)
        begin = rows.id.get_offset()
    point_to(path, [begin + 16 * n for n in range(1, 512)], path.read_bytes()[begin : begin + 16])
    with bounded_memory(32), input_error("varying length"):
        read_kspace(path)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (h5py.string_dtype(), "text"),
        (h5py.ref_dtype, "file"),
        (np.dtype([("real", "f4"), ("imag", h5py.vlen_dtype("f4"))]), (1.0, np.ones(2, "f4"))),
    ],
    ids=["strings", "references", "inside another type"],
)
def test_values_that_point_elsewhere_are_not_read(kind: Any, value: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(place / "raw.h5", "w") as file:
        row = np.empty(1, kind)
        row[0] = file.ref if value == "file" else value
        file.create_dataset("kspace", (1, 1, 1), kind)[0, 0] = row
    monkeypatch.setattr(h5py.Dataset, "__array__", lambda *_, **__: pytest.fail("it was read"))
    with input_error("varying length, or references"):
        read_kspace(place / "raw.h5")


def test_chunks_that_are_larger_than_their_array(place: Path) -> None:
    with h5py.File(place / "raw.h5", "w") as file:
        rows = file.create_dataset("kspace", (4, 4, 4), "c8", chunks=(1024, 1024, 128), maxshape=(None,) * 3, compression="gzip")
        rows.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(1000)))
        file["voxel_size_mm"] = [1.0, 1.0, 5.0]
    with bounded_memory(64), input_error("promises"):
        read_kspace(place / "raw.h5")


def ismrmrd_file(path: Path, depth: int = 2) -> Path:
    pytest.importorskip("ismrmrd", reason="needs ismrmrd: pip install 'dynamicdps[ismrmrd]'")
    image = np.random.default_rng(0).standard_normal((1, depth, 8, 6)) + 0j
    return write_ismrmrd(path, image)


def places_of_lines(path: Path, part: str = "data") -> list[int]:
    """Where in an ISMRMRD file the lengths of the lines lie."""
    with h5py.File(path) as file:
        rows = file["dataset/data"]
        offset = rows.dtype.fields[part][1]
        return [rows.id.get_chunk_info(n).byte_offset + offset for n in range(len(rows))]


@pytest.mark.parametrize("part", ["data", "traj"])
def test_many_lines_that_are_one(part: str, place: Path) -> None:
    path = ismrmrd_file(place / "raw.h5", 32)
    ismrmrd = pytest.importorskip("ismrmrd")
    with ismrmrd.Dataset(str(path)) as file:
        long = ismrmrd.Acquisition.from_array(np.ones((4, 2**15), np.complex64))
        long.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        file.append_acquisition(long)
    at = places_of_lines(path)[-1]
    point_to(path, places_of_lines(path, part)[:-1], path.read_bytes()[at : at + 16])
    with bounded_memory(32), input_error("promises"):
        read_kspace(path)


@pytest.mark.parametrize("part", ["data", "traj", "xml"])
def test_lengths_that_are_not_those_of_the_values(part: str, place: Path) -> None:
    """HDF5 takes and clears the memory before it looks."""
    path = ismrmrd_file(place / "raw.h5")
    if part == "xml":
        with h5py.File(path) as file:
            at = file["dataset/xml"].id.get_offset()
    else:
        at = places_of_lines(path, part)[3]
    point_to(path, [at], np.array(2**28, "<u4").tobytes())
    with bounded_memory(32), input_error("promises|header"):
        read_kspace(path)


@many(1_500)
def test_ismrmrd(count: int, place: Path) -> None:
    path = ismrmrd_file(place / "raw.h5")
    content = path.read_bytes()
    read_kspace(path)

    @cases(count)
    @given(damaged(content, most=3, header=len(content)))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        only_input_errors(lambda: read_kspace(path).magnitude())

    with bounded_memory():
        check()
