"""`dynamicdps benchmark`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from dynamicdps.cli.commands import Benchmark
from dynamicdps.cli.progress import out, progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import benchmark_table
from dynamicdps.conditional import CONDITIONAL_KINDS
from dynamicdps.errors import InputError, reason_of
from dynamicdps.evaluation.benchmark import (
    REFERENCES,
    Cell,
    Condition,
    Results,
    Sampling,
    Step,
    check_subjects,
    find_condition,
    read_finished,
    run_benchmark,
    variant,
    write_benchmark,
    write_conditions,
    write_results,
    write_slices,
)
from dynamicdps.evaluation.benchmark.conditions import SHORT_NAMES
from dynamicdps.json_file import read_json, write_json
from dynamicdps.models.model_file import read_model
from dynamicdps.operators import PRESETS, LowField, ScanOperator
from dynamicdps.operators.presets import read_degradations
from dynamicdps.pipeline.enhancement import open_prior
from dynamicdps.pipeline.model_fit import check_contrast
from dynamicdps.report.benchmark_index import write_benchmark_index
from dynamicdps.volumes import load

# Where the table goes to a file or another program.
TABLE_WIDTH = 100


def read_conditions(text: str, degradations: Mapping[str, ScanOperator]) -> list[Condition]:
    """Conditions ``MODEL/DEGRADATION`` separated by commas.

    Raises:
        InputError: there is none, or as `find_condition`.
    """
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InputError("there is no condition; expected some MODEL/DEGRADATION such as unet/iqt-out; change --conditions")
    return [find_condition(name, degradations) for name in names]


def of_contrast(condition: Condition, contrast: str) -> Condition:
    """A condition for scans of a contrast: of another one than T1w the scanner's own contrast is the image's.

    Raises:
        InputError: its conditional model was trained on another contrast.
    """
    if contrast == "T1w":
        return condition
    if condition.model_hash:
        name = condition.name.rpartition("/")[0]
        check_contrast(contrast, read_model(SHORT_NAMES.get(name, name), CONDITIONAL_KINDS))
    scanner = condition.scanner
    if not isinstance(scanner.operator, LowField):
        return condition
    return replace(condition, scanner=replace(scanner, operator=replace(scanner.operator, gamma=1.0)))


def read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """Settings by solver from a JSON file.

    Raises:
        InputError: the file is missing or is not an object of objects.
    """
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f'{path} cannot be read ({reason_of(error)}); expected JSON such as {{"dps": {{"step": 1}}}}; change --settings'
        ) from error
    if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
        raise InputError(f'{path} holds something else; expected JSON such as {{"dps": {{"step": 1}}}}; change --settings')
    return values


def resume(arguments: Benchmark, prior_hash: str, settings: dict[str, dict[str, Any]]) -> Results:
    """Rows of an earlier run in the same folder, if it was the same benchmark; what makes it the same is noted in benchmark.json.

    Raises:
        InputError: the folder holds another benchmark, or that of an older version.
    """
    made_by: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("slices_per_scan", "slab", "neighbours", "lesions", "precision", "seed")
    }
    made_by |= {"prior": prior_hash, "settings": settings}
    if arguments.contrast is not None:
        made_by["contrast"] = arguments.contrast
    note, finished = arguments.out / "benchmark.json", read_finished(arguments.out)
    if finished.rows:
        if not note.exists() or json.loads(note.read_text(encoding="utf-8")) != made_by:
            raise InputError(f"{arguments.out} holds a benchmark with other settings; expected the same to continue; choose another --out")
        return finished
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(note, made_by)
    return finished


def check(arguments: Benchmark) -> None:
    """Refuse what no benchmark can be made of.

    Raises:
        InputError: there is no scan, one cannot be read, two scans have one subject's name, or a number is out of its range.
    """
    if not arguments.scans:
        raise InputError("there is no scan to test on; expected at least one SCAN; name skull-stripped T1w files")
    if arguments.lesions and arguments.contrast not in (None, "T1w"):
        raise InputError(f"--lesions is given with --contrast {arguments.contrast}; expected T1w, whose lesions they are; leave one out")
    check_subjects(arguments.scans)
    for scan in arguments.scans:
        load(scan)
    for name, least in (("slices_per_scan", 1), ("slab", 1), ("lesions", 0)):
        if getattr(arguments, name) < least:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected at least {least}")


def run(arguments: Benchmark) -> None:
    check(arguments)
    solvers = list(dict.fromkeys(name for name in arguments.solvers.split(",") if name))
    settings = read_settings(arguments.settings) if arguments.settings else {}
    for label in (*settings, *solvers):
        variant(label, settings)
    own = read_degradations(arguments.degradations) if arguments.degradations else {}
    conditions = [of_contrast(each, arguments.contrast or "T1w") for each in read_conditions(arguments.conditions, {**PRESETS, **own})]
    prior_hash = read_model(arguments.prior, "prior").card["sha256"]
    prior = open_prior(arguments.prior, "cpu", arguments.precision, arguments.contrast)
    finished = resume(arguments, prior_hash, settings)
    known = write_conditions(arguments.out, conditions)
    with recorded(arguments.out, "benchmark", arguments) as record:
        record.facts["models"] = {"prior": prior_hash, **{c.name: c.model_hash for c in conditions if c.model_hash}}
        done = Results()
        done.add(finished)

        def keep(cell: Cell) -> None:
            done.add(cell.results)
            write_slices(arguments.out, cell, REFERENCES)
            write_results(arguments.out, done)

        with progress_bar("benchmark", "reconstructions") as bar, record.timed("benchmark"):
            results = run_benchmark(
                arguments.scans,
                conditions,
                solvers,
                prior,
                sampling=Sampling(arguments.slices_per_scan, arguments.slab, arguments.neighbours),
                lesions=arguments.lesions,
                settings=settings,
                seed=arguments.seed,
                contrast=arguments.contrast or "T1w",
                finished=finished,
                on_cell=keep,
                progress=lambda step: bar(step.done, step.planned, note=time_left(step)),
            )
        with record.timed("summary"):
            summary = write_benchmark(arguments.out, results, known)
            write_benchmark_index(arguments.out, results, summary, {**FILES, "conditions.json": "what each condition is"})
    wide_enough = out if out.is_terminal else Console(highlight=False, width=TABLE_WIDTH)
    wide_enough.print(benchmark_table(summary))
    for name, holds in {"index.html": "all of it as a page", **FILES}.items():
        if (arguments.out / name).exists():
            say(f"{arguments.out / name}: {holds}")


FILES = {
    "table.md": "who wins, and all means",
    "figures": "figures",
    "summary.json": "means, intervals, paired differences",
    "results.csv": "a row an image",
    "volumes.csv": "tissue volumes, a row a subject",
    "hallucination.csv": "what is invented or lost, a row a subject",
    "lesions.csv": "a row a lesion",
}


def time_left(step: Step) -> str:
    """How long the benchmark will go on, in words; empty at its end."""
    if step.done == step.planned:
        return ""
    if step.seconds_left < 90:
        return f"about {step.seconds_left:.0f} s to go"
    minutes = step.seconds_left / 60
    return f"about {minutes:.0f} min to go" if minutes < 90 else f"about {minutes / 60:.1f} h to go"
