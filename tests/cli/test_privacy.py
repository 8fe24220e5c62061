"""What identifies a patient is neither written nor printed."""

import json
import zlib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from dynamicdps.cli import main
from dynamicdps.cohort import in_process
from dynamicdps.volumes import load, load_dicom
from tests.conftest import make_phantom
from tests.volumes.dicom_files import IDENTITY, Stack, write_slices

# One for each place, so that a find tells where it came from.
TAGS = IDENTITY | {
    "PatientName": "Zzyzx^Quentina",
    "PatientID": "QX-99317",
    "PatientBirthDate": "19310704",
    "InstitutionName": "Saint Wilgefortis",
    "AccessionNumber": "ACC7764310",
    "StudyDate": "20210917",
    "SeriesDescription": "T1 Quentina",
    "ReferringPhysicianName": "Strangelove^Merkwuerdig",
    "StationName": "STATION-8842",
    "ProtocolName": "Protocol-Zzyzx",
    "PatientComments": "comment-Zzyzx",
    "DeviceSerialNumber": "SN-5521973",
    "StudyTime": "114233.7712",
}
PRIVATE = "private-Zzyzx"
SECRETS = (
    *("Zzyzx", "Quentina", "QX-99317", "19310704", "Wilgefortis", "ACC7764310", "20210917", "Strangelove", "STATION-8842", "SN-5521973"),
    *("114233.77", PRIVATE, "descrip-Ophelia", "aux-Ophelia", "db-Ophelia", "intent-Ophelia", "extension-Ophelia", "sidecar-Ophelia"),
    *("General Hospital", "Ophelia"),
)


def plant(path: Path, *, shape: tuple[int, int, int] = (48, 56, 12)) -> Path:
    """A NIfTI file with words in every field that takes some, and a sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = make_phantom(shape)
    image = nib.Nifti1Image(volume.data, volume.affine)
    image.header["descrip"] = b"descrip-Ophelia 19310704"
    image.header["aux_file"] = b"aux-Ophelia"
    image.header["db_name"] = b"db-Ophelia"
    image.header["intent_name"] = b"intent-Ophelia"
    for code in ("comment", "afni", "workflow_fwds", 2, 0):
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, b"extension-Ophelia Zzyzx"))
    nib.save(image, path)
    sidecar = {name: f"sidecar-Ophelia {name}" for name in (*TAGS, "ProtocolName", "AcquisitionDateTime", "ProcedureStepDescription")}
    known = {"MagneticFieldStrength": 0.064, "EchoTime": 0.0065, "RepetitionTime": 1.5, "SliceThickness": 1.0}
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar | known))
    return path


def leaks(folder: Path, printed: str) -> list[str]:
    """Files that hold a secret, as text or packed, and what was printed with one."""
    found = [f"printed: {secret}" for secret in SECRETS if secret in printed]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        plain = zlib.decompress(content, 31) if content[:2] == b"\x1f\x8b" else b""
        for secret in SECRETS:
            names = (secret.encode(), secret.encode("utf-16-le"))
            found += [f"{path.relative_to(folder)}: {secret}" for name in names if name in content or name in plain or secret in path.name]
    return found


def everything(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err + caplog.text


@pytest.fixture
def words(tiny_models: tuple[str, str]) -> list[str]:
    return ["--prior", tiny_models[0], "--conditional", tiny_models[1], "--samples", "2", "--steps", "2"]


def test_a_planted_secret_is_found(tmp_path: Path) -> None:
    """The search itself: in plain and in packed files, in names and in words."""
    path = plant(tmp_path / "scan.nii.gz")
    found = leaks(tmp_path, "of Quentina")
    assert f"{path.name}: descrip-Ophelia" in found
    assert "scan.json: sidecar-Ophelia" in found
    assert "printed: Quentina" in found


def test_nifti_through_enhance_and_report(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    scan, out = plant(tmp_path / "in" / "scan.nii.gz"), tmp_path / "out"
    for operator in ("iqt-in", "fit"):
        arguments = ["enhance", str(scan), "--out", str(out), "--operator", operator, *words]
        if operator == "iqt-in":
            arguments += ["--grid", "native", "--mask", "none"]
            simulated = tmp_path / "out" / "low.nii.gz"
            assert main(["simulate", str(scan), "--out", str(simulated), "--degradation", "iqt-in"]) == 0
            arguments[1] = str(simulated)
            arguments[arguments.index("iqt-in")] = str(simulated.with_name("low.operator.json"))
        assert main(arguments) == 0
        assert main(["report", str(out)]) == 0
    assert leaks(out, everything(capsys, caplog)) == []


def test_nifti_through_calibrate(
    tiny_models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    scan, out = plant(tmp_path / "in" / "scan.nii.gz"), tmp_path / "out"
    assert main(["calibrate", "operator", str(scan), "--out", str(out / "o.json"), "--conditional", tiny_models[1]]) == 0
    assert leaks(out, everything(capsys, caplog)) == []


def write_dicom(folder: Path) -> Path:
    """A brain's slices with identifiers in public and private tags."""
    volume = make_phantom((40, 48, 10), (1.2, 1.2, 1.2))
    stored = ndimage.zoom(volume.data, 1, order=0).transpose(2, 1, 0)
    stack = Stack((np.maximum(stored, 0) * 900).astype(np.uint16), np.eye(3), (1.2, 1.2, 1.2), np.zeros(3))
    for file in write_slices(folder, stack):
        for name, value in TAGS.items():
            setattr(file, name, value)
        block = file.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x10, "LO", PRIVATE)
        block.add_new(0x20, "OB", b"private-Zzyzx bytes!")
        file.SliceThickness, file.RescaleIntercept, file.RescaleSlope = 1.2, 0.0, 1.0
        file.save_as(str(file.filename), enforce_file_format=True)
    return folder


