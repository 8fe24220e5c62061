"""Solvers side by side on good scans under simulated degradations: fidelity, hallucination, tissue volumes, lesions."""

from dynamicdps.evaluation.benchmark.conditions import Condition, Interpolation, find_condition, training_match
from dynamicdps.evaluation.benchmark.cut import chosen_slices, middle_slices, subject_name
from dynamicdps.evaluation.benchmark.folder import (
    merge_conditions,
    read_conditions,
    read_finished,
    read_results,
    write_conditions,
    write_results,
    write_slices,
)
from dynamicdps.evaluation.benchmark.rows import (
    HallucinationRow,
    LesionRow,
    Results,
    Row,
    VolumeRow,
    merged,
    read_rows,
    read_table,
    write_table,
)
from dynamicdps.evaluation.benchmark.run import Sampling, Step, check_subjects, run_benchmark, variant
from dynamicdps.evaluation.benchmark.scene import Cell
from dynamicdps.evaluation.benchmark.summary import REFERENCES, summarise
from dynamicdps.evaluation.benchmark.tables import markdown_table, markdown_tables
from dynamicdps.evaluation.benchmark.write import write_benchmark

__all__ = [
    "REFERENCES",
    "Cell",
    "Condition",
    "HallucinationRow",
    "Interpolation",
    "LesionRow",
    "Results",
    "Row",
    "Sampling",
    "Step",
    "VolumeRow",
    "check_subjects",
    "chosen_slices",
    "find_condition",
    "markdown_table",
    "markdown_tables",
    "merge_conditions",
    "merged",
    "middle_slices",
    "read_conditions",
    "read_finished",
    "read_results",
    "read_rows",
    "read_table",
    "run_benchmark",
    "subject_name",
    "summarise",
    "training_match",
    "variant",
    "write_benchmark",
    "write_conditions",
    "write_results",
    "write_slices",
    "write_table",
]
