from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from dynamicdps.volumes import Volume
from dynamicdps.volumes.stack import save_stack
from dynamicdps.volumes.volume import Native
from tests.conftest import make_phantom
from tests.properties import input_error


@pytest.mark.parametrize("flips", [(1.0, 1.0, 1.0), (-1.0, 1.0, -1.0)])
def test_each_volume_comes_back_in_the_orientation_of_its_file(tmp_path: Path, flips: tuple[float, float, float]) -> None:
    native = Native(np.array([[1.0, flips[0]], [0.0, flips[1]], [2.0, flips[2]]]), np.dtype(np.float32))
    phantom = make_phantom((8, 10, 6))
    volumes = [Volume(phantom.data * k, phantom.affine, native) for k in (1, 2, 3)]
    image = nib.load(save_stack(volumes, tmp_path / "samples.nii.gz"))
    single = nib.load(volumes[1].save(tmp_path / "single.nii.gz"))
    assert image.shape == (*single.shape, 3)
    assert aff2axcodes(image.affine) == aff2axcodes(single.affine)
    np.testing.assert_allclose(image.affine, single.affine)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 1], np.asarray(single.dataobj))


def test_refusals(tmp_path: Path) -> None:
    phantom = make_phantom((8, 10, 6))
    with input_error("ends in .nii"):
        save_stack([phantom], tmp_path / "samples.png")
    with input_error("different grids"):
        save_stack([phantom, make_phantom((8, 10, 7))], tmp_path / "samples.nii.gz")
    assert not list(tmp_path.iterdir())
