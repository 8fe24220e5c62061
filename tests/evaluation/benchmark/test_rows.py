import math
from pathlib import Path

import pytest

from dynamicdps.evaluation.benchmark import (
    HallucinationRow,
    LesionRow,
    Results,
    Row,
    VolumeRow,
    merged,
    read_finished,
    read_results,
    read_rows,
    read_table,
    write_results,
    write_table,
)
from tests.evaluation.benchmark.made import hallucination, lesion, row, volume
from tests.properties import input_error

ROOT = Path(__file__).parents[3]


def test_tables_round_trip(tmp_path: Path) -> None:
    results = Results(
        [row("a", "x", 0.1 + 0.2), row("a", "x", -1e-17, number=3)],
        [volume("a", "x", (1 / 3, -0.25, 1e-9))],
        [hallucination("a", "x", 2 / 3, 14.0)],
        [lesion("a", "x", 0.5), lesion("a", "x", 1.5, number=2, resolvable=False)],
    )
    write_results(tmp_path, results)
    again = read_results(tmp_path)
    assert (again.rows, again.volumes, again.lesions) == (results.rows, results.volumes, results.lesions)
    (found,), (made,) = again.hallucination, results.hallucination
    assert math.isnan(found.hallucination_index)
    assert found.null_rms == made.null_rms
    assert not list(tmp_path.glob(".partial*"))
    assert [line.rsplit(",", 1)[1] for line in (tmp_path / "lesions.csv").read_text().splitlines()] == ["resolvable", "yes", "no"]


def test_the_columns_of_the_contract(tmp_path: Path) -> None:
    def header(kind: type) -> str:
        write_table(tmp_path / "t.csv", [], kind)
        return (tmp_path / "t.csv").read_text().strip()

    assert header(Row) == "subject,slice,condition,solver,psnr,ssim,nrmse,data_misfit,nfe,nbackward,start_sigma,seconds,batch_size"
    assert header(VolumeRow).startswith("subject,condition,solver,csf,gm,wm,csf_error,gm_error,wm_error,dice")
    assert header(HallucinationRow).startswith("subject,condition,solver,null_rms,measurement_rms,")
    assert header(LesionRow).startswith("subject,condition,solver,lesion,")


def test_rows_of_older_benchmarks_are_read_and_written_as_they_were(tmp_path: Path) -> None:
    old = (ROOT / "benchmarks" / "results" / "results.csv").read_bytes()
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        folder.mkdir()
    (first / "results.csv").write_bytes(old)
    results = read_results(first)
    assert len(results.rows) == len(old.splitlines()) - 1
    assert not results.volumes
    write_results(again, results)
    assert (again / "results.csv").read_bytes() == old
    assert [path.name for path in again.iterdir()] == ["results.csv"]


def test_a_folder_without_the_new_tables_is_not_continued(tmp_path: Path) -> None:
    assert read_finished(tmp_path).rows == []
    write_table(tmp_path / "results.csv", [row("a", "x", 1.0)], Row)
    with input_error("no volumes.csv and no hallucination.csv"):
        read_finished(tmp_path)
    write_table(tmp_path / "volumes.csv", [volume("a", "x", (0, 0, 0))], VolumeRow)
    with input_error("no hallucination.csv"):
        read_finished(tmp_path)


def test_half_a_cell_is_done_again() -> None:
    """Results.csv is written last: a cell that another table lacks, or has alone, was cut off."""
    results = Results(
        [row("a", "x", 1.0), row("a", "y", 1.0)],
        [volume("a", "truth", (0, 0, 0)), volume("a", "x", (0, 0, 0)), volume("b", "truth", (0, 0, 0)), volume("b", "x", (0, 0, 0))],
        [hallucination("a", "x", 0.1, 0.0), hallucination("b", "x", 0.1, 0.0)],
        [lesion("a", "x", 1.0), lesion("b", "x", 1.0)],
    )
    whole = results.complete()
    assert whole.cells == {("a", "unet/iqt-out", "x")}
    assert [(v.subject, v.solver) for v in whole.volumes] == [("a", "truth"), ("a", "x")]
    assert [h.subject for h in whole.hallucination] == ["a"]
    assert [r.subject for r in whole.lesions] == ["a"]


def test_merging() -> None:
    """One subject's solvers from two folders, with the truth once; a cell that both have counts once."""
    first = Results(
        [row("a", "x", 1.0)], [volume("a", "truth", (0, 0, 0)), volume("a", "x", (0, 0, 0))], [hallucination("a", "x", 0.1, 0.0)]
    )
    second = Results(
        [row("a", "x", 9.0), row("a", "y", 2.0)],
        [volume("a", "truth", (0, 0, 0)), volume("a", "x", (0, 0, 0)), volume("a", "y", (0, 0, 0))],
        [hallucination("a", "x", 0.1, 0.0), hallucination("a", "y", 0.1, 0.0)],
        [lesion("a", "y", 1.0)],
    )
    whole = merged([first, second])
    assert [r.psnr for r in whole.rows] == [1, 2]
    assert [v.solver for v in whole.volumes] == ["truth", "x", "y"]
    assert [h.solver for h in whole.hallucination] == ["x", "y"]
    assert len(whole.lesions) == 1


@pytest.mark.parametrize("text", ["", "hello", "subject,slice\na,1\n", "\x00"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text)
    with input_error("results.csv"):
        read_rows(path)
    with input_error("missing.csv"):
        read_table(tmp_path / "missing.csv", Row)
