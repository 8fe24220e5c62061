"""Labels as a DICOM segmentation: each voxel in its place, each segment with its name."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from dynamicdps.volumes import load_dicom
from dynamicdps.volumes.dicom_segmentation import write_segmentation
from tests.properties import input_error
from tests.volumes.dicom_files import IDENTITY, STUDY, make_stack, write_enhanced, write_slices
from tests.volumes.test_dicom_writer import finer

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed; pip install '.[dicom-seg]'")

NAMES = {2: "white matter", 17: "hippocampus", 40: "nowhere"}


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0)], ids=["axial", "sagittal"])
@pytest.mark.parametrize("enhanced", [False, True])
def test_round_trip(tmp_path: Path, axes: tuple[int, int, int], enhanced: bool) -> None:
    stack = make_stack(axes, 8.0)
    if enhanced:
        write_enhanced(tmp_path / "source" / "a.dcm", stack)
    else:
        write_slices(tmp_path / "source", stack)
    image = finer(load_dicom(tmp_path / "source").volume)
    labels = np.random.default_rng(0).choice([0, 2, 17, 99], image.shape).astype(np.int32)
    path, again = (write_segmentation(labels, image.affine, NAMES, tmp_path / "source", tmp_path / name) for name in ("new", "again"))
    assert pydicom.dcmread(path).SOPInstanceUID == pydicom.dcmread(again).SOPInstanceUID
    written = highdicom.seg.segread(path)
    assert (written.StudyInstanceUID, written.PatientName) == (STUDY, IDENTITY["PatientName"])
    described = {number: written.get_segment_description(number).segment_label for number in written.segment_numbers}
    assert described == {1: "white matter", 2: "hippocampus"}
    volume = written.get_volume(combine_segments=True)
    back = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine) @ volume.affine
    for index, number in np.ndenumerate(volume.array):
        place = back @ [*index, 1]
        assert np.abs(place - np.rint(place)).max() < 1e-3
        x, y, z = np.rint(place[:3]).astype(int)
        assert number == {2: 1, 17: 2}.get(int(labels[x, y, z]), 0)


def test_what_is_refused(tmp_path: Path) -> None:
    write_slices(tmp_path / "source", make_stack())
    image = load_dicom(tmp_path / "source").volume
    labels = np.ones(image.shape, np.uint8)
    for wrong, names in ((labels, NAMES), (labels.astype(np.float32), {1: "all"}), (labels[0], {1: "all"})):
        with input_error("expected whole numbers"):
            write_segmentation(wrong, image.affine, names, tmp_path / "source", tmp_path / "new")
    with input_error("would be read as a part of it"):
        write_segmentation(labels, image.affine, {1: "all"}, tmp_path / "source", tmp_path / "source" / "new")
    assert not (tmp_path / "new").exists()
