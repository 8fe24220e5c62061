"""Figures of summary.json and table.md against hand-made rows and other libraries."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dynamicdps.evaluation.benchmark import Results, markdown_tables, read_results, summarise, write_results
from dynamicdps.evaluation.benchmark.lesion_summary import summarise_lesions
from dynamicdps.evaluation.benchmark.summary import relative_change
from dynamicdps.evaluation.benchmark.tables import lesions_table, markdown_table, winners_table
from tests.evaluation.benchmark.made import CONDITION, benchmark, hallucination, lesion, row, volume

PSNR = {
    "conditional": [20.0, 21.0, 22.0, 20.5, 23.0, 21.5, 22.5],
    "data-step": [21.0, 21.9, 23.1, 21.2, 24.3, 22.1, 23.0],
    "dynamicdps": [24.0, 25.3, 25.1, 24.9, 26.0, 25.4, 26.8],
}
ERRORS = {
    "conditional": [0.20, 0.30, 0.10, 0.25, 0.15, 0.22, 0.18],
    "data-step": [0.152, 0.307, 0.081, 0.196, 0.104, 0.205, 0.193],
    "dynamicdps": [0.100, 0.213, 0.111, 0.124, 0.092, 0.135, 0.127],
}


@pytest.fixture
def results() -> Results:
    return benchmark(PSNR, ERRORS)


def test_means_and_differences(results: Results) -> None:
    summary = summarise(results)
    assert (summary["subjects"], summary["slices"]) == (7, 7)
    entry = summary["conditions"][CONDITION]["dynamicdps"]
    assert entry["psnr"]["mean"] == pytest.approx(np.mean(PSNR["dynamicdps"]))
    assert entry["gm_error"]["mean"] == pytest.approx(-np.mean(ERRORS["dynamicdps"]))
    assert entry["abs_volume_error"]["mean"] == pytest.approx(np.mean(ERRORS["dynamicdps"]))
    low, high = entry["psnr"]["interval"]
    assert min(PSNR["dynamicdps"]) < low < entry["psnr"]["mean"] < high < max(PSNR["dynamicdps"])
    better, ssim, error = (entry["against_conditional"][name] for name in ("psnr", "ssim", "abs_volume_error"))
    assert better["mean"] == pytest.approx(np.subtract(PSNR["dynamicdps"], PSNR["conditional"]).mean())
    assert better["share_better"] == 1
    assert ssim["share_better"] == 0.5, "ties"
    # One subject of seven has a larger error, and less is better.
    assert error["share_better"] == pytest.approx(6 / 7)
    assert error["p_value"] == pytest.approx(stats.wilcoxon(ERRORS["dynamicdps"], ERRORS["conditional"]).pvalue)
    assert error["change_percent"] == pytest.approx(100 * (sum(ERRORS["dynamicdps"]) / sum(ERRORS["conditional"]) - 1))
    low, high = error["change_percent_interval"]
    assert low < error["change_percent"] < high < 0
    assert "change_percent" not in better
    assert "against_conditional" not in summary["conditions"][CONDITION]["conditional"]
    assert set(entry) & {"against_conditional", "against_data-step", "against_dynamicdps"} == {"against_conditional", "against_data-step"}


def test_slices_of_a_subject_count_once() -> None:
    results = Results([row("a", "x", 10.0, number=i) for i in range(3)] + [row("b", "x", 20.0)])
    summary = summarise(results)
    assert (summary["subjects"], summary["slices"]) == (2, 4)
    assert summary["conditions"][CONDITION]["x"]["psnr"]["mean"] == 15


def test_p_values_are_adjusted_over_solvers_and_conditions() -> None:
    """Holm's smallest p value is multiplied by the size of the family: of one measure and one reference, all solvers and conditions."""
    results = benchmark(PSNR, ERRORS)
    for solver, values in PSNR.items():
        results.rows += [row(f"sub-{i}", solver, value - 0.1 * i, condition="unet/other") for i, value in enumerate(values)]
    conditions = summarise(results)["conditions"]
    raw = {
        (c, s): e["against_conditional"]["psnr"]
        for c, solvers in conditions.items()
        for s, e in solvers.items()
        if "against_conditional" in e
    }
    assert len(raw) == 4
    smallest = min(entry["p_value"] for entry in raw.values())
    assert smallest == pytest.approx(2 / 2**7)
    assert min(entry["p_holm"] for entry in raw.values()) == pytest.approx(4 * smallest)
    assert all(entry["p_holm"] >= entry["p_value"] for entry in raw.values())
    # Tissue volumes were measured in one condition: another family.
    family = [e["against_conditional"]["abs_volume_error"] for e in conditions[CONDITION].values() if "against_conditional" in e]
    assert min(entry["p_holm"] for entry in family) == pytest.approx(2 * min(entry["p_value"] for entry in family))


