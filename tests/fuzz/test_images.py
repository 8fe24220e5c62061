"""NIfTI, MGH and DICOM files of any bytes."""

import bz2
import gzip
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from dynamicdps.volumes import load, load_dicom, open_brain, read_acquisition, read_scan
from tests.fuzz.harness import bounded_memory, cases, many, only_input_errors, seconds_of
from tests.fuzz.mutation import EXTREMES, damaged, damaged_json_text
from tests.properties import input_error
from tests.volumes.dicom_files import make_stack, write_enhanced, write_slices

SHAPE = (5, 6, 4)
# nibabel leaves the file of an uncompressed MGH image to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def image_bytes(folder: Path, kind: Any, name: str) -> bytes:
    data = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    image = kind(data, np.diag([1.0, 1.2, 3.0, 1.0]))
    if hasattr(image.header, "extensions"):
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a remark"))
    nib.save(image, folder / name)
    return (folder / name).read_bytes()


def set_field(content: bytes, header: Any, name: str, index: int, value: float) -> bytes:
    """A header's field set to a value, as far as its type holds it."""
    dtype = header.structarr.dtype
    kind, offset = dtype.fields[name][:2]
    base = kind.base
    count = max(1, kind.itemsize // base.itemsize)
    at = offset + (index % count) * base.itemsize
    with np.errstate(all="ignore"):
        if base.kind in "iu":
            limits = np.iinfo(base)
            whole = int(value) if np.isfinite(value) else 2**62
            number = np.array(min(max(whole, int(limits.min)), int(limits.max)), base)
        elif base.kind == "f":
            number = np.array(value, base)
        else:
            number = np.array(str(value).encode()[: base.itemsize], base)
    return content[:at] + number.tobytes() + content[at + base.itemsize :]


KINDS = {"one": (nib.Nifti1Image, "scan.nii"), "two": (nib.Nifti2Image, "scan.nii"), "mgh": (nib.MGHImage, "scan.mgh")}


@pytest.mark.parametrize("kind", KINDS)
@many(12_000)
def test_header_fields(kind: str, count: int, place: Path) -> None:
    """Every field at extremes; packed, so that the damage is that of the header."""
    make, name = KINDS[kind]
    content = image_bytes(place, make, name)
    header = nib.load(place / name).header
    fields = [field for field in header.structarr.dtype.names if field not in ("db_name", "descrip", "aux_file")]
    change = st.tuples(st.sampled_from(fields), st.integers(0, 15), st.sampled_from(EXTREMES))

    @cases(count)
    @given(st.lists(change, min_size=1, max_size=3), st.booleans())
    def check(changes: list[tuple[str, int, float]], packed: bool) -> None:
        data = content
        for field, index, value in changes:
            data = set_field(data, header, field, index, value)
        packed_name = "packed.mgz" if kind == "mgh" else "packed.nii.gz"
        path = place / (packed_name if packed else name)
        path.write_bytes(gzip.compress(data, 1) if packed else data)
        only_input_errors(lambda: (load(path), read_acquisition(path)))

    with bounded_memory():
        check()


@pytest.mark.parametrize("kind", KINDS)
@many(6_000)
def test_bytes_of_images(kind: str, count: int, place: Path) -> None:
    make, name = KINDS[kind]
    content = image_bytes(place, make, name)
    packed_name = "packed.mgz" if kind == "mgh" else "packed.nii.gz"

    @cases(count)
    @given(damaged(content), st.sampled_from(("plain", "packed", "both")), damaged(gzip.compress(content, 1), header=20))
    def check(data: bytes, how: str, broken: bytes) -> None:
        path = place / (name if how == "plain" else packed_name)
        path.write_bytes(data if how == "plain" else gzip.compress(data, 1) if how == "packed" else broken)
        only_input_errors(lambda: read_scan(path))

    with bounded_memory():
        check()


def header_of(shape: tuple[int, ...], *, offset: float = 352.0, dtype: type = np.int16) -> bytearray:
    image = nib.Nifti1Image(np.zeros((1, 1, 1), dtype), np.eye(4))
    header = image.header.copy()
    values = bytearray(header.binaryblock)
    struct.pack_into(f"<{1 + len(shape)}h", values, 40, len(shape), *shape)
    struct.pack_into("<f", values, 108, offset)
    return values


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.nii.bz2"])
@pytest.mark.parametrize("shape", [(32767, 32767, 1024), (16384, 16384, 4096), (32767, 32767, 32767)])
def test_a_header_that_promises_a_trillion_voxels(name: str, shape: tuple[int, ...], place: Path) -> None:
    """2**40 voxels and more, in a file of a few bytes."""
    content = bytes(header_of(shape)) + b"\0" * 1000
    pack = {".gz": gzip.compress, "bz2": bz2.compress}.get(name[-3:], bytes)
    (place / name).write_bytes(pack(content))
    with bounded_memory(32), input_error("promises"):
        load(place / name)


def test_an_mgh_header_that_promises_a_trillion_voxels(place: Path) -> None:
    content = bytearray(image_bytes(place, nib.MGHImage, "scan.mgh"))
    struct.pack_into(">4i", content, 4, 2**14, 2**14, 2**12, 1)
    (place / "scan.mgz").write_bytes(gzip.compress(bytes(content)))
    with bounded_memory(32), input_error("promises"):
        load(place / "scan.mgz")


def test_more_than_the_file_can_hold(place: Path) -> None:
    """Fewer voxels than the most that are read, and still more than any file of that size unpacks to."""
    (place / "scan.nii.gz").write_bytes(gzip.compress(bytes(header_of((512, 512, 512))) + b"\0" * 100))
    with bounded_memory(32), input_error("promises .* bytes but holds at most"):
        load(place / "scan.nii.gz")


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Half a megabyte that becomes 512 MB."""
    packer = gzip.zlib.compressobj(9, 8, 31)  # type: ignore[attr-defined]
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(512)), packer.flush()])


def test_a_bomb_behind_the_voxels_is_not_unpacked(bomb: bytes, place: Path) -> None:
    """Members of a gzip file follow each other: the scan, then 512 MB of nothing."""
    content = image_bytes(place, nib.Nifti1Image, "small.nii")
    (place / "scan.nii.gz").write_bytes(gzip.compress(content) + bomb)
    with bounded_memory(32):
        assert seconds_of(lambda: load(place / "scan.nii.gz")) < 1.0
    mgh = image_bytes(place, nib.MGHImage, "small.mgh")
    (place / "scan.mgz").write_bytes(gzip.compress(mgh) + bomb)
    with bounded_memory(32):
        assert seconds_of(lambda: load(place / "scan.mgz")) < 1.0


@pytest.mark.parametrize("length", [0, -(2**31), 2**29, 2**31 - 1])
@pytest.mark.parametrize("offset", [352.0, 2e8, 1e9, -1.0, float("nan")])
def test_a_bomb_in_an_extension_is_not_unpacked(length: int, offset: float, bomb: bytes, place: Path) -> None:
    start = header_of(SHAPE, offset=offset)[:348] + b"\1\0\0\0" + struct.pack("<2i", length, 6)
    (place / "scan.nii.gz").write_bytes(gzip.compress(bytes(start)) + bomb)
    with bounded_memory(64):
        only_input_errors(lambda: load(place / "scan.nii.gz"))
    # Of a pair the extensions go on to the end of the header's file.
    pair = bytearray(start)
    pair[344:348] = b"ni1\0"
    (place / "pair.hdr.gz").write_bytes(gzip.compress(bytes(pair)) + bomb)
    (place / "pair.img.gz").write_bytes(bomb)
    for name in ("pair.img.gz", "pair.hdr.gz"):
        with bounded_memory(64):
            only_input_errors(lambda name=name: load(place / name))  # type: ignore[misc]


def test_affines_that_are_none(place: Path) -> None:
    data = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    for value in (np.nan, np.inf, 0.0, 1e30, 1e-30):
        image = nib.Nifti1Image(data, np.eye(4))
        image.header["srow_x"] = [value, 0, 0, 0]
        image.header["sform_code"] = 1
        (place / "scan.nii").write_bytes(image.header.binaryblock + b"\0" * 4 + data.tobytes("F"))
        with input_error("affine|voxels of|not finite"):
            load(place / "scan.nii")


SIDECAR = {
    "MagneticFieldStrength": 0.064,
    "EchoTime": 0.0065,
    "RepetitionTime": 1.5,
    "InversionTime": 0.4,
    "FlipAngle": 90,
    "SliceThickness": 5.0,
    "SpacingBetweenSlices": 5.0,
    "ScanningSequence": "GR\\IR",
}


@many(8_000)
def test_sidecars(count: int, place: Path) -> None:
    image_bytes(place, nib.Nifti1Image, "scan.nii")

    @cases(count)
    @given(damaged_json_text(SIDECAR))
    def check(text: bytes) -> None:
        (place / "scan.json").write_bytes(text)
        found = only_input_errors(lambda: read_acquisition(place / "scan.nii"))
        assert found is None or json.dumps(found.to_json())  # type: ignore[attr-defined]

    with bounded_memory():
        check()


@pytest.mark.parametrize("enhanced", [False, True], ids=["slices", "multi-frame"])
@many(3_000)
def test_dicom(enhanced: bool, count: int, place: Path) -> None:
    stack = make_stack(degrees=10.0, slices=3)
    if enhanced:
        write_enhanced(place / "d" / "one", stack)
    else:
        write_slices(place / "d", stack)
    files = sorted((place / "d").iterdir())
    contents = [file.read_bytes() for file in files]

    @cases(count if count > 200 else 150)
    @given(st.data())
    def check(data: DataObject) -> None:
        number = data.draw(st.integers(0, len(files) - 1))
        files[number].write_bytes(data.draw(damaged(contents[number], header=len(contents[number]))))
        try:
            only_input_errors(lambda: load_dicom(place / "d"))
        finally:
            files[number].write_bytes(contents[number])

    with bounded_memory():
        check()


def test_dicom_that_promises_more_than_it_holds(place: Path) -> None:
    import pydicom

    files = write_slices(place / "d", make_stack(slices=3))
    for file in files:
        file.Rows, file.Columns = 65535, 65535
        file.save_as(file.filename, enforce_file_format=True)
    with bounded_memory(32), input_error("promises"):
        load_dicom(place / "d")
    shutil.rmtree(place / "d")
    files = write_slices(place / "d", make_stack(slices=3))
    files[0].file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    files[0].PixelData = bytes(2**27)
    files[0].save_as(files[0].filename, enforce_file_format=True)
    with bounded_memory(32), input_error("deflated"):
        load_dicom(place / "d")


@many(1_500)
def test_masks_of_any_grid(count: int, place: Path) -> None:
    """A mask's grid is its own: whatever it is, the brain is found on the scan's or the mask is refused."""
    data = np.random.default_rng(0).random((10, 12, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])), place / "scan.nii")
    shape = st.tuples(*[st.integers(1, 12)] * 3)
    number = st.sampled_from((0.0, 1.0, -1.0, 0.2, 5.0, -40.0, 300.0, 1e6, float("nan")))

    @cases(count if count > 200 else 100)
    @given(shape, st.lists(number, min_size=12, max_size=12), st.booleans())
    def check(shape: tuple[int, int, int], affine: list[float], diagonal: bool) -> None:
        matrix = np.array([*affine, 0.0, 0.0, 0.0, 1.0]).reshape(4, 4)
        if diagonal:
            matrix[:3, :3] = np.diag(np.diag(matrix)[:3])
        inside = np.zeros(shape, np.uint8)
        inside[: max(1, shape[0] // 2)] = 1
        header = nib.Nifti1Header()
        header.set_data_shape(shape)
        header.set_data_dtype(np.uint8)
        header["vox_offset"], header["sform_code"], header["magic"] = 352, 1, b"n+1"
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            header[name] = matrix[row]
        (place / "mask.nii").write_bytes(header.binaryblock + b"\0" * 4 + inside.tobytes("F"))
        only_input_errors(lambda: open_brain(place / "scan.nii", mask=str(place / "mask.nii")))

    with bounded_memory():
        check()
