"""What is refused before a command begins: seeds that no generator takes, and results in the place of what they are made from."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from os.path import samefile
from pathlib import Path
from typing import Any

from dynamicdps.cli import commands
from dynamicdps.cli.record import is_file, named_inputs
from dynamicdps.diffusion.model_names import known_models
from dynamicdps.errors import InputError

MAX_SEED = 2**63 - 1

_TRAINING = ("run.json", "training.json", "checkpoint.safetensors", "log.csv")
# What commands write into the folder --out; `*` stands for any number of names and folders.
WRITTEN: dict[type[Any], Sequence[str]] = {
    commands.Enhance: (
        *("run.json", "metrics.json", "report.html", "trace.csv", "starts.csv", "start-level.json"),
        *("enhanced.nii.gz", "enhanced_brain.nii.gz", "brain_mask.nii.gz", "initial.nii.gz", "measurement.nii.gz"),
        *("residual.nii.gz", "uncertainty.nii.gz", "hallucination.nii.gz", "truth.nii.gz", "samples.nii.gz"),
    ),
    commands.TrainPrior: (*_TRAINING, "prior.safetensors", "prior.json", "samples.png"),
    commands.TrainUNet: (*_TRAINING, "unet.safetensors", "unet.json"),
    commands.TrainESRGAN: (*_TRAINING, "esrgan.safetensors", "esrgan.json"),
    commands.TrainOperatorFit: ("run.json", "operator-fit.safetensors", "operator-fit.json", "simulations.npz"),
    commands.Sample: ("run.json", "samples.png", "samples.nii.gz"),
    commands.Evaluate: ("run.json", "metrics.json"),
    commands.Benchmark: (
        *("run.json", "benchmark.json", "conditions.json", "summary.json", "table.md", "index.html"),
        *("results.csv", "volumes.csv", "hallucination.csv", "lesions.csv", "figures/*", "slices/*"),
    ),
    commands.Cohort: (
        *("run.json", "dataset_description.json", "README", ".bidsignore", "cohort.tsv", "cohort.json", "timing.tsv", "index.html"),
        *("sub-*/*", ".cohort/*"),
    ),
}


def check(command: Any) -> None:
    """Refuse what no command can do well, before anything is computed or written.

    Args:
        command: one of `dynamicdps.cli.commands`.

    Raises:
        InputError: the seed is out of its range, or a file that is read would be written over.
    """
    chosen = getattr(command, "model", getattr(command, "what", command))
    seed = getattr(chosen, "seed", 0)
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"--seed is {seed}; expected a whole number from 0 to {MAX_SEED}; change it")
    folder, names = written(chosen)
    for given, path in _inputs(chosen) if names else ():
        for name in names:
            if _same(path, folder, name):
                raise InputError(f"{given} is read and would be written over; expected results in another place; change --out")


def written(command: Any) -> tuple[Path, Sequence[str]]:
    """The folder that a command writes into, and the names of what it writes or deletes there; no names where it reads no files."""
    out = getattr(command, "out", None)
    if isinstance(command, commands.Simulate):
        stem = command.out.name.removesuffix(".gz").removesuffix(".nii")
        return command.out.parent, (command.out.name, f"{stem}.operator.json", f"{stem}.run.json")
    if isinstance(command, commands.CalibrateStart):
        return command.out.parent, (command.out.name, f"{command.out.stem}.run.json")
    if isinstance(command, commands.CalibrateOperator):
        return command.out.parent, (command.out.name, f"{command.out.stem}.run.json", f"{command.out.stem}.profile.csv")
    names = WRITTEN.get(type(command), ())
    if isinstance(command, commands.Enhance) and command.operator == "fit":
        names = (*names, "operator.json")
    return out or Path(), names


def _inputs(command: Any) -> Iterator[tuple[str, Path]]:
    """Files that a command reads, with the words that it was given for them."""
    models = known_models()
    for name, given in named_inputs(command):
        path = models.get(given, Path(given))
        if not is_file(path):
            continue
        yield given, path
        stem = path.name.removesuffix(".gz").rpartition(".")[0]
        beside = [".json"] if name == "scan" or path.suffix == ".safetensors" else []
        if isinstance(command, commands.Enhance) and name == "scan" and command.operator is None:
            beside.append(".operator.json")
        for ending in beside:
            other = path.with_name(stem + ending)
            if stem and is_file(other):
                yield str(other), other


def _same(path: Path, folder: Path, name: str) -> bool:
    """Whether an input is the file or one of the files that a name stands for, also by links or where case does not count."""
    if "*" not in name and is_file(folder / name):
        return samefile(path, folder / name)
    for place in (path.resolve(), path.parent.resolve() / path.name):
        if place.is_relative_to(folder.resolve()) and fnmatchcase(place.relative_to(folder.resolve()).as_posix(), name):
            return True
    return False
