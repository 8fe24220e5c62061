"""`dynamicdps segment` with a network of random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine

from dynamicdps.cli import commands, main
from dynamicdps.cli.guard import written
from dynamicdps.conditional import VolumeConfig
from dynamicdps.conditional.volume_network import VolumeUNet
from dynamicdps.models.model_file import write_model
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.volumes import load
from tests.conftest import make_phantom
from tests.volumes.dicom_files import IDENTITY, SECRETS, STUDY, stack_of, write_slices

SMALL = VolumeConfig(channels=(8, 8), blocks=(1, 1), planes=0, outputs=len(CLASSES))


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return write_model(
        tmp_path / "mine" / "shapes.safetensors", VolumeUNet(SMALL).state_dict(), {"kind": "segmenter", "network": SMALL.to_json()}
    ).path


def test_structures_go_into_the_archive_that_the_scan_came_from(
    segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed; pip install '.[dicom-seg]'")
    scan, out, archive = tmp_path / "scan", tmp_path / "out", tmp_path / "archive"
    write_slices(scan, stack_of(make_phantom((48, 56, 30)), 900))
    words = ["segment", str(scan), "--out", str(out), "--mask", "none", "--repeats", "0", "--segmenter", str(segmenter)]
    for wrong, sentence in ((out, "is that of the other results"), (scan / "new", "would be read as a part of it")):
        assert main([*words, "--dicom", str(wrong)]) == 2
        assert sentence in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, "--dicom", str(archive)]) == 0
    assert str(archive) in capsys.readouterr().out
    written = highdicom.seg.segread(archive / "segmentation.dcm")
    assert (written.StudyInstanceUID, written.PatientName) == (STUDY, IDENTITY["PatientName"])
    labels, names = load(out / "dseg.nii.gz"), (out / "dseg.tsv").read_text()
    described = {number: written.get_segment_description(number).segment_label for number in written.segment_numbers}
    assert all(f"\t{name}\t" in names for name in described.values())
    numbers = {row.split("\t")[1]: int(row.split("\t")[0]) for row in names.splitlines()[1:]}
    shared = written.SharedFunctionalGroupsSequence[0]
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing)
    count = 0
    for pixels, frame in zip(written.pixel_array, written.PerFrameFunctionalGroupsSequence, strict=True):
        row, column = np.nonzero(pixels)
        first = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        lps = first + np.outer(column * between_columns, directions[0]) + np.outer(row * between_rows, directions[1])
        place = np.rint(apply_affine(np.linalg.inv(labels.affine), lps * [-1, -1, 1])).astype(int)
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert (labels.data[tuple(place.T)] == numbers[described[number]]).all()
        count += len(row)
    assert count == np.count_nonzero(labels.data)
    # All else names nobody, and what went to an archive goes there once.
    assert not any(secret.encode() in path.read_bytes() for path in out.iterdir() for secret in SECRETS)
    assert main(["rerun", str(out / "run.json"), "--out", str(tmp_path / "again")]) == 0
    assert len(list(archive.iterdir())) == 1


def test_structures_of_an_image_file_go_into_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This is said before the work begins."""
    scan = make_phantom().save(tmp_path / "scan.nii.gz")
    assert main(["segment", str(scan), "--out", str(tmp_path / "out"), "--dicom", str(tmp_path / "archive")]) == 2
    assert "is no folder of DICOM files" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_segment_writes_its_files_and_is_repeated(segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out = make_phantom((48, 56, 30)).save(tmp_path / "scan.nii.gz"), tmp_path / "out"
    # What random weights find is no brain: the mask says where it is.
    words = ["segment", str(scan), "--out", str(out), "--mask", "none", "--repeats", "2"]
    words += ["--segmenter", segmenter.stem]
    assert main(words) == 2
    assert "there is no segmenter model 'shapes'" in capsys.readouterr().err
    assert not out.exists()
    assert main(["models", "add", str(segmenter)]) == 0
    assert main(words) == 0
    assert {p.name for p in out.iterdir()} == set(written(commands.Segment(scan, out))[1])
    assert load(out / "dseg.nii.gz").shape == (48, 56, 30)
    printed = capsys.readouterr().out
    assert "hippocampus" in printed
    assert str(out / "dseg.nii.gz") in printed
    run = json.loads((out / "run.json").read_text())
    assert (run["command"], run["exit"]) == ("segment", 0)
    assert main(["rerun", str(out / "run.json"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "volumes.tsv").read_bytes() == (out / "volumes.tsv").read_bytes()
    assert main([*words[:4], "--segmenter", str(segmenter), "--repeats", "0"]) == 2
    assert "brain" in capsys.readouterr().err
