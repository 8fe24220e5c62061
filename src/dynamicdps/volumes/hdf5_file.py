"""Datasets of HDF5 files that anyone may have written: what they promise is checked before they are read."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.header_checks import MAX_EXPANSION, check_bytes, check_voxels

# What lies in the file where a value of varying length is: its length, and where in the file it is.
_ELSEWHERE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_ADDRESS_BYTES = 8


def import_h5py() -> Any:
    """The module h5py.

    Raises:
        InputError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError("HDF5 files need h5py; expected it to be installed; run: pip install 'dynamicdps[raw]'") from error
    return h5py


def check_dataset(group: Any, name: str, path: Path) -> None:
    """Refuse what is no array of the file itself: one of another file, or of fill values that the file does not hold.

    Args:
        group: of an open file.
        name: of the array in it.
        path: of the file, for messages.

    Raises:
        InputError: it is none, or promises more than the file can hold.
    """
    h5py = import_h5py()
    dataset = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{name!r} in {path} is no array of this file; expected one; copy it into the file")
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{name!r} in {path} lies in another file; expected the array itself; copy it into the file")
    # A chunk is unpacked as a whole, and may be larger than the array.
    for shape in (dataset.shape or (), dataset.chunks or ()):
        check_voxels(shape, f"{name!r} in {path}")
        needed = math.prod(shape) * dataset.dtype.itemsize
        if needed > dataset.id.get_storage_size() * MAX_EXPANSION:
            raise InputError(f"{name!r} in {path} promises {needed} bytes; expected no more than the file holds; copy it again")


def read_array(group: Any, name: str, path: Path) -> NDArray[Any]:
    """An array of values of one size, whole.

    Raises:
        InputError: as `check_dataset`, or its values have varying lengths or point to others: these can be of any size.
    """
    check_dataset(group, name, path)
    if group[name].dtype.hasobject:
        raise InputError(f"{name!r} in {path} holds values of varying length, or references; expected plain numbers; write it as an array")
    return np.asarray(group[name])


def read_stored(dataset: Any, path: Path) -> NDArray[Any]:
    """The rows of a dataset as they lie in the file; of a value of varying length the ``length`` and where it is, not the value.

    What these lengths promise has to be checked before rows are read: HDF5 takes the memory that a length says before it looks for the
    value, rows can share one value, and h5py reads all fields where one is asked for.

    Args:
        dataset: with one axis; see `check_dataset`.
        path: its file.

    Raises:
        InputError: the rows are packed, or lie in the file in an unusual way.
    """
    (count,) = dataset.shape
    kind = _stored_type(dataset.dtype)
    step = dataset.chunks[0] if dataset.chunks is not None else count
    begin = dataset.id.get_offset()
    addresses, _ = dataset.file.id.get_create_plist().get_sizes()
    if dataset.id.get_create_plist().get_nfilters() or addresses != _ADDRESS_BYTES or (dataset.chunks is None and begin is None):
        raise InputError(
            f"{dataset.name} in {path} is packed; expected rows as ISMRMRD's library writes them; unpack the file with h5repack -f NONE"
        )
    for rows in (count, step):
        check_bytes(rows * kind.itemsize, path, str(path), packed=False)
    if dataset.chunks is None:
        with path.open("rb") as file:
            file.seek(begin)
            content = file.read(count * kind.itemsize)
    else:
        content = b"".join(dataset.id.read_direct_chunk((first,))[1] for first in range(0, count, step))
    return np.frombuffer(content, kind, count)


def _stored_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of rows in the file: in memory h5py puts objects where it has the lengths."""
    if dtype.names is None:
        return _ELSEWHERE if dtype.hasobject else dtype
    fields = [dtype.fields[name] for name in dtype.names] if dtype.fields else []
    types = [_ELSEWHERE if kind == np.dtype(object) else kind for kind, *_ in fields]
    return np.dtype({"names": dtype.names, "formats": types, "offsets": [offset for _, offset, *_ in fields], "itemsize": dtype.itemsize})