def test_dicom(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    folder, out = write_dicom(tmp_path / "dicom"), tmp_path / "out"
    assert main(["enhance", str(folder), "--out", str(out), "--operator", "fit", "--mask", "none", *words]) == 0
    assert main(["report", str(out)]) == 0
    assert main(["calibrate", "operator", str(folder), "--out", str(out / "o.json"), "--mask", "none", *words[2:4]]) == 0
    assert leaks(out, everything(capsys, caplog)) == []
    assert load(out / "enhanced.nii.gz").data.max() > 0
    # One folder alone holds what an archive needs, and what is written there is the enhanced scan.
    again, archive = tmp_path / "again", tmp_path / "archive"
    fitted = ["--operator", "fit", "--mask", "none", *words]
    assert main(["enhance", str(folder), "--out", str(again), "--dicom", str(archive), "--dicom-stamp", *fitted]) == 0
    assert main(["rerun", str(again / "run.json"), "--out", str(tmp_path / "rerun")]) == 0
    said = everything(capsys, caplog)
    assert leaks(again, said) == leaks(tmp_path / "rerun", said) == []
    assert any("Quentina" in leak for leak in leaks(archive, ""))
    assert not any(PRIVATE in leak for leak in leaks(archive, ""))
    written, enhanced = load_dicom(archive), load(again / "enhanced.nii.gz")
    np.testing.assert_allclose(written.volume.affine, enhanced.affine, atol=1e-4)
    assert np.median(np.abs(written.volume.data - enhanced.data)) <= np.abs(enhanced.data).max() / 32767
    # What is refused says no more.
    for command in (
        ["enhance", str(folder), "--out", str(out), "--series", "99"],
        ["enhance", str(folder), "--out", str(out), "--operator", "none-such"],
        ["enhance", str(folder), "--out", str(out), "--dicom", str(archive)],
        ["enhance", str(folder), "--out", str(out), "--dicom", str(folder / "new")],
        ["enhance", str(folder), "--out", str(out), "--dicom", str(out)],
        ["enhance", str(folder), "--out", str(out), "--dicom-stamp"],
    ):
        assert main([*command, *words]) == 2
    assert leaks(out, everything(capsys, caplog)) == []


def test_cohort(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real enhancer, in this process."""
    monkeypatch.setattr("dynamicdps.cli.run_cohort.open_client", lambda config: nullcontext(SimpleNamespace(dashboard_link="")))
    monkeypatch.setattr("dynamicdps.cli.run_cohort.on_cluster", lambda client, tasks, enhancer: in_process(tasks, enhancer))
    plant(tmp_path / "study" / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    broken = plant(tmp_path / "study" / "sub-02" / "anat" / "sub-02_T1w.nii.gz")
    broken.with_name("sub-02_T1w.json").write_text('{"EchoTime": "sidecar-Ophelia"}')
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        main(["cohort", str(tmp_path / "study"), str(out), "--workers", "1", "--mask", "none", *words])
    assert (out / "sub-01" / "anat" / "sub-01_rec-dynamicdps_T1w.nii.gz").is_file()
    assert leaks(out, everything(capsys, caplog)) == []
