"""Which scans are found and what their derivatives are called."""

from pathlib import Path

import pytest

from dynamicdps.cohort import BidsScan, combine, find_scans
from dynamicdps.errors import InputError


def touch(folder: Path, *places: str) -> Path:
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).touch()
    return folder


def names(scans: list[BidsScan]) -> list[str]:
    return [scan.name for scan in scans]


def test_scans_of_a_dataset(tmp_path: Path) -> None:
    """T1w images in anat folders alone, sorted by name; not other contrasts, derivatives, or hidden files."""
    touch(
        tmp_path,
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-low_run-2_T1w.nii",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.json",
        "sub-01/ses-a/anat/.partial-sub-01_ses-a_T1w.nii.gz",
        "sub-01/func/sub-01_T1w.nii.gz",
        "derivatives/sub-03/anat/sub-03_T1w.nii.gz",
    )
    scans = find_scans(tmp_path)
    assert names(scans) == ["sub-01_ses-a_rec-dynamicdps", "sub-01_ses-b_acq-low_rec-dynamicdps_run-2", "sub-02_rec-dynamicdps"]
    assert [scan.folder for scan in scans] == ["sub-01/ses-a/anat", "sub-01/ses-b/anat", "sub-02/anat"]
    assert scans[1].source == "sub-01/ses-b/anat/sub-01_ses-b_acq-low_run-2_T1w.nii"


def test_filters(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "sub-1/ses-a/anat/sub-1_ses-a_acq-x_T1w.nii.gz",
        "sub-1/ses-b/anat/sub-1_ses-b_T1w.nii.gz",
        "sub-2/ses-a/anat/sub-2_ses-a_T1w.nii.gz",
    )
    assert names(find_scans(tmp_path, subjects=["sub-1"])) == ["sub-1_ses-a_acq-x_rec-dynamicdps", "sub-1_ses-b_rec-dynamicdps"]
    assert names(find_scans(tmp_path, subjects=["1", "2"], sessions=["b"])) == ["sub-1_ses-b_rec-dynamicdps"]
    assert names(find_scans(tmp_path, acquisitions=["x"])) == ["sub-1_ses-a_acq-x_rec-dynamicdps"]
    with pytest.raises(InputError, match="ses c"):
        find_scans(tmp_path, sessions=["c"])


@pytest.mark.parametrize(
    ("name", "derived"),
    [
        ("sub-1_T1w", "sub-1_rec-dynamicdps"),
        ("sub-1_ses-2_acq-a_ce-gd_run-1_echo-2_T1w", "sub-1_ses-2_acq-a_ce-gd_rec-dynamicdps_run-1_echo-2"),
        ("sub-1_rec-norm_run-1_T1w", "sub-1_rec-normdynamicdps_run-1"),
    ],
)
def test_the_reconstruction_has_its_place_among_the_entities(name: str, derived: str, tmp_path: Path) -> None:
    touch(tmp_path, f"sub-1/anat/{name}.nii.gz")
    assert names(find_scans(tmp_path)) == [derived]


def test_scans_of_a_session_that_go_together(tmp_path: Path) -> None:
    """Those that differ in acq, run and dir alone, under what they share; everything else tells images apart."""
    touch(
        tmp_path,
        "sub-1/ses-a/anat/sub-1_ses-a_acq-axial_run-1_T1w.nii.gz",
        "sub-1/ses-a/anat/sub-1_ses-a_acq-axial_run-2_T1w.nii.gz",
        "sub-1/ses-b/anat/sub-1_ses-b_acq-axial_run-1_T1w.nii.gz",
        "sub-1/ses-b/anat/sub-1_ses-b_acq-coronal_dir-AP_T1w.nii.gz",
        "sub-1/ses-b/anat/sub-1_ses-b_T1w.nii.gz",
        "sub-1/ses-b/anat/sub-1_ses-b_acq-axial_ce-gd_T1w.nii.gz",
        "sub-1/ses-b/anat/sub-1_ses-b_acq-axial_rec-norm_T1w.nii.gz",
        "sub-2/anat/sub-2_acq-axial_T1w.nii.gz",
    )
    scans = find_scans(tmp_path)
    together = combine(scans)
    assert {scan.name: len(scan.paths) for scan in together} == {
        "sub-1_ses-a_acq-axial_rec-dynamicdps": 2,
        "sub-1_ses-b_acq-axial_ce-gd_rec-dynamicdps": 1,
        "sub-1_ses-b_acq-axial_rec-normdynamicdps": 1,
        "sub-1_ses-b_rec-dynamicdps": 3,
        "sub-2_acq-axial_rec-dynamicdps": 1,
    }
    assert names(together) == sorted(names(together))
    # Each file once, and what is alone as it was.
    assert sorted(source for scan in together for source in scan.sources) == sorted(scan.source for scan in scans)
    assert all(scan in scans for scan in together if len(scan.paths) == 1)
    assert combine(together) == combine(scans[::-1]) == together


def test_two_scans_that_would_have_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_T1w.nii.gz")
    with pytest.raises(InputError, match=r"sub-1_T1w\.nii and sub-1/anat|sub-1_T1w\.nii\.gz and sub-1/anat"):
        find_scans(tmp_path)


def test_plain_folders(tmp_path: Path) -> None:
    """Labels come from the whole path, what is no letter or digit left out; the output folder is not searched."""
    touch(tmp_path, "anna_b/t1.nii.gz", "carl/t1.nii.gz", "carl/t1.txt", "out/sub-1_T1w.nii.gz")
    scans = find_scans(tmp_path, pattern="*/*", leave_out=tmp_path / "out")
    assert names(scans) == ["sub-annabt1_rec-dynamicdps", "sub-carlt1_rec-dynamicdps"]
    assert scans[0].folder == "sub-annabt1/anat"
    touch(tmp_path, "annab/t1.nii.gz")
    with pytest.raises(InputError, match="rename"):
        find_scans(tmp_path, pattern="*/*", leave_out=tmp_path / "out")
    for bad in ("/etc/*", "../*"):
        with pytest.raises(InputError, match="leads out"):
            find_scans(tmp_path, pattern=bad)


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no scan"):
        find_scans(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        find_scans(tmp_path / "missing")


def test_seeds_come_from_names() -> None:
    """Of each scan its own, for each base its own, and none that depends on where the dataset lies."""
    one, two = (BidsScan((Path(f"/x/{label}"),), (label,), (("sub", label),)) for label in ("1", "2"))
    assert one.seed(0) == BidsScan((Path("/elsewhere"),), ("1",), (("sub", "1"),)).seed(0)
    assert len({one.seed(0), two.seed(0), one.seed(1)}) == 3
    assert 0 <= one.seed(0) < 2**31
