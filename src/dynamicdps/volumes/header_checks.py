"""What the header of an image promises, checked against its file before any voxel is read: memory is bounded by the file."""

import bz2
import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from dynamicdps.errors import InputError

# A head at 0.4 mm; float32 of it takes 1 GB.
MAX_VOXELS = 2**28
MAX_EXTENSION_BYTES = 16 * 1024**2
# Deflate never expands more (zlib's technical notes): a file cannot hold more than this many times its size.
MAX_EXPANSION = 1032
GZIP_ENDINGS = (".gz", ".mgz")
NIFTI_1, NIFTI_2 = 348, 540
MGH_HEADER = 284


def check_voxels(shape: Sequence[int], name: str) -> None:
    """Refuse more voxels than any scan has.

    Raises:
        InputError: there are more than 2**28, or a length is less than 0.
    """
    count = math.prod(int(n) for n in shape)
    if count > MAX_VOXELS or any(n < 0 for n in shape):
        sizes = " x ".join(str(n) for n in shape)
        raise InputError(f"{name} promises {sizes} voxels; expected at most {MAX_VOXELS} in all; check the header")


def check_bytes(needed: int, path: Path, name: str, *, packed: bool) -> None:
    """Refuse a header that promises more than its file can hold.

    Args:
        needed: bytes that the voxels take.
        path: the file that holds them.
        name: what messages call it.
        packed: whether it is compressed.

    Raises:
        InputError: the file is too short.
    """
    size = path.stat().st_size
    held = size * MAX_EXPANSION if packed else size
    if needed > held:
        raise InputError(
            f"{name} promises {needed} bytes but holds {'at most ' if packed else ''}{held}; expected a whole file; copy it again"
        )


def check_image(image: Any, path: Path) -> None:
    """Check an image that nibabel has opened, before its voxels are read.

    Raises:
        InputError: as `check_voxels` and `check_bytes`.
    """
    shape = tuple(int(n) for n in image.shape)
    check_voxels(shape, str(path))
    holder = image.file_map.get("image")
    place = Path(holder.filename) if holder is not None and holder.filename else path
    offset = getattr(image.dataobj, "offset", None)
    # Formats without one place for all voxels (MINC) are stored in ways of their own.
    if offset is None or place.name.lower().endswith(".bz2"):
        return
    packed = place.name.lower().endswith(GZIP_ENDINGS)
    check_bytes(int(offset) + math.prod(shape) * np.dtype(image.get_data_dtype()).itemsize, place, str(path), packed=packed)


def check_header(path: Path) -> None:
    """Check what nibabel would read, or skip over, while it opens a NIfTI or MGH file: extensions and the way to the footer.

    Files that are no such image are left to nibabel.

    Raises:
        InputError: the header promises more than the file can hold, or its extensions are damaged or larger than 16 MB.
    """
    name = path.name.lower()
    plain = name.removesuffix(".gz").removesuffix(".bz2")
    if plain.endswith((".mgh", ".mgz")):
        with _open(path) as file:
            start = file.read(MGH_HEADER)
        if len(start) == MGH_HEADER:
            shape = struct.unpack(">4i", start[4:20])
            check_voxels(shape, str(path))
            check_bytes(MGH_HEADER + math.prod(shape), path, str(path), packed=name.endswith(GZIP_ENDINGS))
    elif plain.endswith((".nii", ".hdr", ".img")):
        place = _header_file(path, plain)
        if place.is_file():
            with _open(place) as file:
                _check_extensions(file, str(path), single=plain.endswith(".nii"))


def _header_file(path: Path, plain: str) -> Path:
    """The .hdr of an .img, of the same case and compression."""
    if not plain.endswith(".img"):
        return path
    ending = path.name[len(plain) - 4 :]
    return path.with_name(path.name[: len(plain) - 4] + ending.replace("img", "hdr").replace("IMG", "HDR"))


def _check_extensions(file: IO[bytes], name: str, *, single: bool) -> None:
    start = file.read(NIFTI_2)
    if len(start) < NIFTI_1:
        return
    size = next((n for o in "<>" for n in struct.unpack(f"{o}i", start[:4]) if n in (NIFTI_1, NIFTI_2)), None)
    if size is None or len(start) < size:
        return
    # As nibabel does: the byte order is the one in which the number of dimensions is one.
    (dimensions,) = struct.unpack("<h", start[40:42]) if size == NIFTI_1 else struct.unpack("<q", start[16:24])
    order = "<" if 1 <= dimensions <= 7 else ">"
    offset = struct.unpack(f"{order}f", start[108:112])[0] if size == NIFTI_1 else struct.unpack(f"{order}q", start[168:176])[0]
    if not single:
        end = math.inf
    elif not 0 <= offset <= MAX_EXTENSION_BYTES:
        raise InputError(f"{name} says that its voxels begin at byte {offset:g}; expected 0 to {MAX_EXTENSION_BYTES}; check the header")
    else:
        end = offset
    file.seek(size)
    if file.read(4)[:1] in (b"", b"\0"):
        return
    place = size + 4
    # Whether nibabel goes on until 16 bytes before the voxels, or in a file of its own until the end.
    while place + 16 <= end:
        head = file.read(8)
        if not head and not single:
            return
        length = struct.unpack(f"{order}i", head[:4])[0] if len(head) == 8 else 0
        place += length
        if length < 8 or place > min(end, MAX_EXTENSION_BYTES) or len(file.read(length - 8)) != length - 8:
            raise InputError(f"{name} has a damaged header extension; expected whole ones of at most 16 MB; write the file without it")


def _open(path: Path) -> IO[bytes]:
    name = path.name.lower()
    if name.endswith(".bz2"):
        return bz2.open(path)
    return cast(IO[bytes], gzip.open(path)) if name.endswith(GZIP_ENDINGS) else path.open("rb")
