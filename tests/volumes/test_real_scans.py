"""Real files, as scanners and preprocessing leave them."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from dynamicdps.volumes import load


@pytest.mark.parametrize("pattern", ["oasis/validation/*.nii.gz", "lowfield/**/*T1w*.nii.gz"])
def test_round_trip(real_scans: Path, pattern: str, tmp_path: Path) -> None:
    path = min(real_scans.glob(pattern), default=None)
    if path is None:
        pytest.skip(f"{real_scans} holds no {pattern}")
    volume = load(path)
    before: Any = nib.load(path)
    after: Any = nib.load(volume.save(tmp_path / "again.nii.gz", dtype=None))
    assert after.shape == before.shape
    assert after.get_data_dtype() == before.get_data_dtype()
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    np.testing.assert_allclose(np.asarray(after.dataobj), np.asarray(before.dataobj), rtol=1e-6, atol=1e-6)
