"""Raw k-space from a file: Cartesian lines of separate slices."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.paths import RAW_SUFFIXES, check_exists
from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.hdf5_file import check_dataset, import_h5py, read_array
from dynamicdps.volumes.header_checks import MAX_EXPANSION, check_voxels
from dynamicdps.volumes.ismrmrd_file import read_ismrmrd
from dynamicdps.volumes.raw_scan import RawScan, check_samples
from dynamicdps.volumes.volume import to_ras


def read_kspace(
    path: str | Path,
    *,
    array: str | None = None,
    voxel_size_mm: Sequence[float] | None = None,
    affine: NDArray[np.float64] | None = None,
    orientation: str | None = None,
) -> RawScan:
    """Read ``.npz``, HDF5 (``.h5``, ``.hdf5``; needs h5py) or ISMRMRD (HDF5 too; needs ismrmrd; see `read_ismrmrd`).

    Where it is no ISMRMRD file it holds an array, complex, ``(kx, ky, slices)`` or ``(coils, kx, ky, slices)``, zero frequency in the
    middle, zeros where nothing was sampled; slices are separate images (of a 3-D encoding, transform the slice axis first). It may
    hold ``voxel_size_mm`` (three numbers: field of view / matrix, and the distance of slices) and ``affine`` (4 x 4, image indices to
    RAS mm), which the arguments replace. Without an affine the axes grow as `orientation` says, and the middle is the origin.

    Args:
        path: the file.
        array: its name; by default ``"kspace"``, and ``"dataset"`` of an ISMRMRD file.
        voxel_size_mm: for files that do not hold it.
        affine: for files that do not hold it.
        orientation: where x, y and the slices grow to, for files without an affine: a letter each of R or L, A or P, S or I; by
            default ``"RAS"``.

    Raises:
        InputError: the file, the array or the voxel size is missing, or does not have the stated layout.
    """
    path = Path(path)
    found = _read_ismrmrd(path, array or "dataset")
    if found is not None:
        if voxel_size_mm is not None or affine is not None or orientation is not None:
            raise InputError(
                f"{path} is an ISMRMRD file, which says itself where its voxels are; expected no size or orientation; leave it out"
            )
        return found
    array = array or "kspace"
    content = _read_arrays(path, (array, "voxel_size_mm", "affine"))
    if array not in content:
        raise InputError(f"{path} holds no array {array!r}; expected one of the arrays in it; name it: {content['names']}")
    kspace = np.asarray(content[array])
    if kspace.ndim not in (3, 4) or 0 in kspace.shape:
        raise InputError(f"{array!r} in {path} has shape {kspace.shape}; expected (kx, ky, slices) or (coils, kx, ky, slices); mend it")
    if kspace.dtype.kind != "c":
        raise InputError(f"{array!r} in {path} holds values of type {kspace.dtype}; expected complex numbers; join both parts first")
    with np.errstate(all="ignore"):
        kspace = kspace.astype(np.complex64)
    check_samples(kspace, f"{array!r} in {path}")
    kspace = kspace if kspace.ndim == 4 else kspace[None]
    shape = (kspace.shape[1], kspace.shape[2], kspace.shape[3])
    if affine is None:
        affine = content.get("affine") if voxel_size_mm is None and orientation is None else None
    if affine is None:
        size = _voxel_size(path, voxel_size_mm if voxel_size_mm is not None else content.get("voxel_size_mm"))
        affine = _centred_affine(size, shape, orientation or "RAS")
    affine = _numbers(affine, "affine", path)
    # Checks the affine.
    turned = to_ras(np.zeros(shape, np.float32), affine, str(path))
    distance = float(np.linalg.norm(affine[:3, 2])) if shape[2] > 1 else None
    acquisition = Acquisition(slice_spacing_mm=distance, slice_axis=int(turned.native.orientation[2, 0]))
    return RawScan(np.ascontiguousarray(kspace.transpose(0, 3, 2, 1), dtype=np.complex64), affine, acquisition)


def _read_ismrmrd(path: Path, name: str) -> RawScan | None:
    """The scan of an ISMRMRD dataset of that name; `None` where there is none."""
    if path.suffix not in RAW_SUFFIXES[1:] or not path.is_file():
        return None
    h5py = import_h5py()
    try:
        with h5py.File(path) as file:
            group = file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
            if not isinstance(group, h5py.Group) or not {"xml", "data"} <= set(group):
                return None
            for part in ("xml", "data"):
                check_dataset(group, part, path)
            return read_ismrmrd(path, group)
    except InputError:
        raise
    except Exception as error:  # damaged files raise errors of any type
        raise InputError(f"{path} cannot be read ({type(error).__name__}); expected a whole file; copy it again") from error


def _voxel_size(path: Path, given: Any) -> NDArray[np.float64]:
    if given is None:
        raise InputError(
            f"{path} does not say how large its voxels are; expected 'voxel_size_mm', three numbers; add them to it, or give --voxel-size "
            "(in Python voxel_size_mm)"
        )
    size = _numbers(given, "voxel_size_mm", path).ravel()
    if size.shape != (3,) or not ((size >= 0.05) & (size <= 50)).all():
        raise InputError(f"the voxel size of {path} is {size.tolist()}; expected three numbers of 0.05 to 50 mm")
    return size


def _numbers(values: Any, name: str, path: Path) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name!r} in {path} holds values of type {array.dtype}; expected real numbers")
    return array.astype(np.float64)


def _centred_affine(size: NDArray[np.float64], shape: tuple[int, int, int], orientation: str) -> NDArray[np.float64]:
    places = [next((row for row, pair in enumerate(("RL", "AP", "SI")) if letter in pair), -1) for letter in orientation]
    if sorted(places) != [0, 1, 2]:
        raise InputError(f"the orientation is {orientation!r}; expected one letter each of R or L, A or P, S or I, such as RAS")
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for column, (row, letter) in enumerate(zip(places, orientation, strict=True)):
        affine[row, column] = size[column] if letter in "RAS" else -size[column]
    x, y, z = shape
    affine[:3, 3] = -affine[:3, :3] @ (x // 2, y // 2, (z - 1) / 2)
    return affine


def _read_arrays(path: Path, wanted: tuple[str, ...]) -> Mapping[str, Any]:
    """The arrays of those names, and under ``names`` what there is."""
    check_exists(path, "a file of raw k-space")
    if path.suffix not in RAW_SUFFIXES:
        raise InputError(f"{path} has an unknown ending; expected {', '.join(RAW_SUFFIXES)}; convert it first")
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as packed:
                return _read_npz(packed, wanted, path)
        with import_h5py().File(path) as file:
            return {name: read_array(file, name, path) for name in wanted if name in file} | {"names": ", ".join(file)}
    except InputError:
        raise
    except Exception as error:  # damaged archives raise errors of any type
        raise InputError(f"{path} cannot be read ({type(error).__name__}); expected a whole file of plain arrays; copy it again") from error


def _read_npz(packed: zipfile.ZipFile, wanted: tuple[str, ...], path: Path) -> Mapping[str, Any]:
    """The same of an archive. Only members that end in ``.npy`` are arrays: numpy's own reader takes those of the plain name too."""
    names = [name.removesuffix(".npy") for name in packed.namelist() if name.endswith(".npy")]
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise InputError(f"{path} holds {names.count(twice[0])} arrays {twice[0]!r}; expected one; write the file again")
    return {name: _read_npy(packed, name, path) for name in wanted if name in names} | {"names": ", ".join(names)}


def _read_npy(packed: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    """Compare what an array's header promises with what the archive says of its size; deflate expands no more than that."""
    about = packed.getinfo(f"{name}.npy")
    with packed.open(about) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        begin = file.tell()
    check_voxels(shape, f"{name!r} in {path}")
    needed = math.prod(shape) * dtype.itemsize
    if begin + needed > about.file_size or about.file_size > max(1, about.compress_size) * MAX_EXPANSION:
        raise InputError(f"{name!r} in {path} promises {needed} bytes; expected no more than the file holds; copy it again")
    with packed.open(about) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
