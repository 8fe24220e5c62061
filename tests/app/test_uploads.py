"""Names and bounds of what is dropped, and which files are one scan."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamicdps.app import uploads
from dynamicdps.app.uploads import DEVICES, MAX_DEPTH, MAX_NAME, Drop, find_scans, safe_path
from dynamicdps.errors import InputError
from tests.volumes.dicom_files import make_stack, write_slices

NAMES = st.text(max_size=300) | st.text(alphabet="./\\-~: a\x00ÄCON", max_size=30)


@given(NAMES)
def test_whatever_a_file_is_called_its_path_is_harmless(name: str) -> None:
    try:
        path = safe_path(name)
    except InputError:
        return
    assert not path.is_absolute()
    assert 1 <= len(path.parts) <= MAX_DEPTH
    for part in path.parts:
        assert part not in ("", ".", "..")
        assert part[0] not in ".- "
        assert part[-1] not in ". "
        assert len(part) <= MAX_NAME + 1
        assert not set(part) & set('/\\:*?"<>|\0\n')
        assert part.split(".")[0].lower() not in DEVICES


@pytest.mark.parametrize("name", ["sub-01_T1w.nii.gz", "exam/series 3/IM0001", "Größe (2)+.nii", "頭.nii"])
def test_ordinary_names_stay(name: str) -> None:
    assert safe_path(name) == Path(name)


@pytest.mark.parametrize("name", ["", "..", "../etc/passwd", "a/../../b", "/", "a/./..", "C:\\..\\b", "a/ /b", "a/" * 40])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot be a file's name"):
        safe_path(name)


def test_long_names_keep_their_ending() -> None:
    assert safe_path("x" * 400 + ".nii.gz").name.endswith("x.nii.gz")


def test_files_of_one_name_are_both_kept(tmp_path: Path) -> None:
    drop = Drop(tmp_path / "files")
    places = []
    for _ in range(3):
        places.append(drop.place("a?.nii"))
        places[-1].touch()
    assert len({*places}) == 3
    assert all(place.parent == drop.folder and place.name.endswith("a_.nii") for place in places)


def test_a_link_in_the_folder_leads_nowhere(tmp_path: Path) -> None:
    drop = Drop(tmp_path / "files")
    (tmp_path / "elsewhere").mkdir()
    (drop.folder / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="lies outside"):
        drop.place("out/a.nii")


def test_a_file_cannot_be_a_folder_too(tmp_path: Path) -> None:
    drop = Drop(tmp_path / "files")
    drop.place("a").touch()
    with pytest.raises(InputError, match="a folder that is a file too"):
        drop.place("a/b.nii")


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = Drop(tmp_path / "files")
    for name, value, words in (
        ("MAX_FILE_BYTES", 10, "is larger than"),
        ("MAX_BYTES", 10, "GB were dropped"),
        ("KEPT_FREE_BYTES", 2**62, "is full"),
    ):
        with monkeypatch.context() as patch:
            drop.receive(5, 5, "a.nii")
            patch.setattr(uploads, name, value)
            with pytest.raises(InputError, match=words):
                drop.receive(6, 5, "a.nii")
    monkeypatch.setattr(uploads, "MAX_FILES", 1)
    drop.place("a.nii")
    with pytest.raises(InputError, match="more than 1 files"):
        drop.place("b.nii")


def test_each_image_takes_what_belongs_to_it(tmp_path: Path) -> None:
    names = ["a.nii.gz", "a.json", "a.operator.json", "b.nii", "B2.NII", "sub/a.mgz", "c.img", "c.hdr", "raw.npz", "a.txt", "d.json"]
    for name in names:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_text(name)
    found, left = find_scans(tmp_path / "files")
    assert {scan.name: sorted(map(str, scan.files)) for scan in found} == {
        "a.nii.gz": ["a.json", "a.nii.gz", "a.operator.json"],
        "b.nii": ["b.nii"],
        "B2.NII": ["B2.NII"],
        "a.mgz": ["a.mgz"],
        "c.img": ["c.hdr", "c.img"],
        "raw.npz": ["raw.npz"],
    }
    assert left == ["a.txt", "d.json"]
    moved = next(scan for scan in found if scan.name == "a.nii.gz").move_to(tmp_path / "new")
    assert moved == tmp_path / "new" / "a.nii.gz"
    assert sorted(path.name for path in moved.parent.iterdir()) == ["a.json", "a.nii.gz", "a.operator.json"]


def test_dicom_files_are_parted_by_series_and_folder(tmp_path: Path) -> None:
    for folder, series in (("one", 3), ("one/deeper", 5), ("two", 3)):
        write_slices(tmp_path / "files" / folder, make_stack(), series=series)
    (tmp_path / "files" / "one" / "notes.txt").write_text("no scan")
    found, left = find_scans(tmp_path / "files")
    assert [scan.name for scan in found] == ["one, series 3", "one, series 5", "two"]
    assert [len(scan.files) for scan in found] == [6, 6, 6]
    assert left == ["one/notes.txt"]
    assert all(not scan.problem for scan in found)


def test_damaged_dicom_files_are_one_scan_with_a_problem(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "IM1").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0XX")
    (scan,), left = find_scans(tmp_path / "files")
    assert scan.name == "DICOM"
    assert not left
    assert "DICOM" in scan.problem
    assert str(tmp_path) not in scan.problem
