"""`dynamicdps calibrate operator` and `dynamicdps train operator-fit`."""

from collections.abc import Mapping, Sequence

from dynamicdps.calibration.fit import BOUNDS, FITTED, fit_profiles
from dynamicdps.calibration.parameter_estimator import load_estimator
from dynamicdps.cli.commands import CalibrateOperator, TrainOperatorFit
from dynamicdps.cli.progress import out, progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import fit_table
from dynamicdps.conditional import load_conditional
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json
from dynamicdps.models.model_file import file_hash
from dynamicdps.pipeline.checks import check_mask, find_start
from dynamicdps.pipeline.fit import fit_scan, header_values
from dynamicdps.pipeline.measurements import open_measurement
from dynamicdps.pipeline.scan_contrast import find_contrast
from dynamicdps.report.trace import write_rows
from dynamicdps.volumes.preparation import brain_step, in_words, orientation_step


def parse_known(texts: Sequence[str]) -> dict[str, float]:
    """``NAME=VALUE`` as numbers.

    Raises:
        InputError: one is something else.
    """
    known = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            known[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"--known {text!r} has no number; expected NAME=VALUE such as slice_thickness=5") from None
    return known


def check_names(fit: Sequence[str], known: Mapping[str, float], profiled: Sequence[str]) -> None:
    """Refuse parameters that there are not, and profiles of those that are not to be found.

    Raises:
        InputError: there is one.
    """
    if unknown := [name for name in (*fit, *known, *profiled) if name not in FITTED]:
        raise InputError(f"there is no parameter {unknown[0]!r} that a scan tells; expected some of {', '.join(FITTED)}; correct it")
    found = [name for name in fit if name in BOUNDS and name not in known]
    if lost := [name for name in profiled if name not in found]:
        raise InputError(f"{lost[0]} has no profile, for it is not fitted; expected some of {', '.join(found) or 'none'}; change --profile")


def run(arguments: CalibrateOperator) -> None:
    if arguments.out.suffix != ".json":
        raise InputError(f"cannot write {arguments.out.name!r}; expected a name that ends in .json; change --out")
    wanted, profiled = ([name for name in names.split(",") if name] for names in (arguments.fit, arguments.profile))
    given = parse_known(arguments.known)
    check_names(wanted, given, profiled)
    check_mask(arguments.mask)
    initial = find_start(arguments.initial, arguments.conditional)
    with recorded(arguments.out.parent, "calibrate operator", arguments, f"{arguments.out.stem}.run.json") as record, record.timed("fit"):
        measurement = open_measurement(arguments.scan, arguments, arguments.mask, cropped=True)
        brain, noise = measurement.head, measurement.noise
        known = header_values(brain.acquisition) | given
        check_names(wanted, known, profiled)
        contrast = find_contrast(arguments.contrast, arguments.scan, brain)
        found = fit_scan(brain, initial, arguments.conditional, wanted, known, noise, arguments.shading, contrast.name)
        profiles = fit_profiles(brain.brain, found.initial.volume, found.fit, profiled)
        write_json(arguments.out, found.fit.to_json())
        write_rows(arguments.out.with_suffix(".profile.csv"), profiles)
        record.facts["initial"] = found.initial.source
        prepared = (orientation_step(brain.whole), brain_step(brain, arguments.mask), contrast.step(), found.shading.step())
        steps = [step.to_json() for step in prepared]
        record.facts["preparation"] = steps
    for step in steps:
        say(in_words(step))
    out.print(fit_table(found.fit))
    for warning in [
        *brain.acquisition.warnings,
        *brain.mask.warnings,
        *contrast.warnings,
        *found.shading.step().warnings,
        *found.fit.warnings,
    ]:
        say(f"warning: {warning}")
    say(f"{arguments.out}")


def run_training(arguments: TrainOperatorFit) -> None:
    from dynamicdps.calibration.estimator_training import train_estimator

    for name in ("simulations", "epochs", "with_image"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected at least 1")
    model = load_conditional(arguments.conditional)
    with recorded(arguments.out, "train operator-fit", arguments) as record, progress_bar("operator-fit", "scans") as bar:
        path = train_estimator(
            arguments.scans,
            arguments.out,
            simulations=arguments.simulations,
            epochs=arguments.epochs,
            enhance=model.enhance,
            with_image=arguments.with_image,
            seed=arguments.seed,
            data_name=arguments.data_name,
            progress=bar,
        )
        record.facts["models"] = {"operator-fit": file_hash(path)}
    errors = load_estimator(path).card["held_out_error"]
    say("median error on held-out heads: " + ", ".join(f"{name} {value:g}" for name, value in errors.items()))
    say(f"{path}\n{path.with_suffix('.json')}")
