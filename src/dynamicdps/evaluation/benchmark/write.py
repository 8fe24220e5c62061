"""What a benchmark leaves behind: summary.json, table.md and the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynamicdps.atomic_file import write_text
from dynamicdps.evaluation.benchmark.examples import example_figures
from dynamicdps.evaluation.benchmark.figures import cost_figures, lesion_figures, paired_figures, volume_figures
from dynamicdps.evaluation.benchmark.folder import write_results
from dynamicdps.evaluation.benchmark.lesion_summary import summarise_lesions
from dynamicdps.evaluation.benchmark.rows import Results
from dynamicdps.evaluation.benchmark.summary import measured, summarise
from dynamicdps.evaluation.benchmark.tables import markdown_tables
from dynamicdps.json_file import write_json

FIGURES = "figures"


def write_benchmark(
    out: Path, results: Results, conditions: Mapping[str, Any] | None = None, slices: Sequence[Path] | None = None
) -> dict[str, Any]:
    """Write the tables, summary.json, table.md and the figures into a folder.

    Args:
        out: the folder.
        results: all rows.
        conditions: what `write_conditions` notes.
        slices: folders with slices for the example figures; by default `out`.

    Returns:
        The summary.
    """
    write_results(out, results)
    summary = summarise(results, conditions)
    if results.lesions:
        summary["lesions"] = summarise_lesions(results)
    write_json(out / "summary.json", summary)
    write_text(out / "table.md", markdown_tables(summary))
    write_figures(out, results, slices)
    return summary


def write_figures(out: Path, results: Results, slices: Sequence[Path] | None = None) -> list[Path]:
    """Draw the figures; arguments as `write_benchmark`."""
    folder, numbers = out / FIGURES, measured(results)
    return [
        *paired_figures(numbers, folder),
        *cost_figures(numbers, folder),
        *volume_figures(numbers, folder),
        *lesion_figures(results, folder),
        *example_figures(numbers, [out] if slices is None else slices, folder),
    ]
