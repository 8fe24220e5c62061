"""`dynamicdps calibrate operator`, and `enhance --operator fit`: the operator from the scan itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from dynamicdps.cli.kspace_scan import is_kspace, open_kspace, refuse_raw_options
from dynamicdps.cli.progress import out, progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.scan_options import check_initial, check_mask
from dynamicdps.conditional import load_conditional
from dynamicdps.diffusion.model_file import file_hash
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json
from dynamicdps.operators.fit import BOUNDS, FITTED, OperatorFit, fit_operator, fit_profiles
from dynamicdps.operators.noise_estimate import NoiseEstimate, scan_noise
from dynamicdps.operators.parameter_estimator import load_estimator
from dynamicdps.operators.shading import Shading, find_shading
from dynamicdps.report.trace import write_rows
from dynamicdps.solvers.initial import Initial, initial_from_model, initial_from_volume
from dynamicdps.volumes import BrainScan, load, open_brain
from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.contrast_check import contrast_doubts
from dynamicdps.volumes.preparation import brain_step, in_words, orientation_step

if TYPE_CHECKING:
    from dynamicdps.cli.commands import CalibrateOperator, TrainOperatorFit

UNITS = {"gamma": "", "blur": "image voxels", "slice_thickness": "mm", "noise_std": "of the intensity range"}


@dataclass(frozen=True)
class FittedScan:
    """A scan's initial image, its shading, and the operator that was found from all three."""

    initial: Initial
    fit: OperatorFit
    shading: Shading


def header_values(acquisition: Acquisition) -> dict[str, float]:
    """What a scan's header and sidecar say of its operator: the slice thickness."""
    thickness = acquisition.slice_thickness_mm
    return {} if thickness is None else {"slice_thickness": thickness}


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
            raise InputError(f"--known {text!r} has no number; expected NAME=VALUE such as slice_thickness=5; change it") from None
    return known


def check_names(fit: Sequence[str], known: Mapping[str, float], profiled: Sequence[str]) -> None:
    """Refuse parameters that there are not, and profiles of those that are not to be found.

    Raises:
        InputError: there is one.
    """
    if unknown := [name for name in (*fit, *known, *profiled) if name not in FITTED]:
        raise InputError(f"there is no parameter {unknown[0]!r} to fit or to know; expected some of {', '.join(FITTED)}; change it")
    found = [name for name in fit if name in BOUNDS and name not in known]
    if lost := [name for name in profiled if name not in found]:
        raise InputError(f"{lost[0]} has no profile, for it is not fitted; expected some of {', '.join(found) or 'none'}; change --profile")


def fit_scan(
    head: BrainScan,
    initial: Path | None,
    conditional: str,
    fit: Sequence[str],
    known: Mapping[str, float],
    noise: NoiseEstimate | None = None,
    shading: str = "off",
) -> FittedScan:
    """Find a scan's operator as a user would who has nothing else.

    The statistics come first: their contrast says how much of the shading may be anatomy. What is left without the shading goes to the
    conditional model (its scale depends on the contrast), and its image, or the one that is given, sharpens the contrast.

    Args:
        head: the scan and its brain.
        initial: any model's enhanced volume.
        conditional: a conditional model, where there is none.
        fit: what to find; what is known is kept.
        known: values from the header or the user, by name.
        noise: of the scan, where it was measured elsewhere.
        shading: one of `dynamicdps.operators.shading.CHOICES`.

    Raises:
        InputError: as `fit_operator`, `find_shading` and `load`.
    """
    scan, noise = head.brain, noise or scan_noise(head)
    wanted = [name for name in fit if name not in known]
    first = fit_operator(scan, fit=wanted, known=known, noise=noise)
    inside = head.mask.inside if head.weights is None else head.weights > 0
    found = find_shading(scan, inside, float(first.scanner.gamma), shading)
    even = found.flat(scan)
    if found.kept:
        first = fit_operator(even, fit=wanted, known=known, noise=noise)
    if initial is not None:
        image = initial_from_volume(even, first.scan_operator, load(initial), str(initial))
    else:
        image = initial_from_model(even, first.scan_operator, load_conditional(conditional), conditional)
    return FittedScan(image, fit_operator(scan, image.volume, fit=wanted, known=known, noise=noise, shading=found), found)


def open_to_fit(arguments: "CalibrateOperator") -> tuple[BrainScan, NoiseEstimate | None]:
    """The scan that is asked for; of raw k-space its magnitude, and its noise as k-space has it."""
    if is_kspace(arguments.scan):
        raw = open_kspace(arguments)
        return raw.head, raw.noise
    refuse_raw_options(arguments)
    return open_brain(arguments.scan, arguments.series, arguments.mask), None


def fit_table(fit: OperatorFit) -> Table:
    """Parameters with their intervals, as the command line shows them."""
    table = Table("parameter", "value", "95 % interval", "from")
    inner = fit.scanner.to_json()
    for name, unit in UNITS.items():
        if inner.get(name) is None:
            continue
        low, high = fit.intervals.get(name, (None, None))
        interval = f"{low:.3g} to {high:.3g}" if low is not None else ""
        source = "the scan" if name in fit.intervals else "given" if name in fit.known else "default"
        table.add_row(name, f"{inner[name]:.3g} {unit}".strip(), interval, source)
    return table


def run(arguments: "CalibrateOperator") -> None:
    if arguments.out.suffix != ".json":
        raise InputError(f"cannot write {arguments.out.name!r}; expected a name that ends in .json; change --out")
    wanted, profiled = ([name for name in names.split(",") if name] for names in (arguments.fit, arguments.profile))
    given = parse_known(arguments.known)
    check_names(wanted, given, profiled)
    check_mask(arguments.mask)
    check_initial(arguments.initial, arguments.conditional)
    with recorded(arguments.out.parent, "calibrate operator", arguments, f"{arguments.out.stem}.run.json") as record, record.timed("fit"):
        brain, noise = open_to_fit(arguments)
        known = header_values(brain.acquisition) | given
        check_names(wanted, known, profiled)
        found = fit_scan(brain, arguments.initial, arguments.conditional, wanted, known, noise, arguments.shading)
        profiles = fit_profiles(brain.brain, found.initial.volume, found.fit, profiled)
        write_json(arguments.out, found.fit.to_json())
        write_rows(arguments.out.with_suffix(".profile.csv"), profiles)
        record.facts["initial"] = found.initial.source
        steps = [step.to_json() for step in (orientation_step(brain.whole), brain_step(brain, arguments.mask), found.shading.step())]
        record.facts["preparation"] = steps
    for step in steps:
        say(in_words(step))
    out.print(fit_table(found.fit))
    doubts = contrast_doubts(brain.whole, brain.mask.inside, brain.acquisition.slice_axis)
    for warning in [*brain.mask.warnings, *doubts, *found.shading.step().warnings, *found.fit.warnings]:
        say(f"warning: {warning}")
    say(f"{arguments.out}")


def run_training(arguments: "TrainOperatorFit") -> None:
    from dynamicdps.operators.estimator_training import train_estimator

    for name in ("simulations", "epochs", "with_image"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected at least 1; change it")
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
