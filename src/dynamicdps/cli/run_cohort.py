"""`dynamicdps cohort`."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dynamicdps import __version__
from dynamicdps.cli import progress
from dynamicdps.cli.outputs import write_page
from dynamicdps.cli.progress import out, progress_bar
from dynamicdps.cli.record import recorded
from dynamicdps.cohort import (
    ClusterConfig,
    ClusterLostError,
    Summary,
    find_scans,
    job_script,
    on_cluster,
    open_client,
    plan,
    run_cohort,
)
from dynamicdps.cohort.clusters import QUEUES, require_dask
from dynamicdps.cohort.derivatives import DESCRIPTION, is_own
from dynamicdps.conditional import CONDITIONAL_KINDS
from dynamicdps.diffusion import load_prior, read_model
from dynamicdps.diffusion.held_models import holding_models
from dynamicdps.diffusion.model_file import file_hash
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json

if TYPE_CHECKING:
    from dynamicdps.cli.commands import Cohort, Enhance

# Of enhance, with the same meaning; what results depend on beside the scan and its seed.
SHARED = (
    "mask",
    "grid",
    "prior",
    "conditional",
    "operator",
    "shading",
    "solver",
    "quality",
    "samples",
    "steps",
    "estimate",
    "start_quantile",
    "start_calibration",
    "settings",
    "precision",
    "device",
)
# Of the estimate, in metrics.json.
MEASURED = ("data_misfit", "start_sigma", "nfe", "nbackward", "volumes_interval_mm3")
SHOWN_FAILURES = 20
# What a worker may need: image, posterior samples and the network's activations.
MEMORY_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class ScanEnhancer:
    """`dynamicdps enhance` for each scan of a study.

    Attributes:
        options: of `SHARED`, by name.
        models: hashes of the models and other files that they name.
    """

    options: tuple[tuple[str, Any], ...]
    models: tuple[tuple[str, str], ...]

    def __call__(self, scan: Path, folder: Path, *, source: str, seed: int) -> Mapping[str, Any]:
        """See `dynamicdps.cohort.Enhancer`; what enhance writes of times, folders and the command line is left out."""
        from dynamicdps.cli.commands import Enhance
        from dynamicdps.cli.run_enhance import run

        options = dict(self.options)
        if options["operator"] is None and not _operator_beside(scan).is_file():
            options["operator"] = "fit"
        # A worker does many scans with the same models.
        with _silent(), holding_models():
            run(Enhance(scan=scan, out=folder, seed=seed, **options))
        return _without_times(folder, source, Enhance(scan=Path(source), out=Path("out"), seed=seed, **options))

    def parameters(self) -> Mapping[str, Any]:
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in self.options}
        # Where the work is done is of no matter.
        return {"version": __version__, "models": dict(self.models)} | {name: value for name, value in plain.items() if name != "device"}


def make_enhancer(arguments: "Cohort") -> ScanEnhancer:
    """The enhancer that the arguments ask for; whatever no scan could be enhanced with is refused here, before any scan is touched.

    Raises:
        InputError: there is no such solver, model or file, or an option is wrong.
    """
    from dynamicdps.cli.commands import Enhance
    from dynamicdps.cli.run_enhance import check_device, check_options, device_kind

    # Those who submit jobs may have another machine than those who do them.
    (check_device if arguments.cluster == "local" else device_kind)(arguments.device)
    options: dict[str, Any] = {name: getattr(arguments, name) for name in SHARED}
    check_options(Enhance(Path(), Path(), **options | {"operator": arguments.operator or "fit"}))
    load_prior(arguments.prior)
    models = {
        "prior": str(read_model(arguments.prior, "prior").card["sha256"]),
        "conditional": str(read_model(arguments.conditional, CONDITIONAL_KINDS).card["sha256"]),
    }
    for name in ("mask", "grid", "prior", "conditional", "operator", "start_calibration"):
        if options[name] is not None and Path(options[name]).is_file():
            # Workers may run in other folders.
            path = Path(options[name]).resolve()
            models[f"{name} file"] = file_hash(path)
            options[name] = path if name == "start_calibration" else str(path)
    return ScanEnhancer(tuple(options.items()), tuple(models.items()))


def run(arguments: "Cohort") -> None:
    config = cluster_config(arguments)
    if arguments.show_job_script:
        _say(job_script(config).rstrip())
        return
    folder, dataset = arguments.out.resolve(), arguments.bids_dir.resolve()
    check_folder(folder, dataset, arguments.pattern)
    scans = find_scans(
        dataset,
        subjects=arguments.subject,
        sessions=arguments.session,
        acquisitions=arguments.acquisition,
        pattern=arguments.pattern,
        leave_out=folder,
    )
    enhancer = make_enhancer(arguments)
    if arguments.dry_run:
        planned = plan(scans, folder, enhancer, seed=arguments.seed)
        for each in planned:
            _say(f"{each.reason:13} {each.task.scan.source} -> {each.task.scan.folder}/{each.task.scan.name}_T1w.nii.gz")
        _say(f"{sum(each.reason != 'unchanged' for each in planned)} of {len(planned)} scans to do; nothing was written")
        return
    require_dask()
    # Whoever is refused because another run is at it leaves that run's record alone.
    with recorded(folder, "cohort", arguments) as record:
        record.facts["models"] = dict(enhancer.models)
        with open_client(config) as client, progress_bar("cohort", "scans") as bar, record.timed("cohort"):
            _announce(config, client.dashboard_link)
            try:
                summary = run_cohort(
                    scans,
                    dataset,
                    folder,
                    enhancer,
                    partial(on_cluster, client),
                    seed=arguments.seed,
                    threads=arguments.threads,
                    progress=bar,
                )
            except ClusterLostError as error:
                sys.stderr.write(f"dynamicdps: {error}; what was finished is kept; run the same command again to go on\n")
                raise SystemExit(1) from None
        record.facts |= {
            "scans": summary.scans,
            "unchanged": summary.unchanged,
            "enhanced": summary.enhanced,
            "failures": {state.name: state.reason for state in summary.failures},
        }
        _tell(summary, folder)
        if summary.failures:
            raise SystemExit(1)


def check_folder(folder: Path, dataset: Path, pattern: str | None = None) -> None:
    """Refuse a folder for the derivatives in which a dataset would be written over, or whose scans would be taken for derivatives.

    Args:
        folder: of the derivatives.
        dataset: the raw data.
        pattern: as `find_scans`.

    Raises:
        InputError: the folder is or holds the dataset, holds some of its scans, or holds another dataset.
    """
    advice = f"expected a folder of its own; choose another, such as {dataset / 'derivatives' / 'dynamicdps'}"
    if dataset.is_relative_to(folder):
        raise InputError(f"{folder} {'is' if folder == dataset else 'holds'} the dataset, whose files would be written over; {advice}")
    if folder.is_relative_to(dataset) and folder.exists() and not is_own(folder):
        inside = [scan.source for scan in find_scans(dataset, pattern=pattern) if scan.path.is_relative_to(folder)]
        if inside:
            raise InputError(f"{folder} holds scans of the dataset such as {inside[0]}, which would be left out; {advice}")
    if any((folder / name).exists() for name in DESCRIPTION) and not is_own(folder):
        raise InputError(f"{folder} holds something else than results of this command, which would be written over; {advice}")


def _say(text: str) -> None:
    # Brackets in names and messages are no markup.
    out.print(text, markup=False)


def cluster_config(arguments: "Cohort") -> ClusterConfig:
    """Workers, and the GPUs that local ones take in turn."""
    gpus = tuple(range(torch.cuda.device_count())) if arguments.cluster == "local" and arguments.device.startswith("cuda") else ()
    workers = arguments.workers
    if workers is None:
        workers = len(gpus) or (default_workers(arguments.threads) if arguments.cluster == "local" else 1)
    return ClusterConfig(
        kind=arguments.cluster,
        workers=workers,
        threads=arguments.threads,
        gpus=gpus,
        memory=arguments.memory,
        walltime=arguments.walltime,
        queue=arguments.queue,
        directives=arguments.job_directive,
        prologue=arguments.job_prologue,
    )


def default_workers(threads: int) -> int:
    """As many as cores and memory of this machine allow, 4 GB for each."""
    try:
        cores, memory = len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not everywhere known
        return 1
    return max(1, min(cores // max(1, threads), memory // MEMORY_BYTES))


def _announce(config: ClusterConfig, dashboard: str | None) -> None:
    if dashboard and find_spec("bokeh") is not None:
        _say(f"dashboard: {dashboard}")
    if config.kind == "local":
        _say(f"{config.workers} workers of {config.threads} threads on this machine")
    elif config.kind in QUEUES:
        _say(f"{config.workers} jobs of {config.threads} cores and {config.memory} each ({config.kind})")
    else:
        _say(f"scheduler: {config.kind}")


def _tell(summary: Summary, folder: Path) -> None:
    _say(f"{summary.scans} scans: {summary.enhanced} enhanced, {summary.unchanged} unchanged, {len(summary.failures)} failed")
    for state in summary.failures[:SHOWN_FAILURES]:
        _say(f"failed: {state.source}: {state.reason}")
    if len(summary.failures) > SHOWN_FAILURES:
        _say(f"{len(summary.failures) - SHOWN_FAILURES} more failures are in {folder / 'cohort.tsv'}")
    _say(f"{folder / 'cohort.tsv'}\n{folder / 'index.html'}")


def _operator_beside(scan: Path) -> Path:
    return scan.with_name(scan.name.removesuffix(".gz").removesuffix(".nii") + ".operator.json")


@contextmanager
def _silent() -> Iterator[None]:
    """Neither words nor bars of the single scan: many workers share one terminal."""
    before = [(console, console.quiet) for console in (progress.out, progress.console)]
    try:
        for console, _ in before:
            console.quiet = True
        yield
    finally:
        for console, quiet in before:
            console.quiet = quiet


def _without_times(folder: Path, source: str, arguments: "Enhance") -> dict[str, Any]:
    """Take out of run.json and metrics.json what differs from run to run, make the page again, and say what the sidecar is to hold."""
    facts: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    metrics: dict[str, dict[str, Any]] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    # Results are passed on; where models lie on this machine is nobody's concern, and their hashes say which they are.
    files = {
        str(value): Path(value).name for value in vars(arguments).values() if isinstance(value, str | Path) and Path(value).is_absolute()
    }
    facts = _renamed(facts, files)
    command = _renamed([source, "--out", "DIR", *_as_words(arguments)], files)
    facts |= {"argv": ["enhance", *command], "durations": {}}
    facts["arguments"] |= {"scan": source, "out": "DIR"}
    for stage in metrics.values():
        stage.pop("seconds", None)
    write_json(folder / "run.json", facts)
    write_json(folder / "metrics.json", metrics)
    write_page(folder)
    kept = ("operator", "solver", "settings", "models", "warnings", "initial", "brain", "versions")
    estimate = metrics.get(arguments.solver, {})
    return {
        "command": shlex.join(["dynamicdps", "enhance", *command]),
        **{name: facts[name] for name in kept if name in facts},
        **{name: estimate[name] for name in MEASURED if name in estimate},
        # Empty rather than missing where the segmentation has failed: it would fail again.
        "volumes_mm3": estimate.get("volumes_mm3", {}),
    }


def _renamed(values: Any, files: Mapping[str, str]) -> Any:
    """Plain values with other names for some files, wherever they occur."""
    if isinstance(values, str):
        for path, name in files.items():
            values = values.replace(path, name)
        return values
    if isinstance(values, list):
        return [_renamed(value, files) for value in values]
    if isinstance(values, dict):
        return {_renamed(key, files): _renamed(value, files) for key, value in values.items()}
    return values


def _as_words(arguments: "Enhance") -> list[str]:
    """Options that differ from their defaults, and the seed, as one would type them."""
    words = []
    for known in fields(arguments):
        value = getattr(arguments, known.name)
        if known.name in ("scan", "out") or (value == known.default and known.name != "seed"):
            continue
        if known.name == "settings":
            words += [word for setting in value for word in ("--set", str(setting))]
        else:
            words += [f"--{known.name.replace('_', '-')}", str(value)]
    return words
