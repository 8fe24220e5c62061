"""`dynamicdps benchmark`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynamicdps.cli.progress import out, progress_bar
from dynamicdps.cli.record import recorded
from dynamicdps.cli.run_enhance import open_prior
from dynamicdps.cli.table import benchmark_table
from dynamicdps.conditional import load_conditional
from dynamicdps.diffusion import read_model
from dynamicdps.diffusion.model_file import write_json
from dynamicdps.errors import InputError
from dynamicdps.evaluation.benchmark import Condition, Row, read_rows, run_benchmark, variant, write_benchmark, write_rows
from dynamicdps.operators import preset

if TYPE_CHECKING:
    from dynamicdps.cli.commands import Benchmark

SHORT_NAMES = {"unet": "unet-iqt-in", "esrgan": "esrgan-iqt-in"}


def read_conditions(text: str) -> list[Condition]:
    """Conditions ``MODEL/DEGRADATION`` separated by commas.

    Raises:
        InputError: one is not of that form, or its model or degradation does not exist.
    """
    found = []
    for name in filter(None, text.split(",")):
        model, slash, degradation = name.rpartition("/")
        if not slash:
            raise InputError(f"the condition {name!r} has no model; expected MODEL/DEGRADATION such as unet/iqt-out; change --conditions")
        found.append(Condition(name, load_conditional(SHORT_NAMES.get(model, model)), preset(degradation)))
    return found


def read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """Settings by solver from a JSON file.

    Raises:
        InputError: the file is missing or is not an object of objects.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f'{path} cannot be read ({reason}); expected JSON such as {{"dps": {{"step": 1}}}}; change --settings') from error
    if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
        raise InputError(f'{path} holds something else; expected JSON such as {{"dps": {{"step": 1}}}}; change --settings')
    return values


def resume(arguments: "Benchmark", prior_hash: str, settings: dict[str, dict[str, Any]]) -> list[Row]:
    """Rows of an earlier run in the same folder, if it was the same benchmark; what makes it the same is noted in benchmark.json.

    Raises:
        InputError: the folder holds another benchmark.
    """
    made_by: dict[str, Any] = {name: getattr(arguments, name) for name in ("slices_per_scan", "slab", "precision", "seed")}
    made_by |= {"prior": prior_hash, "settings": settings}
    note, results = arguments.out / "benchmark.json", arguments.out / "results.csv"
    if results.exists():
        if not note.exists() or json.loads(note.read_text(encoding="utf-8")) != made_by:
            raise InputError(f"{arguments.out} holds a benchmark with other settings; expected the same to continue; choose another --out")
        return read_rows(results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(note, made_by)
    return []


def run(arguments: "Benchmark") -> None:
    if not arguments.scans:
        raise InputError("there is no scan to test on; expected at least one SCAN; name skull-stripped T1w files")
    solvers = [name for name in arguments.solvers.split(",") if name]
    for name in ("slices_per_scan", "slab"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected at least 1; change it")
    settings = read_settings(arguments.settings) if arguments.settings else {}
    for label in (*settings, *solvers):
        variant(label, settings)
    conditions = read_conditions(arguments.conditions)
    prior_hash = read_model(arguments.prior, "prior").card["sha256"]
    finished = resume(arguments, prior_hash, settings)
    with recorded(arguments.out, "benchmark", arguments) as record:
        record.facts["models"] = {"prior": prior_hash}
        done = list(finished)

        def keep(cell: Sequence[Row]) -> None:
            done.extend(cell)
            write_rows(arguments.out / "results.csv", done)

        with progress_bar("benchmark", "reconstructions") as bar, record.timed("benchmark"):
            rows = run_benchmark(
                arguments.scans,
                conditions,
                solvers,
                open_prior(arguments.prior, "cpu", arguments.precision),
                slices_per_scan=arguments.slices_per_scan,
                slab=arguments.slab,
                settings=settings,
                seed=arguments.seed,
                finished=finished,
                on_cell=keep,
                progress=bar,
            )
        summary = write_benchmark(arguments.out, rows)
    out.print(benchmark_table(summary))
    out.print(f"{arguments.out / 'table.md'}")
