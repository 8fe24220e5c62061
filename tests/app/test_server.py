"""The page's addresses: from a drop to what was recognised, and what is refused with one sentence."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from starlette.testclient import TestClient

from dynamicdps.app import server
from dynamicdps.app.guard import REPORT_POLICY
from dynamicdps.app.job import Job
from dynamicdps.app.queue import JobQueue
from tests.conftest import make_phantom
from tests.volumes.dicom_files import make_stack, write_slices


def dropped(client: TestClient, files: dict[str, bytes]) -> dict[str, list[str]]:
    """Drop files as the page does."""
    place = f"api/drops/{client.post('api/drops').json()['drop']}"
    for name, content in files.items():
        answer = client.put(f"{place}/files", params={"name": name}, content=content)
        assert answer.status_code == 204, answer.text
    answer = client.post(f"{place}/recognise")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def left_over(queue: JobQueue) -> list[Path]:
    return [path for path in (queue.folder / server.DROPS).rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["", "app.css", "app.js", "niivue.umd.js", "slices.js"])
def test_the_page_and_its_files(client: TestClient, name: str) -> None:
    answer = client.get(name)
    assert answer.status_code == 200
    assert len(answer.content) > 500
    assert answer.headers["content-type"].startswith({"": "text/html", "app.css": "text/css"}.get(name, "text/javascript"))


def test_the_page_names_no_other_place(client: TestClient) -> None:
    for name in ("", "app.css", "app.js"):
        assert "://" not in client.get(name).text


def test_a_scan_is_recognised(client: TestClient, queue: JobQueue) -> None:
    volume = make_phantom((48, 56, 12), (1.5, 1.5, 5.0))
    content = nib.Nifti1Image(volume.data[::-1], np.diag([-1.5, 1.5, 5.0, 1.0])).to_bytes()
    sidecar = b'{"MagneticFieldStrength": 0.064, "EchoTime": 0.004}'
    told = dropped(client, {"x/sub-01_T1w.nii": content, "x/sub-01_T1w.json": sidecar, "x/readme.txt": b"no scan"})
    assert told["left_out"] == ["x/readme.txt"]
    (job,) = client.get("api/state").json()["jobs"]
    assert told["jobs"] == [job["id"]]
    assert (job["state"], job["usable"]) == ("recognised", True)
    (scan,) = job["scans"]
    assert scan["name"] == "sub-01_T1w.nii"
    assert (scan["kind"], scan["shape"], scan["spacing_mm"], scan["orientation"]) == ("NIfTI", [48, 56, 12], [1.5, 1.5, 5], "LAS")
    assert (scan["contrast"], scan["skull"], scan["whole_head"]) == ("T1w", False, False)
    assert (scan["acquisition"]["field_strength_t"], scan["acquisition"]["echo_time_ms"]) == (0.064, 4)
    assert not left_over(queue)
    preview = nib.Nifti1Image.from_bytes(__import__("gzip").decompress(client.get(f"api/jobs/{job['id']}/previews/0").content))
    assert preview.shape == (48, 56, 12)
    assert client.get(f"api/jobs/{job['id']}/previews/1").status_code == 404


def test_a_dicom_folder_is_recognised_by_series(client: TestClient, tmp_path: Path) -> None:
    files = {}
    for series in (3, 4):
        write_slices(tmp_path / "dicom" / str(series), make_stack(), series=series)
        files |= {f"exam/{path.parent.name}/{path.name}": path.read_bytes() for path in (tmp_path / "dicom" / str(series)).iterdir()}
    dropped(client, files)
    jobs = client.get("api/state").json()["jobs"]
    assert [job["scans"][0]["name"] for job in jobs] == ["exam, series 3", "exam, series 4"]
    assert {(job["scans"][0]["kind"], *job["scans"][0]["shape"]) for job in jobs} == {("DICOM, 6 files", 11, 8, 6)}
    assert len({job["drop"] for job in jobs}) == 1
    assert client.get("api/state").text.find("Doe") == -1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no image", "a.nii cannot be read"),
        (nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)).to_bytes(), "constant"),
        (
            nib.Nifti1Image(np.ones((8, 8, 8, 2), np.float32), np.eye(4)).to_bytes(),
            "a.nii holds 2 volumes (8 x 8 x 8 x 2); expected one; save one of them as",
        ),
    ],
)
def test_what_cannot_be_used_says_why(client: TestClient, queue: JobQueue, content: bytes, words: str) -> None:
    dropped(client, {"a.nii": content})
    (job,) = client.get("api/state").json()["jobs"]
    assert not job["usable"]
    assert words in job["scans"][0]["problem"]
    assert str(queue.folder) not in job["scans"][0]["problem"]
    assert client.get(f"api/jobs/{job['id']}/previews/0").status_code == 404
    answer = client.post(f"api/jobs/{job['id']}/start", json={})
    assert (answer.status_code, answer.json()["problem"][:26]) == (400, "the scan cannot be used: a")


def test_a_drop_without_a_scan_leaves_nothing(client: TestClient, queue: JobQueue) -> None:
    place = f"api/drops/{client.post('api/drops').json()['drop']}"
    client.put(f"{place}/files", params={"name": "notes.txt"}, content=b"no scan")
    answer = client.post(f"{place}/recognise")
    assert answer.status_code == 400
    assert "none of the 1 files that were dropped is a scan; expected an image file" in answer.json()["problem"]
    assert not left_over(queue)
    assert client.post(f"{place}/recognise").status_code == 404


def test_a_file_that_is_too_large_is_not_kept(client: TestClient, queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamicdps.app.uploads.MAX_FILE_BYTES", 100)
    place = f"api/drops/{client.post('api/drops').json()['drop']}"
    answer = client.put(f"{place}/files", params={"name": "a.nii"}, content=b"0" * 101)
    assert answer.status_code == 400
    assert "is larger than" in answer.json()["problem"]
    assert not left_over(queue)
    assert client.delete(place).status_code == 204
    assert not list((queue.folder / server.DROPS).iterdir())


@pytest.mark.parametrize("name", ["../../a.nii", "/etc/passwd/..", "..\\a.nii", ""])
def test_a_name_that_leads_elsewhere_is_refused(client: TestClient, queue: JobQueue, name: str) -> None:
    place = f"api/drops/{client.post('api/drops').json()['drop']}"
    assert client.put(f"{place}/files", params={"name": name}, content=b"x").status_code == 400
    assert not left_over(queue)


def finished(job: Job) -> Job:
    """A job with results that were not computed."""
    job.result.mkdir()
    for name in ("enhanced.nii.gz", "metrics.json", "report.html"):
        (job.result / name).write_text(f"<p>{name}</p>")
    job.state = "done"
    job.save()
    return job


def test_results_are_saved_by_name_alone(
    client: TestClient,
    drop: Callable[..., list[Job]],
    scan_files: list[Path],
) -> None:
    (job,) = drop(scan_files[0])
    place = f"api/jobs/{job.id}"
    assert client.get(f"{place}/report").status_code == client.get(f"{place}/files/enhanced.nii.gz").status_code == 404
    finished(job)
    assert client.get("api/state").json()["jobs"][0]["files"] == ["enhanced.nii.gz", "metrics.json", "report.html"]
    saved = client.get(f"{place}/files/enhanced.nii.gz")
    assert saved.text == "<p>enhanced.nii.gz</p>"
    assert saved.headers["content-disposition"] == 'attachment; filename="sub-0_enhanced.nii.gz"'
    for name in ("job.json", "..%2fjob.json", "%2e%2e%2fjob.json", "..\\job.json", ".", "nothing"):
        assert client.get(f"{place}/files/{name}").status_code == 404
    # Never shown as a page of this origin.
    assert client.get(f"{place}/files/report.html").headers["content-disposition"].startswith("attachment")


def test_a_report_has_no_origin(client: TestClient, drop: Callable[..., list[Job]], scan_files: list[Path]) -> None:
    answer = client.get(f"api/jobs/{finished(drop(scan_files[0])[0]).id}/report")
    assert answer.headers["content-security-policy"] == REPORT_POLICY
    assert "allow-same-origin" not in REPORT_POLICY
    assert answer.headers["content-type"].startswith("text/html")


def test_all_files_in_one(
    client: TestClient, queue: JobQueue, drop: Callable[..., list[Job]], scan_files: list[Path], tmp_path: Path
) -> None:
    answer = client.get(f"api/jobs/{finished(drop(scan_files[0])[0]).id}/all.zip")
    (tmp_path / "all.zip").write_bytes(answer.content)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert sorted(archive.namelist()) == ["sub-0/enhanced.nii.gz", "sub-0/metrics.json", "sub-0/report.html"]
    assert not left_over(queue)


def test_a_result_of_dicom_files_is_saved_as_such(
    client: TestClient, drop: Callable[..., list[Job]], scan_files: list[Path], tmp_path: Path
) -> None:
    place = f"api/jobs/{finished(job := drop(scan_files[0])[0]).id}"
    assert client.get(f"{place}/dicom.zip").status_code == 404
    assert client.get("api/state").json()["jobs"][0]["dicom"] is False
    (job.result / "dicom").mkdir()
    (job.result / "dicom" / "0001.dcm").write_text("slice")
    assert client.get("api/state").json()["jobs"][0]["dicom"] is True
    # It alone names a patient.
    for name, files in (("dicom", ["sub-0_dicom/0001.dcm"]), ("all", ["sub-0/enhanced.nii.gz", "sub-0/metrics.json", "sub-0/report.html"])):
        (tmp_path / "saved.zip").write_bytes(client.get(f"{place}/{name}.zip").content)
        with zipfile.ZipFile(tmp_path / "saved.zip") as archive:
            assert sorted(archive.namelist()) == files


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"x" * 100_000, b"[" * 50_000, b'{"quality": "perfect"}', b'{"quality": ["best"]}'])
def test_requests_that_make_no_sense_are_one_sentence(
    client: TestClient,
    drop: Callable[..., list[Job]],
    scan_files: list[Path],
    body: bytes,
) -> None:
    (job,) = drop(scan_files[0])
    answer = client.post(f"api/jobs/{job.id}/start", content=body)
    assert answer.status_code == 400
    assert "; expected" in answer.json()["problem"]
    assert job.state == "recognised"


def test_what_there_is_not(client: TestClient) -> None:
    for method, path in (("GET", "api/jobs/x/report"), ("POST", "api/jobs/../start"), ("DELETE", "api/jobs/x"), ("GET", "docs")):
        answer = client.request(method, path)
        assert answer.status_code in (404, 405)
        assert "there is no such thing" in answer.json()["problem"]


def test_scans_of_one_head_become_one_job(client: TestClient, drop: Callable[..., list[Job]], scan_files: list[Path]) -> None:
    jobs = drop(*scan_files)
    ids = {"jobs": [job.id for job in jobs]}
    for wrong in ([], [jobs[0].id], 3, None):
        assert client.post("api/together", json={"jobs": wrong}).status_code == 400
    assert client.post("api/together", json={"jobs": ["x", jobs[0].id]}).status_code == 404
    assert client.post("api/together", json=ids).json() == {"job": jobs[0].id}
    (shown,) = client.get("api/state").json()["jobs"]
    assert [scan["name"] for scan in shown["scans"]] == ["sub-0.nii.gz", "sub-1.nii.gz", "sub-2.nii.gz"]
    assert all(client.get(f"api/jobs/{shown['id']}/previews/{number}").status_code == 200 for number in range(3))
    assert all((jobs[0].folder / scan.path).is_file() for scan in jobs[0].scans)
    assert not jobs[1].folder.exists()
    assert Job.read(jobs[0].folder).scans == jobs[0].scans