def test_failed_reconstructions_are_left_out_and_counted() -> None:
    results = benchmark({"conditional": [20.0, 21.0, 22.0], "x": [25.0, math.nan, 27.0]}, {"conditional": [0.1] * 3, "x": [0.1] * 3})
    entry = summarise(results)["conditions"][CONDITION]["x"]
    assert entry["psnr"] | {"interval": None} == {"mean": 26.0, "interval": None, "subjects": 2}
    assert entry["subjects"] == 3
    assert entry["against_conditional"]["psnr"]["subjects"] == 2


def test_tables_without_volumes_have_no_columns_for_them(results: Results) -> None:
    summary = summarise(Results(results.rows))
    assert "volume error" not in winners_table(summary)
    assert "PSNR" in winners_table(summary)
    assert len(markdown_table(summary).splitlines()) == 2 + len(PSNR)


def test_change_of_a_mean() -> None:
    theirs = np.array([2.0, 4.0, 6.0])
    found = relative_change(0.7 * theirs, theirs, np.random.default_rng(0))
    assert found["change_percent"] == pytest.approx(-30)
    assert found["change_percent_interval"] == pytest.approx([-30, -30])
    assert relative_change(theirs, 0 * theirs, np.random.default_rng(0)) == {"change_percent": None, "change_percent_interval": None}
    assert relative_change(theirs, np.array([0.0, 0.0, 1.0]), np.random.default_rng(0))["change_percent"] == pytest.approx(1100)


def cells(table: str, solver: str, condition: str = CONDITION) -> dict[str, list[str]]:
    """A line of a Markdown table by its header; columns of one name in order."""
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines())
    (line,) = (line for line in lines if condition in line and solver in line)
    found: dict[str, list[str]] = {}
    for name, cell in zip(header, line, strict=True):
        found.setdefault(name, []).append(cell)
    return found


def test_every_figure_of_the_table_comes_from_the_rows(results: Results, tmp_path: Path) -> None:
    """Recomputed from the CSV files alone, without the summary."""
    write_results(tmp_path, results)
    read = read_results(tmp_path)
    text = markdown_tables(summarise(results, {CONDITION: {"training": "out"}}))
    line = cells(text.split("\n\n")[1], "dynamicdps")
    assert line["trained"] == ["out"]
    assert line["PSNR dB"] == [f"**{np.mean([r.psnr for r in read.rows if r.solver == 'dynamicdps']):.2f}**"]
    errors = {
        solver: np.mean([[abs(getattr(v, f"{t}_error")) for t in ("csf", "gm", "wm")] for v in read.volumes if v.solver == solver], axis=1)
        for solver in PSNR
    }
    assert line["volume error"] == [f"**{100 * errors['dynamicdps'].mean():.1f} %**"]
    p = {solver: stats.wilcoxon(errors[solver], errors["conditional"]).pvalue for solver in ("data-step", "dynamicdps")}
    holm = min(1.0, max(2 * p["dynamicdps"], p["data-step"] if p["data-step"] < p["dynamicdps"] else 0))
    assert p["dynamicdps"] < p["data-step"]
    change, false_change = line["change"]
    percent = 100 * (errors["dynamicdps"].mean() / errors["conditional"].mean() - 1)
    assert change.startswith(f"{percent:+.0f} % (")
    assert change.endswith(f", p {holm:.2g}")
    draws = np.random.default_rng(0).integers(7, size=(2000, 7))
    bounds = np.percentile(100 * (errors["dynamicdps"][draws].mean(1) / errors["conditional"][draws].mean(1) - 1), [2.5, 97.5])
    assert f"({bounds[0]:+.0f} to {bounds[1]:+.0f})" in change
    null = {s: np.mean([h.null_rms for h in read.hallucination if h.solver == s]) for s in PSNR}
    assert line["null-space error, change"][0].startswith(f"{100 * (null['dynamicdps'] / null['conditional'] - 1):+.0f} % ")
    false = {s: np.mean([h.false_mm3 for h in read.hallucination if h.solver == s]) for s in PSNR}
    assert line["false structures mm3"] == [f"{false['dynamicdps']:.0f}"]
    assert false_change.startswith(f"{false['dynamicdps'] - false['conditional']:+.0f} (")
    long = cells(text.split("\n\n")[4], "dynamicdps")
    gain = np.subtract(PSNR["dynamicdps"], PSNR["conditional"])
    bounds = np.percentile(gain[draws].mean(1), [2.5, 97.5])
    assert long["PSNR against conditional"] == [f"{gain.mean():+.2f} ({bounds[0]:+.2f} to {bounds[1]:+.2f})"]


