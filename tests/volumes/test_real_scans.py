"""Real files, as scanners and preprocessing leave them."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from dynamicdps.volumes import deepbet, estimate_bias, extract_brain, load, read_kspace
from dynamicdps.volumes.brain_extraction import is_skull_stripped


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


def hku(real_scans: Path) -> list[Path]:
    paths = sorted(real_scans.glob("lowfield/hku*/*_0.055T_GRE.nii.gz"))
    if not paths:
        pytest.skip(f"{real_scans} holds no lowfield/hku*")
    return paths


def test_brain_of_low_field_scans(real_scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four slices with skull at 0.055 T: nothing dark lies between brain and mask, and the large cyst of the first is inside."""
    monkeypatch.setattr(deepbet, "weights", lambda: None)
    expected = {"hku01": 255, "hku02": 344, "hku03": 359, "hku04": 374}  # ml by an outline that was looked at
    for path in hku(real_scans):
        volume = load(path)
        assert not is_skull_stripped(volume)
        found = extract_brain(volume)
        assert found.method == "classical"
        assert found.millilitres(volume) == pytest.approx(expected[path.parent.name], rel=0.05)
        if path.parent.name == "hku01":
            assert found.inside[75:105, 85:110, :2].mean() > 0.9


def test_shading_of_a_low_field_scan(real_scans: Path) -> None:
    volume = load(hku(real_scans)[0])
    found = estimate_bias(volume, extract_brain(volume).inside)
    low, high = found.range
    assert 0.5 < low < 1 < high < 2


def test_whole_head_at_64_mt(real_scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = real_scans / "lowfield/lowgan64mT/sub-MS017_T1w.nii.gz"
    if not path.exists():
        pytest.skip(f"{real_scans} holds no lowfield/lowgan64mT")
    monkeypatch.setattr(deepbet, "weights", lambda: None)
    volume = load(path)
    assert extract_brain(volume).millilitres(volume) == pytest.approx(1530, rel=0.1)


def test_stripped_brains_are_known_as_such(real_scans: Path) -> None:
    paths = [*sorted(real_scans.glob("wholebrain/*T1w.nii.gz"))[:1], *sorted(real_scans.glob("oasis/validation/*.nii.gz"))[:2]]
    if not paths:
        pytest.skip(f"{real_scans} holds no wholebrain or oasis")
    for path in paths:
        assert extract_brain(load(path)).method == "none", path


def test_raw_kspace_gives_the_scan(real_scans: Path) -> None:
    path = hku(real_scans)[0]
    raw = read_kspace(path.with_name("hku01_0.055T_GRE_kspace_postEMI.npz"), voxel_size_mm=(2.0, 1.3, 5.0))
    assert raw.kspace.shape == (1, 4, 196, 128)
    centre = np.abs(raw.kspace[0, 0])
    peak = np.unravel_index(centre.argmax(), centre.shape)
    assert np.abs(np.array(peak) - [98, 64]).max() <= 2
    # Its image is a head: bright in the middle, dark in the corners.
    image = raw.magnitude().data[..., 1]
    assert np.median(image[44:84, 68:128]) > 8 * np.median(image[:20, :20])
