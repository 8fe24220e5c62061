"""`dynamicdps enhance`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dynamicdps.cli.brain_volumes import brain_on, keeping_samples, measure_volumes, volumes_line, without_samples
from dynamicdps.cli.kspace_scan import refuse_raw_options
from dynamicdps.cli.measurements import open_measurement
from dynamicdps.cli.model_fit import card_doubts, check_contrast
from dynamicdps.cli.outputs import run_facts, write_head, write_metrics, write_page, write_steps, write_volumes
from dynamicdps.cli.progress import console, out, progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.run_fit import FittedScan, fit_scan, fit_table, header_values
from dynamicdps.cli.scan_options import check_initial, check_mask
from dynamicdps.conditional import CONDITIONAL_KINDS, load_conditional
from dynamicdps.diffusion import Prior, level_of_step, load_prior, read_model
from dynamicdps.errors import InputError
from dynamicdps.evaluation import StageMetrics
from dynamicdps.evaluation.slice_doubts import slice_doubts
from dynamicdps.json_file import write_json
from dynamicdps.operators import ScanOperator, read_operator
from dynamicdps.operators.fit import FITTED
from dynamicdps.operators.shading import without_shading
from dynamicdps.solvers import Result, available, make_config, read_start_level
from dynamicdps.solvers.dynamicdps import QUALITIES
from dynamicdps.solvers.initial import Initial, initial_from_model, initial_from_volume
from dynamicdps.solvers.memory import chunk_within
from dynamicdps.solvers.sampler import SamplerConfig
from dynamicdps.solvers.solve import is_solved_whole
from dynamicdps.volumes import Volume, load
from dynamicdps.volumes.contrast_check import contrast_doubts
from dynamicdps.volumes.grids import check_grid
from dynamicdps.volumes.preparation import brain_step, in_words, intensity_step, orientation_step

if TYPE_CHECKING:
    from dynamicdps.cli.commands import Enhance


def check_device(name: str) -> str:
    """The device, if this machine has it.

    Raises:
        InputError: it has not.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device_kind(name), False):
        raise InputError(
            f"the device {name!r} is not on this machine; expected one of {', '.join(d for d, ok in here.items() if ok)}; change --device"
        )
    return name


def device_kind(name: str) -> str:
    """The kind of a device, which may be on another machine: cpu, cuda or mps.

    Raises:
        InputError: it is no device.
    """
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda", "mps"):
        raise InputError(f"there is no device {name!r}; expected cpu, cuda or mps, or one of several such as cuda:1; change --device")
    return kind


def open_prior(name: str, device: str, precision: str) -> Prior:
    """The prior that is asked for, computing in the precision that is asked for."""
    return load_prior(name, device, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def prior_doubts(prior: Prior) -> list[str]:
    """What a prior's card leaves open."""
    doubts = []
    if not prior.domain.errors:
        doubts.append(
            "the prior's card has no denoising errors, so that those of a good prior are taken, which this one may not reach; train it "
            "with --validation"
        )
    if not prior.domain.start_level:
        doubts.append(
            "the prior's card has no calibration of the start level, so that the bundled prior's is taken, which may start too high or too "
            "low; run `dynamicdps calibrate start` and give --start-calibration"
        )
    return doubts


def find_operator(scan: Path, given: str | None) -> ScanOperator:
    """The operator that is given, or the one that lies beside the scan.

    Raises:
        InputError: there is neither.
    """
    if given is not None:
        return read_operator(given)
    beside = scan.with_name(scan.name.removesuffix(".gz").removesuffix(".nii") + ".operator.json")
    if not beside.is_file():
        raise InputError(f"{scan} has no {beside.name} beside it; expected the scanner's forward model; give --operator NAME or FILE")
    return read_operator(beside)


def start_level(arguments: "Enhance") -> float | None:
    """The start level that is asked for in either way, or `None`.

    Raises:
        InputError: both are given, or one is out of its range.
    """
    sigma, step = arguments.start_sigma, arguments.start_step
    if sigma is not None and step is not None:
        raise InputError("both --start-sigma and --start-step are given; expected one of them; leave one out")
    if step is not None:
        if not 1 <= step <= 1000:
            raise InputError(f"--start-step is {step}; expected 1 to 1000; change it")
        sigma = level_of_step(step)
    if sigma is not None and not 0.001 <= sigma <= 40:
        raise InputError(f"the start level is {sigma:g}; expected 0.001 to 40; change --start-sigma")
    return sigma


def solver_config(arguments: "Enhance") -> Any:
    """The solver's configuration from the options that are given.

    Raises:
        InputError: an option does not fit the solver, or a value is wrong.
    """
    for name in ("samples", "steps"):
        value = getattr(arguments, name)
        if value is not None and not 1 <= value <= 1000:
            raise InputError(f"--{name} is {value}; expected 1 to 1000; change it")
    values: dict[str, Any] = {}
    for text in arguments.settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r} has no value; expected NAME=VALUE such as steps=10; change it")
        values[key.strip().replace("-", "_")] = value.strip()
    given = {name: getattr(arguments, name) for name in ("samples", "steps", "estimate", "gradient", "start_quantile")}
    given["start_sigma"] = start_level(arguments)
    if arguments.start_calibration is not None:
        given["start_rule"] = read_start_level(arguments.start_calibration)
    if arguments.quality != "default" and arguments.solver != "dynamicdps":
        raise InputError(
            f"--quality {arguments.quality} is given with --solver {arguments.solver}; expected it with dynamicdps; leave it out, or set "
            "--samples and --steps"
        )
    chosen = {name: value for name, value in given.items() if value is not None}
    return make_config(arguments.solver, QUALITIES[arguments.quality] | chosen | values)


