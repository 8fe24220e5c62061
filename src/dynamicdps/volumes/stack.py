"""Several volumes of one grid in one file."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from dynamicdps.atomic_file import atomic_write
from dynamicdps.errors import InputError
from dynamicdps.volumes.volume import SUFFIXES, Volume


def save_stack(volumes: Sequence[Volume], path: Path) -> Path:
    """Write volumes as a four-dimensional NIfTI file ``(x, y, z, number)``, float32, in the orientation of the first.

    Args:
        volumes: on one grid, at least one.
        path: ends in ``.nii`` or ``.nii.gz``.

    Raises:
        InputError: the name has another ending, or the grids differ.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"cannot write {path.name!r}; expected a name that ends in .nii or .nii.gz; change the name")
    first = volumes[0]
    if any(each.shape != first.shape or not np.allclose(each.affine, first.affine) for each in volumes):
        raise InputError("the volumes of a stack lie on different grids; expected one grid; resample them")
    turn = ornt_transform(axcodes2ornt("RAS"), first.native.orientation)
    data = np.stack([apply_orientation(each.data, turn) for each in volumes], axis=-1).astype(np.float32)
    image = nib.Nifti1Image(data, first.affine @ inv_ornt_aff(turn, first.shape))
    image.header.set_xyzt_units("mm", "sec")
    with atomic_write(path) as partial:
        nib.save(image, partial)
    return path
