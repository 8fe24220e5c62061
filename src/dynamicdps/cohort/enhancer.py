"""What a worker does with a scan of a study: the same as for a single scan, and files that are the same wherever it was done."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynamicdps import __version__
from dynamicdps.cohort.bids import BidsScan
from dynamicdps.conditional import CONDITIONAL_KINDS, load_conditional
from dynamicdps.extension import load_extension
from dynamicdps.models.model_cache import holding_models
from dynamicdps.models.model_file import file_hash, read_model
from dynamicdps.pipeline import EnhanceOptions, StudyOptions, enhance
from dynamicdps.pipeline.checks import FIT, check_device, check_options, device_kind
from dynamicdps.pipeline.enhancement import settings_of
from dynamicdps.pipeline.inputs import operator_beside
from dynamicdps.pipeline.options import as_words, values_of
from dynamicdps.pipeline.provenance import run_record
from dynamicdps.priors import load_prior

# Of the estimate, in the sidecar and the table.
MEASURED = ("data_misfit", "start_sigma", "nfe", "nbackward", "volumes_interval_mm3")
# Of the result, in the sidecar.
KEPT = ("operator", "scans", "solver", "settings", "models", "warnings", "initial", "brain", "versions")
FILES = ("mask", "grid", "prior", "conditional", "operator", "start_calibration", "extension")


@dataclass(frozen=True)
class ScanEnhancer:
    """`dynamicdps.pipeline.enhance` for each scan of a study; see `dynamicdps.cohort.Enhancer`.

    Attributes:
        options: of every scan; the seed is each scan's own.
        models: hashes of the models and other files that they name.
        memory: bound on the memory of each worker in GB, which results do not depend on.
        keep_all: whether all of several scans of a head are used, also one that does not show what the others show.
    """

    options: StudyOptions
    models: tuple[tuple[str, str], ...]
    memory: float | None = None
    keep_all: bool = False

    def __call__(self, scan: BidsScan, folder: Path, *, seed: int) -> Mapping[str, Any]:
        """What depends on times, folders and the machine's files is left out of the files and of what the sidecar says."""
        several = len(scan.paths) > 1
        options = EnhanceOptions(**values_of(self.options, StudyOptions) | {"seed": seed, "keep_all": self.keep_all and several})
        if options.operator is None and not any(operator_beside(path).is_file() for path in scan.paths):
            options = replace(options, operator=FIT)
        # A worker does many scans with the same models.
        with holding_models():
            result = enhance(scan.paths, replace(options, memory=self.memory))
        # Results are passed on; where models lie on this machine is nobody's concern, and their hashes say which they are.
        paths = [Path(value) for value in vars(options).values() if isinstance(value, str | Path)]
        files = {str(path): path.name for path in paths if path.is_absolute()}
        files |= dict(zip(map(str, scan.paths), scan.sources, strict=True))
        facts = _renamed(dict(result.facts), files)
        # As many slices at once as were asked for: how many this machine had room for is of no matter.
        facts["settings"] |= {name: value for name, value in settings_of(check_options(options)).items() if name == "chunk"}
        command = _renamed(["enhance", *scan.sources, "--out", "DIR", *as_words(options)], files)
        arguments = _renamed(dict(result.arguments) | {"memory": None}, files)
        metrics = {name: replace(stage, seconds=None) for name, stage in result.metrics.items()}
        record = run_record("enhance", arguments | {"out": "DIR"}, command, facts, {}, inputs={})
        replace(result, metrics=metrics).write(folder, record)
        estimate = metrics[options.solver].to_json()
        if result.intervals:
            estimate["volumes_interval_mm3"] = {tissue: list(ends) for tissue, ends in result.intervals.items()}
        return {
            "command": shlex.join(["dynamicdps", *command]),
            **{name: record[name] for name in KEPT if name in record},
            **{name: estimate[name] for name in MEASURED if name in estimate},
            "volumes_mm3": estimate["volumes_mm3"],
        }

    def parameters(self) -> Mapping[str, Any]:
        """The models' hashes, the version and the options but for the seed and the device: where the work is done is of no matter."""
        values = {name: value for name, value in vars(self.options).items() if name not in ("device", "seed")}
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        kept = {"keep_all": True} if self.keep_all else {}
        return {"version": __version__, "models": dict(self.models)} | plain | kept


def make_enhancer(options: StudyOptions, *, here: bool, memory: float | None = None, keep_all: bool = False) -> ScanEnhancer:
    """The enhancer for options; whatever no scan could be enhanced with is refused here, before any scan is touched.

    Args:
        options: of every scan.
        here: whether the work is done on this machine, which then must have the device: those who submit jobs may have another machine
            than those who do them.
        memory: see `ScanEnhancer`.
        keep_all: likewise.

    Raises:
        InputError: there is no such solver, model or file, or an option is wrong.
    """
    (check_device if here else device_kind)(options.device)
    load_extension(options.extension)
    check_options(options)
    load_conditional(options.conditional)
    load_prior(options.prior)
    models = {
        "prior": str(read_model(options.prior, "prior").card["sha256"]),
        "conditional": str(read_model(options.conditional, CONDITIONAL_KINDS).card["sha256"]),
    }
    values = values_of(options, StudyOptions)
    for name in FILES:
        if values[name] is not None and Path(values[name]).is_file():
            # Workers may run in other folders.
            path = Path(values[name]).resolve()
            models[f"{name} file"] = file_hash(path)
            values[name] = path if isinstance(values[name], Path) else str(path)
    return ScanEnhancer(StudyOptions(**values), tuple(models.items()), memory, keep_all)


def _renamed(values: Any, files: Mapping[str, str]) -> Any:
    """Plain values with other names for some files, wherever they occur."""
    if isinstance(values, str | Path):
        text = str(values)
        for path, name in files.items():
            text = text.replace(path, name)
        return text
    if isinstance(values, list | tuple):
        return [_renamed(value, files) for value in values]
    if isinstance(values, dict):
        return {_renamed(key, files): _renamed(value, files) for key, value in values.items()}
    return values