def check_options(arguments: "Enhance") -> Any:
    """Refuse what no scan can be enhanced with, also what is needed only after long work.

    Returns:
        The solver's configuration.

    Raises:
        InputError: an option is wrong, or a file that it names cannot be used.
    """
    if arguments.solver not in available():
        raise InputError(f"there is no solver {arguments.solver!r}; expected one of {', '.join(available())}; change --solver")
    if arguments.shading == "on" and arguments.operator != "fit":
        raise InputError("--shading on is given without --operator fit; expected both, or an operator with its BiasField; change one")
    config = solver_config(arguments)
    if arguments.operator not in (None, "fit"):
        read_operator(arguments.operator)
    check_mask(arguments.mask)
    check_grid(arguments.grid)
    check_initial(arguments.initial, arguments.conditional)
    return config


def run(arguments: "Enhance") -> None:
    refuse_raw_options(arguments)
    device = check_device(arguments.device)
    config = check_options(arguments)
    operator = None if arguments.operator == "fit" else find_operator(arguments.scan, arguments.operator)
    prior = open_prior(arguments.prior, device, arguments.precision)
    models = {"prior": read_model(arguments.prior, "prior")}
    if arguments.initial is None:
        models["conditional"] = read_model(arguments.conditional, CONDITIONAL_KINDS)
    for model in models.values():
        check_contrast(arguments.scan, model)
    measurement = open_measurement(arguments, cropped=operator is None or operator.image_shape is None)
    head = measurement.head
    fitted: FittedScan | None = None
    with recorded(arguments.out, "enhance", arguments) as record:
        doubts = [*head.mask.warnings, *contrast_doubts(head.whole, head.mask.inside, head.acquisition.slice_axis), *prior_doubts(prior)]
        steps = [orientation_step(head.whole), brain_step(head, arguments.mask)]
        with record.timed("prepare"):
            measurement.prepare(arguments.seed)
        with record.timed("initial"):
            if operator is None:
                known = header_values(head.acquisition)
                fitted = fit_scan(head, arguments.initial, arguments.conditional, FITTED, known, measurement.noise, arguments.shading)
                operator, initial = fitted.fit.scan_operator, fitted.initial
                steps.append(fitted.shading.step())
                doubts += [*steps[-1].warnings, *fitted.fit.warnings]
                out.print(fit_table(fitted.fit))
            else:
                initial = find_initial(arguments, head.brain, operator)
        config = within_memory(arguments, config, head.brain, operator, prior, models["prior"].card)
        with progress_bar(arguments.solver, "steps") as bar:
            result = measurement.solve(
                arguments.solver,
                operator,
                prior,
                initial=initial.volume,
                seed=arguments.seed,
                config=keeping_samples(config),
                progress=bar,
            )
        if result.reconstruction.stopped == "diverged":
            raise InputError(f"{result.reconstruction.warnings[0]}; expected a solver that converges; change its settings, or --solver")
        images = {"conditional": result.initial, arguments.solver: result.volume}
        with record.timed("volumes"), console.status("tissue volumes ..."):
            volumes = measure_volumes(images, result.samples, brain_on(head, result.volume))
        if not getattr(config, "keep_samples", False):
            result = without_samples(result)
        doubts += [*measurement.doubts(), *slice_doubts(result.residual, head.acquisition.slice_axis), *volumes.doubts]
        for model in models.values():
            doubts += card_doubts(model, result.volume.spacing, measurement.shown, result.scale)
        result.reconstruction.warnings[:0] = dict.fromkeys(doubts)
        record.durations["solve"] = round(result.seconds, 3)
        steps.append(intensity_step(result.scale.scale))
        record.facts |= {
            "preparation": [step.to_json() for step in steps],
            **run_facts(arguments.solver, config, result, operator, models),
            "title": f"Enhanced scan: {arguments.scan.name}",
            "initial": initial.source,
            "brain": {"method": head.mask.method, "millilitres": round(head.mask.millilitres(head.whole), 1)},
            "acquisition": head.acquisition.to_json(),
            "slab": volumes.slab,
            **measurement.facts(),
        }
        if fitted is not None:
            write_json(arguments.out / "operator.json", fitted.fit.to_json())
        write_volumes(arguments.out, measurement.shown, operator, result, head=head)
        write_head(arguments.out, head, result, arguments.grid)
        write_steps(arguments.out, measurement.starts(operator, result), result, config, prior)
        stages, ranges = {}, {}
        for name, image in images.items():
            misfit, ranges[name] = measurement.misfit(image, operator, result)
            stages[name] = StageMetrics(data_misfit=misfit)
        stages[arguments.solver] = with_cost(stages[arguments.solver], result)
        write_metrics(arguments.out, volumes.added_to(stages), ranges, {arguments.solver: volumes.intervals})
    # After run.json, which it shows: the page of `dynamicdps report`.
    report = write_page(arguments.out)
    for step in steps:
        say(in_words(step.to_json()))
    before, after = (stages[name].data_misfit for name in ("conditional", arguments.solver))
    say(f"data misfit{measurement.space} (1 is noise alone): {before:.2f} before, {after:.2f} after")
    say(f"{result.nfe} denoiser passes a slice, {result.seconds:.0f} s")
    if line := volumes_line(volumes.of.get(arguments.solver, {}), volumes.intervals, volumes.slab):
        say(line)
    for warning in result.reconstruction.warnings:
        say(f"warning: {warning}")
    say(f"{arguments.out / 'enhanced.nii.gz'}\n{report}")


