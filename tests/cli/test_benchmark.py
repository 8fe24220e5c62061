"""`dynamicdps benchmark`: its files, its table, and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dynamicdps.cli import main
from dynamicdps.cli.run_benchmark import time_left
from dynamicdps.cli.table import benchmark_table
from dynamicdps.evaluation.benchmark import Step, summarise
from tests.conftest import make_phantom
from tests.evaluation.benchmark.made import benchmark

TABLES = ("results.csv", "volumes.csv", "hallucination.csv", "lesions.csv")
OPTIONS = ["--conditions", "identity/iqt-out,identity/mine", "--solvers", "conditional,data-step", "--slices-per-scan", "2"]


@pytest.fixture
def scans(tmp_path: Path) -> list[str]:
    return [str(make_phantom((40, 48, 8), seed=i).save(tmp_path / f"scans/sub-{i}.nii.gz")) for i in range(2)]


@pytest.fixture
def degradations(tmp_path: Path) -> str:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"mine": {"about": "twice as long", "type": "InPlaneResolution", "factor": 2.0, "noise_std": 0.02}}))
    return str(path)


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "expected" in line
    return line


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return [{key: value for key, value in line.items() if key != "seconds"} for line in csv.DictReader(file)]


def test_files_and_table(scans: list[str], degradations: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the same, the second time stopped in between."""
    command = ["benchmark", *scans, *OPTIONS, "--degradations", degradations, "--lesions", "2"]
    out, again = tmp_path / "out", tmp_path / "again"
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if str(tmp_path) not in line]
    assert max(map(len, table)) <= 100
    assert any("identity/iqt-out (untrained)" in line for line in table)
    for name in (*TABLES, "table.md", "summary.json", "figures"):
        assert (out / name).exists()
        assert str(out / name) in printed
    assert len(rows(out, "results.csv")) == 2 * 2 * 2 * 2
    assert len(rows(out, "volumes.csv")) == 2 * 2 * 3
    assert len(rows(out, "hallucination.csv")) == 2 * 2 * 2
    summary = json.loads((out / "summary.json").read_text())
    assert summary["training"] == {"identity/iqt-out": "untrained", "identity/mine": "untrained"}
    assert set(summary["lesions"]["identity/mine"]) == {"conditional", "data-step"}
    assert json.loads((out / "conditions.json").read_text())["identity/mine"]["operator"]["factor"] == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynamicdps.cli.run_benchmark.write_slices", stop_at(5))
        with pytest.raises(RuntimeError):
            main([*command, "--out", str(again)])
    assert len(rows(again, "hallucination.csv")) == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynamicdps.evaluation.benchmark.write.write_figures", lambda *arguments: [])
        assert main([*command, "--out", str(again)]) == 0
    for name in TABLES:
        assert rows(again, name) == rows(out, name), name
    assert "other settings" in refused([*command, "--out", str(out), "--neighbours"], capsys)
    assert "other settings" in refused([*command[:-2], "--lesions", "1", "--out", str(out)], capsys)
    changed = Path(degradations)
    changed.write_text(changed.read_text().replace("2.0", "3.0"))
    assert "identity/mine has another model or degradation" in refused([*command, "--out", str(out)], capsys)


