"""`enhance` and `calibrate operator` from raw k-space, end to end with tiny models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.cli import main
from dynamicdps.operators import partial_fourier_mask
from dynamicdps.volumes import load
from tests.cli.test_privacy import leaks
from tests.operators.raw_scans import make_raw
from tests.volumes.head import Head, make_head
from tests.volumes.ismrmrd_files import WORDS, write_ismrmrd

OPERATOR = {"type": "LowField", "gamma": 0.8, "in_plane_factor": 3.0, "blur": 0.3, "slice_thickness": 10.0, "noise_std": 0.05}
SOLVER = ("--solver", "data-step")
DYNAMICDPS = ("--solver", "dynamicdps", "--samples", "1", "--steps", "1", "--start-sigma", "0.05")
FILES = ("enhanced", "enhanced_brain", "brain_mask", "initial", "measurement", "residual")
NOISE = 20.0


@pytest.fixture
def head() -> Head:
    """Voxels of 3 x 3 x 10 mm: few, so that the tests are quick. k-space brings the noise."""
    return make_head((3.0, 3.0, 10.0), (180.0, 210.0, 30.0), noise=0.0)


@pytest.fixture
def mask(head: Head, tmp_path: Path) -> Path:
    return head.volume.with_data(head.brain.astype(np.float32)).save(tmp_path / "mask.nii.gz")


@pytest.fixture
def operator(tmp_path: Path) -> Path:
    path = tmp_path / "operator.json"
    path.write_text(json.dumps(OPERATOR))
    return path


def write_raw(
    path: Path, head: Head, *, coils: int = 1, sampled: np.ndarray | None = None, orientation: str = "RAS", **also: object
) -> Path:
    raw = make_raw(head.volume, coils=coils, mask=sampled, noise=NOISE, orientation=orientation)
    np.savez(path, **{"kspace": raw.kspace.transpose(0, 3, 2, 1), **also})
    return path


def run(scan: Path, out: Path, models: tuple[str, str], *options: str | Path, solver: tuple[str, ...] = SOLVER) -> int:
    command = ["enhance", str(scan), "--out", str(out), "--prior", models[0], "--conditional", models[1], *solver]
    return main([*command, *map(str, options)])


@pytest.mark.parametrize("case", ["one coil", "coils", "partial Fourier"])
def test_enhance(case: str, head: Head, mask: Path, operator: Path, tiny_models: tuple[str, str], tmp_path: Path) -> None:
    coils = 3 if case == "coils" else 1
    sampled = partial_fourier_mask((70, 60), 0.7).numpy() if case == "partial Fourier" else None
    scan = write_raw(tmp_path / "raw.npz", head, coils=coils, sampled=sampled, voxel_size_mm=[3.0, 3.0, 10.0])
    out = tmp_path / "out"
    solver = "dynamicdps" if case == "one coil" else "data-step"
    chosen = DYNAMICDPS if case == "one coil" else SOLVER
    assert run(scan, out, tiny_models, "--operator", operator, "--mask", mask, solver=chosen) == 0
    volumes = {name: load(out / f"{name}.nii.gz") for name in FILES}
    assert volumes["enhanced_brain"].spacing == pytest.approx((1.0, 1.0, 1.0), abs=1e-4)
    assert volumes["measurement"].spacing == pytest.approx((3.0, 3.0, 10.0), abs=1e-4)
    np.testing.assert_allclose(volumes["residual"].affine, volumes["measurement"].affine)
    # Half a voxel aside: the middle of k-space is that of a voxel.
    centre = [volume.affine[:3, 3] + volume.affine[:3, :3] @ ((np.array(volume.shape) - 1) / 2) for volume in volumes.values()]
    assert np.abs(centre - centre[0]).max() <= 3.0
    record = json.loads((out / "run.json").read_text())
    assert record["operator"]["type"] == "LowField"
    kspace = record["kspace"]
    assert kspace["coils"] == coils
    assert kspace["samples"] == (70 * 60 * 3 if sampled is None else sampled.sum() * 3)
    assert kspace["noise_std"] == pytest.approx(NOISE, rel=0.1)
    metrics = json.loads((out / "metrics.json").read_text())
    after = metrics[solver]
    assert after["data_misfit"] < metrics["conditional"]["data_misfit"]
    low, high = after["range_over_slices"]["data_misfit"]
    assert low <= after["data_misfit"] * 1.1
    assert high >= after["data_misfit"] * 0.9
    if sampled is None:
        # The residual is that of k-space: over the brain it has the same root mean square.
        inside = volumes["residual"].data[volumes["residual"].data != 0]
        assert np.sqrt((inside**2).mean()) == pytest.approx(after["data_misfit"], rel=0.15)
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "starts.csv").read_text().startswith("image,excess_misfit")


def test_enhance_in_another_order(head: Head, operator: Path, tiny_models: tuple[str, str], tmp_path: Path) -> None:
    """The same head with its axes swapped and turned in the file gives the same image."""
    images = []
    for orientation in ("RAS", "ALS"):
        scan = write_raw(tmp_path / f"{orientation}.npz", head, orientation=orientation)
        out = tmp_path / orientation
        options = ("--voxel-size", "3,3,10", "--orientation", orientation, "--mask", "classical", "--operator", operator)
        assert run(scan, out, tiny_models, *options) == 0
        images.append(load(out / "measurement.nii.gz").data)
    shape = np.minimum(images[0].shape, images[1].shape)
    first, second = (image[: shape[0], : shape[1], : shape[2]] for image in images)
    assert max(np.corrcoef(first.ravel(), np.roll(second, shift, 0).ravel())[0, 1] for shift in (-1, 0, 1)) > 0.95


def test_operator_from_kspace(head: Head, tiny_models: tuple[str, str], mask: Path, tmp_path: Path) -> None:
    scan = write_raw(tmp_path / "raw.npz", head, voxel_size_mm=[3.0, 3.0, 10.0])
    out = tmp_path / "operator" / "found.json"
    assert main(["calibrate", "operator", str(scan), "--out", str(out), "--mask", str(mask), "--conditional", tiny_models[1]]) == 0
    found = json.loads(out.read_text())
    assert found["noise_std"] * found["intensity_scale"] == pytest.approx(NOISE, rel=0.1)
    assert found["in_plane_factor"] == pytest.approx(3.0)
    again = tmp_path / "again"
    assert run(scan, again, tiny_models, "--operator", out, "--mask", mask) == 0


def test_rerun_gives_the_same(head: Head, operator: Path, mask: Path, tiny_models: tuple[str, str], tmp_path: Path) -> None:
    scan = write_raw(tmp_path / "raw.npz", head)
    out = tmp_path / "out"
    assert run(scan, out, tiny_models, "--operator", operator, "--mask", mask, "--voxel-size", "3,3,10") == 0
    again = tmp_path / "again"
    assert main(["rerun", str(out / "run.json"), "--out", str(again)]) == 0
    for name in FILES:
        assert (again / f"{name}.nii.gz").read_bytes() == (out / f"{name}.nii.gz").read_bytes()
    truth = tmp_path / "truth.nii.gz"
    shutil.copy(out / "enhanced_brain.nii.gz", truth)
    command = ["evaluate", str(out / "enhanced_brain.nii.gz"), "--truth", str(truth), "--out", str(tmp_path / "judged")]
    assert main([*command, "--measurement", str(out / "measurement.nii.gz"), "--operator", str(operator)]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "how large"),
        (("--voxel-size", "3,3"), "three numbers"),
        (("--voxel-size", "3,3,thick"), "--voxel-size"),
        (("--voxel-size", "3,3,10", "--array", "raw"), "no array 'raw'"),
        (("--voxel-size", "3,3,10", "--orientation", "RAR"), "orientation"),
        (("--voxel-size", "3,3,10", "--series", "2"), "series 2"),
    ],
)
def test_bad_options(
    options: tuple[str, ...], message: str, head: Head, operator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_raw(tmp_path / "raw.npz", head)
    assert main(["enhance", str(scan), "--out", str(tmp_path / "out"), "--operator", str(operator), *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", [("--voxel-size", "1,1,5"), ("--array", "kspace"), ("--orientation", "RAS")])
@pytest.mark.parametrize("command", [("enhance",), ("calibrate", "operator")])
def test_options_of_kspace_with_an_image(
    option: tuple[str, str], command: tuple[str, ...], head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = head.volume.save(tmp_path / "scan.nii.gz")
    out = tmp_path / ("out" if command == ("enhance",) else "out.json")
    assert main([*command, str(scan), "--out", str(out), *option]) == 2
    assert f"{option[0]} is given" in " ".join(capsys.readouterr().err.split())


def test_another_layout(operator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "raw.npz", kspace=np.ones((8, 8, 4)), voxel_size_mm=[3.0, 3.0, 10.0])
    assert main(["enhance", str(tmp_path / "raw.npz"), "--out", str(tmp_path / "out"), "--operator", str(operator)]) == 2
    assert "complex" in capsys.readouterr().err


def test_ismrmrd_leaves_no_trace_of_the_person(
    head: Head, operator: Path, tiny_models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ismrmrd", reason="needs ismrmrd: pip install 'dynamicdps[ismrmrd]'")
    raw = make_raw(head.volume)
    # Left and back in the file: turned to right and front, it is the head.
    directions = np.diag([-1.0, -1.0, 1.0])
    path = write_ismrmrd(
        tmp_path / "raw.h5",
        raw.images,
        field_of_view=(180.0, 210.0),
        thickness=10.0,
        distance=10.0,
        directions=directions,
        noise=NOISE,
        position=(0.0, 0.0, -10.0),
    )
    out = tmp_path / "out"
    mask = head.volume.with_data(head.brain.astype(np.float32)).save(tmp_path / "mask.nii.gz")
    assert run(path, out, tiny_models, "--operator", operator, "--mask", mask) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["acquisition"]["slice_thickness_mm"] == 10.0
    assert record["kspace"]["unexplained"] < 1.5
    whole = load(out / "brain_mask.nii.gz")
    assert whole.shape == head.volume.shape
    printed = capsys.readouterr()
    assert not leaks(out, printed.out + printed.err)
    text = "".join(
        path.read_text(encoding="utf-8", errors="replace") for path in out.iterdir() if path.suffix in (".json", ".csv", ".html")
    )
    assert not [word for word in WORDS if word in text]