def find_initial(arguments: "Enhance", scan: Volume, operator: ScanOperator) -> Initial:
    """The volume that is given, or the conditional model's image of the scan without shading, which no model knows."""
    if arguments.initial is not None:
        return initial_from_volume(scan, operator, load(arguments.initial), str(arguments.initial))
    even = without_shading(scan, operator.operator)
    return initial_from_model(even, operator, load_conditional(arguments.conditional), arguments.conditional)


def within_memory(arguments: "Enhance", config: Any, scan: Volume, operator: ScanOperator, prior: Prior, card: dict[str, Any]) -> Any:
    """The configuration with as many slices a denoiser pass as ``--memory`` allows; as it is without it.

    Raises:
        InputError: the budget is too small for any.
    """
    if arguments.memory is None or not isinstance(config, SamplerConfig):
        return config
    shape, whole = operator.grid_for(scan)[0], is_solved_whole(operator.operator, prior)
    kept = config.samples if config.samples > 1 else 0
    chunk = chunk_within(arguments.memory, shape, whole, card, arguments.precision, kept, config.differentiates)
    return replace(config, chunk=chunk)


def with_cost(metrics: StageMetrics, result: Result) -> StageMetrics:
    """A solver's metrics with what it took."""
    seconds = round(result.seconds, 2)
    return replace(metrics, nfe=result.nfe, nbackward=result.nbackward, start_sigma=result.start_sigma, seconds=seconds)