def stop_at(count: int):  # type: ignore[no-untyped-def]
    calls = 0

    def stop(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            raise RuntimeError("the power failed")

    return stop


def test_an_older_folder(scans: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Path(__file__).parents[2] / "benchmarks" / "results"
    out = tmp_path / "old"
    out.mkdir()
    for name in ("results.csv", "benchmark.json"):
        (out / name).write_bytes((old / name).read_bytes())
    before = (out / "results.csv").read_bytes()
    line = refused(["benchmark", *scans, "--out", str(out), "--conditions", "identity/iqt-in", "--solvers", "conditional"], capsys)
    assert "has results.csv but no volumes.csv and no hallucination.csv" in line
    assert (out / "results.csv").read_bytes() == before
    assert not (out / "conditions.json").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--conditions", "identity/none"], "none"),
        (["--conditions", ","], "there is no condition"),
        (["--lesions", "-1"], "--lesions"),
        (["--degradations", "missing.json"], "missing.json"),
        (["--conditions", "identity/thick-5mm", "--lesions", "2", "--slab", "4"], "no room for lesions"),
        (["--lesions", "2", "--neighbours", "--slices-per-scan", "3"], "no room for lesions"),
        (["--solvers", "truth"], "truth"),
    ],
)
def test_bad_input(options: list[str], word: str, scans: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    default = ["--conditions", "identity/iqt-out", "--solvers", "conditional"]
    command = ["benchmark", *scans, "--out", str(tmp_path / "out"), *default]
    assert word in refused([*command, *options], capsys)
    assert not (tmp_path / "out" / "results.csv").exists()


def test_a_misspelt_degradation(scans: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"mine": {"type": "LowField", "gama": 0.5}}')
    command = ["benchmark", *scans, "--out", str(tmp_path / "out"), "--conditions", "identity/mine", "--degradations", str(path)]
    assert "gama" in refused(command, capsys)


def test_two_scans_of_one_subject(scans: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sub-0" in refused(["benchmark", scans[0], scans[0], "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


def test_the_table_fits_a_hundred_columns() -> None:
    from rich.console import Console

    solvers = {"conditional": [20.0, 21.0], "data-step": [21.0, 22.0], "dynamicdps-paper": [1e3, -1e3]}
    summary = summarise(benchmark(solvers, {solver: [0.1, 0.9] for solver in solvers}), {"unet/iqt-out": {"training": "in range"}})
    for entry in summary["conditions"]["unet/iqt-out"].values():
        entry["nfe"]["mean"] = entry["nbackward"]["mean"] = 1000.0
        entry["seconds"]["mean"] = 999.99
        entry["false_mm3"]["mean"] = 99999.0
    console = Console(width=100, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(benchmark_table(summary))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 100
    assert any("dynamicdps-paper" in line and "1000+1000" in line and "999.99" in line for line in lines), "nothing is folded"
    assert any("unet/iqt-out (in range)" in line for line in lines)


def test_time_left_in_words() -> None:
    def words(seconds: float, done: int = 1) -> str:
        return time_left(Step(done, 9, ("sub-1", "unet/iqt-in", "tv"), seconds))

    assert [words(s) for s in (80.0, 100.0, 3600.0, 5400.0)] == [
        "about 80 s to go",
        "about 2 min to go",
        "about 60 min to go",
        "about 1.5 h to go",
    ]
    assert words(0.0, done=9) == ""


def test_scans_of_another_contrast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A T2w scan whose intensities are a T1w scan's turned round has the same tissues, by their names, and its operator no curve."""
    t1w = make_phantom((40, 48, 8), seed=0)
    inside = t1w.data > 0.05
    t2w = t1w.with_data(np.where(inside, 1.2 - t1w.data, 0).astype(np.float32))
    found = {}
    for contrast, volume in (("T1w", t1w), ("T2w", t2w)):
        scan = volume.save(tmp_path / contrast / "sub-1.nii.gz")
        out = tmp_path / f"out-{contrast}"
        words = ["benchmark", str(scan), "--conditions", "identity/iqt-out", "--solvers", "conditional", "--slices-per-scan", "2"]
        assert main([*words, "--contrast", contrast, "--out", str(out)]) == 0
        found[contrast] = next(row for row in rows(out, "volumes.csv") if row["solver"] == "truth")
        gamma = json.loads((out / "conditions.json").read_text())["identity/iqt-out"]["operator"]["gamma"]
        assert gamma == (0.4 if contrast == "T1w" else 1.0)
    for tissue in ("csf", "gm", "wm"):
        assert float(found["T2w"][tissue]) == pytest.approx(float(found["T1w"][tissue]), rel=0.1)
    # The same folder is not continued in another contrast.
    again = [
        "benchmark",
        str(tmp_path / "T2w/sub-1.nii.gz"),
        *OPTIONS[2:],
        "--conditions",
        "identity/iqt-out",
        "--out",
        str(tmp_path / "out-T2w"),
    ]
    assert "other settings" in refused(again, capsys)
    given = ["benchmark", str(tmp_path / "T2w/sub-1.nii.gz"), "--out", str(tmp_path / "new"), "--contrast", "T2w"]
    assert "was trained on T1w" in refused(given, capsys)
    assert "--lesions is given with --contrast T2w" in refused([*given, "--lesions", "2"], capsys)