def test_lesions() -> None:
    results = Results(lesions=[])
    for i, (theirs, ours) in enumerate(((0.2, 0.9), (0.4, 1.1), (0.8, 0.9))):
        for solver, kept in (("conditional", theirs), ("dynamicdps", ours)):
            results.lesions += [
                lesion(f"sub-{i}", solver, kept),
                lesion(f"sub-{i}", solver, kept + 0.1, number=2, contrast=0.2),
                lesion(f"sub-{i}", solver, 5.0, number=3, resolvable=False),
            ]
    summary = summarise_lesions(results)
    ours, theirs = summary[CONDITION]["dynamicdps"], summary[CONDITION]["conditional"]
    assert (ours["subjects"], ours["lesions"], ours["resolvable"]) == (3, 9, 6)
    assert ours["kept"]["mean"] == pytest.approx(np.mean([0.95, 1.15, 0.95]))
    assert ours["kept_dark"]["mean"] == pytest.approx(np.mean([0.9, 1.1, 0.9]))
    assert ours["kept_bright"]["mean"] == pytest.approx(np.mean([1.0, 1.2, 1.0]))
    assert ours["measured"]["mean"] == pytest.approx(0.9)
    assert ours["kept_of_measured"]["mean"] == pytest.approx(np.mean([0.95, 1.15, 0.95]) / 0.9)
    assert ours["kept_unresolvable"]["mean"] == 5
    assert (ours["lost"]["mean"], theirs["lost"]["mean"]) == (0, pytest.approx(0.5))
    error = [np.mean([0.1, 0.0]), np.mean([0.1, 0.2]), np.mean([0.1, 0.0])]
    before = [np.mean([0.8, 0.7]), np.mean([0.6, 0.5]), np.mean([0.2, 0.1])]
    assert ours["kept_error"]["mean"] == pytest.approx(np.mean(error))
    assert ours["against_conditional"]["mean"] == pytest.approx(np.mean(np.subtract(error, before)))
    assert ours["against_conditional"]["share_better"] == 1
    assert ours["against_conditional"]["p_holm"] == ours["against_conditional"]["p_value"] == 0.25
    line = cells(lesions_table({"lesions": summary}), "dynamicdps")
    assert line["kept"] == [f"{ours['kept']['mean']:.2f}"]
    assert line["lost"] == ["0%"]
    assert cells(lesions_table({"lesions": summary}), "conditional")["lost"] == ["50%"]
    assert line["lesions (resolvable)"] == ["9 (6)"]


def test_a_subject_of_another_benchmark_is_not_compared() -> None:
    results = Results(
        [row("a", "conditional", 1.0), row("b", "x", 2.0)],
        [volume("a", "conditional", (0.1, 0.1, 0.1)), volume("b", "x", (0.1, 0.1, 0.1))],
        [hallucination("a", "conditional", 0.1, 0.0), hallucination("b", "x", 0.1, 0.0)],
    )
    assert summarise(results)["conditions"][CONDITION]["x"]["against_conditional"] == {}
    assert winners_table(summarise(results))
