"""Every command of `dynamicdps` in docs/recipes.md does what the page says, on small scans of the names that it uses."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.cli import main
from dynamicdps.cli.commands import Enhance
from dynamicdps.cli.parse import read_command
from dynamicdps.volumes import load, load_dicom
from tests.docs.test_code_blocks import ROOT, blocks
from tests.pipeline.head_scans import movement, one_head, scan_from
from tests.volumes.dicom_files import Stack, write_slices

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
RUN = [shlex.split(code) for _, info, code in blocks(PAGE) if info == ["sh"]]


def poor_scan(path: Path) -> None:
    scan_from(one_head(), 2, np.eye(4), scale=100.0).save(path)


def full_image(path: Path) -> None:
    """What a model would have made of the same head, in units of its own."""
    head = one_head()
    head.with_data(255 * head.data).save(path)


def stack(across: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        scan_from(one_head(), across, movement(2, 1, across), scale=100.0, seed=across).save(path)

    return make


def export(folder: Path) -> None:
    """Two series of a session, each in a folder of its own."""
    for series, scan in ((3, scan_from(one_head(), 2, np.eye(4), scale=900.0)), (4, one_head())):
        stored = np.maximum(scan.data.transpose(2, 1, 0)[:, ::-1, ::-1], 0).astype(np.uint16)
        write_slices(folder / f"S{series}", Stack(stored, np.eye(3), scan.spacing, np.zeros(3)), series)


STAND_INS: dict[str, Callable[[Path], None]] = {
    "scan.nii.gz": poor_scan,
    "synthsr.nii.gz": full_image,
    "export": export,
    "axial_T2w.nii.gz": stack(2),
    "coronal_T2w.nii.gz": stack(1),
    "sagittal_T2w.nii.gz": stack(0),
}


@pytest.mark.parametrize("words", RUN, ids=" ".join)
def test_commands_run(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one step, and without a mask: the scans are no heads."""
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word in STAND_INS:
            STAND_INS[word](Path(word))
    assert main([*words[1:], "--mask", "none", "--samples", "1", "--steps", "1"]) == 0
    command = read_command(words[1:])
    assert isinstance(command, Enhance)
    image = load(command.folder / "enhanced.nii.gz")
    assert image.spacing == pytest.approx((1.0, 1.0, 1.0), abs=0.05)
    if command.dicom is not None:
        series = load_dicom(command.dicom).volume
        assert sorted(series.shape) == sorted(image.shape)


def test_series_of_an_export_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    export(Path("export"))
    shown = re.search(r"^dynamicdps: (.*) among \.\.\.$", PAGE, re.MULTILINE)
    assert shown is not None
    assert main(["enhance", "export", "--out", "out"]) == 2
    assert f"dynamicdps: {shown[1]} among " in capsys.readouterr().err


def test_the_page_has_what_it_promises() -> None:
    """One block a recipe of ours; each program that was not run is named where its recipe ends."""
    assert len(RUN) == 3
    assert PAGE.count("\nNot run here: ") == PAGE.count("\n## ") - 1
    for volume in re.findall(r"out/(\w+\.nii\.gz)", PAGE):
        assert volume in (ROOT / "README.md").read_text(encoding="utf-8")
