"""Where results go when nobody says."""

from pathlib import Path

import pytest

from dynamicdps.output_names import folder_beside


@pytest.mark.parametrize(
    ("scan", "folder"),
    [
        ("scan.nii.gz", "scan_enhanced"),
        ("data/sub-01_T1w.nii", "data/sub-01_T1w_enhanced"),
        ("/data/a.b.mgz", "/data/a.b_enhanced"),
        ("raw.h5", "raw_enhanced"),
        ("scan", "scan_enhanced"),
        (".gz", ".gz_enhanced"),
        ("/", "/_enhanced"),
        ("a\0.nii", "a\0_enhanced"),
    ],
)
def test_beside_a_file(scan: str, folder: str) -> None:
    assert folder_beside(Path(scan)) == Path(folder)


def test_beside_a_folder_of_dicom_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = tmp_path / "series.2024"
    series.mkdir()
    assert folder_beside(series) == tmp_path / "series.2024_enhanced"
    monkeypatch.chdir(series)
    assert folder_beside(Path(".")) == tmp_path / "series.2024_enhanced"
    assert folder_beside(Path("..")) == tmp_path.with_name(f"{tmp_path.name}_enhanced")


def test_a_folder_says_which_contrast_is_synthesised() -> None:
    assert folder_beside(Path("a/sub-1_T2w.nii.gz"), "t1w") == Path("a/sub-1_T2w_to-T1w_enhanced")
