"""The table of commands: what each is called, what runs it, and what it writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dynamicdps.cli import commands
from dynamicdps.output_names import AUDITED, METRICS, RESULTS, RUN, SEGMENTED

_TRAINING = (RUN, "training.json", "checkpoint.safetensors", "log.csv")
_STUDY = (
    *(RUN, "dataset_description.json", "README", ".bidsignore", "cohort.tsv", "cohort.json", "timing.tsv", "index.html"),
    *("sub-*/*", ".cohort/*"),
)


@dataclass(frozen=True)
class Entry:
    """A command.

    Attributes:
        name: as run.json has it.
        runs: function of `dynamicdps.cli`, as MODULE.FUNCTION; it is imported when the command runs, because torch takes seconds.
        writes: names in the folder --out, which are written or deleted; `*` stands for any number of names and folders.
        to_file: endings of the files beside --out, where that is a file; ``{stem}`` is its name without ending.
        repeatable: whether `rerun` repeats it.
    """

    name: str
    runs: str
    writes: Sequence[str] = ()
    to_file: Sequence[str] = ()
    repeatable: bool = True


TABLE: dict[type[Any], Entry] = {
    commands.Demo: Entry("demo", "run_demo.run"),
    commands.Enhance: Entry("enhance", "run_enhance.run", RESULTS),
    commands.Segment: Entry("segment", "run_segment.run", SEGMENTED),
    commands.Audit: Entry("audit", "run_audit.run", AUDITED),
    commands.Simulate: Entry("simulate", "run_simulate.run", to_file=("{stem}.operator.json", "{stem}.run.json")),
    commands.TrainPrior: Entry("train prior", "run_train.run_prior", (*_TRAINING, "prior.safetensors", "prior.json", "samples.png")),
    commands.TrainUNet: Entry("train unet", "run_train.run_unet", (*_TRAINING, "unet.safetensors", "unet.json")),
    commands.TrainESRGAN: Entry("train esrgan", "run_train.run_esrgan", (*_TRAINING, "esrgan.safetensors", "esrgan.json")),
    commands.TrainSegmenter: Entry("train segmenter", "run_train.run_segmenter", (*_TRAINING, "brain-mask.safetensors", "brain-mask.json")),
    commands.TrainOperatorFit: Entry(
        "train operator-fit", "run_fit.run_training", (RUN, "operator-fit.safetensors", "operator-fit.json", "simulations.npz")
    ),
    commands.Sample: Entry("sample", "run_sample.run", (RUN, "samples.png", "samples.nii.gz")),
    commands.CalibrateStart: Entry("calibrate start", "run_calibrate.run", to_file=("{stem}.run.json",)),
    commands.CalibrateOperator: Entry("calibrate operator", "run_fit.run", to_file=("{stem}.run.json", "{stem}.profile.csv")),
    commands.Evaluate: Entry("evaluate", "run_evaluate.run", (RUN, METRICS)),
    commands.Benchmark: Entry(
        "benchmark",
        "run_benchmark.run",
        (
            *(RUN, "benchmark.json", "conditions.json", "summary.json", "table.md", "index.html"),
            *("results.csv", "volumes.csv", "hallucination.csv", "lesions.csv", "figures/*", "slices/*"),
        ),
    ),
    commands.Report: Entry("report", "run_report.run", repeatable=False),
    commands.Cohort: Entry("cohort", "run_cohort.run", _STUDY, repeatable=False),
    commands.BidsApp: Entry("bids", "run_bids.run", (*_STUDY, "not_enhanced.tsv", "not_enhanced.json", "logs/*"), repeatable=False),
    commands.App: Entry("app", "run_app.run", repeatable=False),
    commands.ListModels: Entry("models list", "run_models.run_list", repeatable=False),
    commands.ShowModel: Entry("models show", "run_models.run_show", repeatable=False),
    commands.AddModel: Entry("models add", "run_models.run_add", repeatable=False),
    commands.Rerun: Entry("rerun", "run_rerun.run", repeatable=False),
}


def chosen(command: commands.Command) -> Any:
    """The command itself, or the one below it: `train prior` of `train`."""
    return getattr(command, "model", getattr(command, "what", command))


def with_chosen(command: commands.Command, each: Any) -> commands.Command:
    """The command with another in the place of the one that is `chosen`."""
    for kind in (commands.Train, commands.Calibrate, commands.Models):
        if isinstance(command, kind):
            return kind(each)
    changed: commands.Command = each
    return changed


def function_of(command: Any) -> Callable[..., None]:
    """What runs a command of `TABLE`."""
    module, _, name = TABLE[type(command)].runs.partition(".")
    function: Callable[..., None] = getattr(import_module(f"dynamicdps.cli.{module}"), name)
    return function
