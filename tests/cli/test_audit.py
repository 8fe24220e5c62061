"""`dynamicdps audit`: its files, its words, and what it refuses."""

import json
from pathlib import Path

import pytest

from dynamicdps.cli import commands, main
from dynamicdps.cli.guard import written
from dynamicdps.volumes import Volume
from tests.pipeline.head_scans import one_head
from tests.pipeline.test_audit import LESIONS, scan_of, with_ball


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """An image that lost a lesion, and its scan with the operator beside it."""
    head = one_head()
    measurement, operator = scan_of(with_ball(head, *LESIONS[0], 0.3))
    operator.save(tmp_path / "scan.operator.json")
    return head.save(tmp_path / "image.nii.gz"), measurement.save(tmp_path / "scan.nii.gz")


def test_audit_writes_its_files_and_is_repeated(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image, scan = pair
    assert main(["audit", str(image), "--scan", str(scan), "--mask", "none"]) == 0
    out = tmp_path / "image_audit"
    assert {path.name for path in out.iterdir()} == set(written(commands.Audit(image, scan))[1])
    printed = capsys.readouterr().out
    assert "1 region of the image contradicted by the scan" in printed
    assert "lost" in printed
    run = json.loads((out / "run.json").read_text())
    assert (run["command"], run["exit"], run["arguments"]["out"]) == ("audit", 0, str(out))
    assert set(run["inputs"]) == {str(image), str(scan), str(scan.with_name("scan.operator.json"))}
    assert main(["rerun", str(out / "run.json"), "--out", str(tmp_path / "again")]) == 0
    for name in ("contradictions.tsv", "correction.nii.gz", "residual.nii.gz"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_bad_input_is_one_sentence(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image, scan = pair
    head = one_head()
    away = head.affine.copy()
    away[0, 3] += 500
    far = Volume(head.data, away).save(tmp_path / "far.nii.gz")
    for words, sentence in (
        ([str(tmp_path / "none.nii.gz"), "--scan", str(scan)], "does not exist"),
        ([str(image), "--scan", str(tmp_path / "none.nii.gz")], "does not exist"),
        ([str(far), "--scan", str(scan)], "shows 0% of the brain"),
        ([str(image), "--scan", str(scan), "--operator", "abacus"], "abacus"),
        ([str(image), "--scan", str(scan), "--shading", "on"], "--operator fit"),
        ([str(image), "--scan", str(scan), "--device", "abacus"], "there is no device"),
        ([str(image), "--scan", str(scan), "--mask", "nowhere"], "there is no mask"),
        ([str(image), "--scan", str(scan), "--volume", "3"], "volume"),
    ):
        assert main(["audit", *words, "--out", str(tmp_path / "out"), *(() if "--mask" in words else ("--mask", "none"))]) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert not (tmp_path / "out").exists()
    assert main(["audit", str(image), "--scan", str(scan)[:-7] + ".operator.json", "--out", str(tmp_path / "out")]) == 2
    kept = image.rename(tmp_path / "initial.nii.gz")
    assert main(["audit", str(kept), "--scan", str(scan), "--out", str(tmp_path)]) == 2
    assert "would be written over" in capsys.readouterr().err
