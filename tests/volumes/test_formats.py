"""Every format that nibabel reads gives the same volume, and its orientation comes back."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from dynamicdps.volumes import load
from tests.volumes.head import rotation

SHAPE = (7, 9, 5)


def oriented(codes: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
    affine = rotation((9.0, -4.0, 6.0), (-20.0, 13.5, 4.25)) @ np.diag([1.0, 1.2, 3.0, 1.0])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return data, apply_orientation(data, turn), affine @ inv_ornt_aff(turn, SHAPE)


# nibabel leaves the file of an uncompressed MGH image to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "ILP"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (nib.Nifti1Image, "scan.nii.gz"),
        (nib.Nifti2Image, "scan.nii"),
        (nib.Nifti1Pair, "scan.img"),
        (nib.MGHImage, "scan.mgz"),
        (nib.MGHImage, "scan.mgh"),
    ],
)
def test_geometry_and_round_trip(tmp_path: Path, kind: Any, name: str, codes: str) -> None:
    data, stored, affine = oriented(codes)
    nib.save(kind(stored, affine), tmp_path / name)
    volume = load(tmp_path / name)
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.spacing, (1.0, 1.2, 3.0), rtol=1e-5)

    again: Any = nib.load(volume.save(tmp_path / "again.nii.gz", dtype=None))
    assert again.shape == stored.shape
    assert aff2axcodes(again.affine) == tuple(codes)
    assert again.get_data_dtype().newbyteorder("=") == np.int16
    np.testing.assert_allclose(again.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(again.dataobj), stored)


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Spm99AnalyzeImage, nib.Spm2AnalyzeImage])
def test_analyze_runs_from_right_to_left(tmp_path: Path, kind: Any) -> None:
    data = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
    # Analyze knows voxel sizes and no rotation.
    image = kind(data, np.diag([-1.0, 1.2, 3.0, 1.0]))
    nib.save(image, tmp_path / "scan.img")
    volume = load(tmp_path / "scan.img")
    np.testing.assert_array_equal(volume.data, data[::-1])
    np.testing.assert_allclose(volume.spacing, (1.0, 1.2, 3.0), rtol=1e-5)
    again: Any = nib.load(volume.save(tmp_path / "again.nii", dtype=None))
    assert aff2axcodes(again.affine) == ("L", "A", "S")
    np.testing.assert_array_equal(np.asarray(again.dataobj), data)
