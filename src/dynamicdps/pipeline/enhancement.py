"""Enhance a scan: find its brain, its forward model and an initial image, solve, and measure what came out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dynamicdps.calibration.fit import FITTED, OperatorFit
from dynamicdps.calibration.shading import without_shading
from dynamicdps.conditional import CONDITIONAL_KINDS, load_conditional
from dynamicdps.errors import InputError
from dynamicdps.evaluation import StageMetrics
from dynamicdps.evaluation.misfit_causes import misfit_reasons
from dynamicdps.evaluation.slice_doubts import slice_doubts
from dynamicdps.extension import load_extension
from dynamicdps.models.model_file import ModelFile, read_model
from dynamicdps.networks.precision import type_named
from dynamicdps.operators import ScanOperator
from dynamicdps.operators.scan_operator import require_noise
from dynamicdps.pipeline.brain_volumes import brain_on, keeping_samples, measure_volumes, without_samples
from dynamicdps.pipeline.checks import check_device, check_options, check_shading
from dynamicdps.pipeline.cross_contrast import check_from, check_to, cross, synthesised_warning
from dynamicdps.pipeline.enhanced import Enhanced, OtherScan
from dynamicdps.pipeline.fit import FittedScan, fit_scan, header_values
from dynamicdps.pipeline.image_structures import ImageStructures, image_structures
from dynamicdps.pipeline.inputs import as_volume, find_operator, name_of, scans_of
from dynamicdps.pipeline.kspace_scan import is_kspace
from dynamicdps.pipeline.measurements import ImageOfScan, Measurement, open_measurement
from dynamicdps.pipeline.model_fit import card_warnings, check_contrast
from dynamicdps.pipeline.options import EnhanceOptions, as_words, checked_values, values_of
from dynamicdps.pipeline.plan import Plan, make_plan
from dynamicdps.pipeline.progress import Progress, Stages
from dynamicdps.pipeline.scan_contrast import KNOWN, ScanContrast, find_contrast
from dynamicdps.pipeline.scans_of_head import OneScan, ScansOfHead, align, alike_contrasts, in_order, without_repeats
from dynamicdps.pipeline.segmentation import says_sides
from dynamicdps.pipeline.slice_motion import find_slice_motion
from dynamicdps.priors import Prior, known_contrasts, load_prior
from dynamicdps.report.run_folder import HIGH_MISFIT, misfit_warnings
from dynamicdps.solvers import DynamicDPSConfig, Result, start_rule_of
from dynamicdps.solvers.initial import Initial, initial_from_model, initial_from_volume
from dynamicdps.solvers.memory import chunk_within
from dynamicdps.solvers.samplers import SamplerConfig
from dynamicdps.solvers.solve import is_solved_whole, measurement_scale
from dynamicdps.solvers.start_level import StartRule
from dynamicdps.volumes import BrainScan, Volume
from dynamicdps.volumes.brain_scan import EDGE_MM
from dynamicdps.volumes.grids import native_grid, sample, target_grid
from dynamicdps.volumes.preparation import Step, brain_step, intensity_step, orientation_step


def enhance(
    scan: Any,
    options: EnhanceOptions | None = None,
    *,
    initial: Any = None,
    operator: ScanOperator | str | Path | None = None,
    progress: Progress | None = None,
    announce: Callable[[Plan], None] | None = None,
    **values: Any,
) -> Enhanced:
    """Enhance a scan, or several scans of one head to one image.

    Args:
        scan: path of an image file, of a folder of DICOM files or of raw k-space; an image of nibabel; a `Volume`; or a list of scans of
            one head, in any order, each with its own contrast, orientation, voxels and noise. T1-weighted, T2-weighted or FLAIR, with or
            without the skull; of several contrasts the image has the first in this order.
        options: how; by default with the bundled models, and with the scan's own ``.operator.json`` where there is one beside it. Where
            there is none, the forward model of the scanner is fitted.
        initial: any model's enhanced image of the scan to start from, as a path, an image of nibabel or a `Volume`; without it the
            conditional model makes one. With several scans it lies in the space of the first one's header.
        operator: forward model of the scanner, as an object or as the option of that name; of several scans that of each.
        progress: is told how far the work is.
        announce: is told what will be done, and how long it will take, when the scan has been opened; finding that out takes seconds.
        values: options by name in the place of `options`, such as ``quality="fast"``; `EnhanceOptions` has them all.

    Raises:
        InputError: an option is wrong, or the scan or a file that is named cannot be used.
        TypeError: the scan or the initial image is no image, or there is no option of a name.
    """
    require_noise(operator)
    if not isinstance(operator, ScanOperator):
        values |= {} if operator is None else {"operator": operator}
    options = replace(options or EnhanceOptions(), **checked_values(EnhanceOptions, values))
    load_extension(options.extension)
    stages = Stages(progress)
    given, start = scans_of(scan), None if initial is None else as_volume(initial, "the initial image")
    device, config = check_device(options.device), check_options(options)
    scanners = [find_operator(each, operator if isinstance(operator, ScanOperator) else options.operator) for each in given]
    check_shading(options.shading, fitted=None in scanners)
    models = models_for(options, with_conditional=start is None or len(given) > 1)
    options = replace(options, to=check_to(options.to))
    if options.to is not None and (len(given) > 1 or (isinstance(given[0], Path) and is_kspace(given[0]))):
        raise InputError("--to is given for several scans or raw k-space; expected one image; enhance it alone, or leave --to out")
    if options.slice_motion and len(given) == 1:
        raise InputError("--slice-motion is given for one scan; expected several scans of one head, which tell of each other; leave it out")
    asked = _Asked(options, config, models, device, stages, announce)
    case = _one_scan(given[0], scanners[0], start, asked) if len(given) == 1 else _several_scans(given, scanners, start, asked)
    measurement, scanner, prior, contrast, steps = case.measurement, case.scanner, case.prior, case.contrast, case.steps
    head, warnings = measurement.head, case.warnings
    config = within_memory(options, config, head.brain, scanner, prior, models["prior"].card)
    if isinstance(measurement, ScansOfHead):
        config = measurement.settings(config, prior)
    result = measurement.solve(
        options.solver,
        scanner,
        prior,
        initial=case.initial.volume,
        seed=options.seed,
        config=keeping_samples(config),
        progress=lambda done, planned: stages.tell("solve", done, planned),
    )
    if result.reconstruction.stopped == "diverged":
        raise InputError(f"{result.reconstruction.warnings[0]}; expected a solver that converges; change its settings, or --solver")
    images = {"conditional": result.initial, options.solver: result.volume}
    with stages.stage("volumes"):
        volumes = measure_volumes(images, result.samples, brain_on(head, result.volume), options.to or contrast.name)
        # What is around the brain has the scan's contrast: no image of another one goes into it.
        place, brain_mask = (in_head if options.to is None else brain_alone)(head, result.volume, options.grid)
        image, drawn = place(result.volume), map(place, result.samples)
        brain = None if head.mask.method == "network" else head.whole.with_data(head.mask.inside)
        structures = image_structures(image, drawn, brain, sided=says_sides(given[0]), edge_mm=max(head.whole.spacing), device=device)
    if not getattr(config, "keep_samples", False):
        result = without_samples(result)
    residuals = [result.residual, *result.other_residuals]
    warnings += [
        *measurement.doubts(),
        *(doubt for residual, axis in zip(residuals, case.slice_axes, strict=True) for doubt in slice_doubts(residual, axis)),
        *volumes.warnings,
        *structures.warnings,
    ]
    for model in models.values():
        warnings += card_warnings(model, result.volume.spacing, measurement.shown, result.scale)
    result.reconstruction.warnings[:0] = dict.fromkeys(warnings)
    steps.append(intensity_step(result.scale.scale))
    misfits = {name: measurement.misfit(image, scanner, result) for name, image in images.items()}
    metrics = {name: StageMetrics(data_misfit=misfit) for name, (misfit, _) in misfits.items()}
    metrics[options.solver] = with_cost(metrics[options.solver], result)
    result.reconstruction.warnings.extend(misfit_warnings(metrics[options.solver].data_misfit))
    result.reconstruction.warnings.extend(misfit_reasons(residuals, result.predicted, case.slice_axes, HIGH_MISFIT))
    names = [name_of(each) for each in given]
    uncertainty, hallucination = maps_of(head, result, measurement.unsupported(result, scanner))
    return Enhanced(
        scan=", ".join(names),
        image=image,
        estimate=result.volume if brain_mask is None else estimate_alone(head, result.volume),
        brain_mask=brain_mask,
        measurement=measurement.shown,
        uncertainty=uncertainty,
        hallucination=hallucination,
        result=result,
        solver=options.solver,
        operator=scanner,
        fit=case.fits[0],
        others=case.others(residuals[1:]),
        metrics=volumes.added_to(metrics),
        ranges={name: ranges for name, (_, ranges) in misfits.items()},
        intervals=volumes.intervals,
        slab=volumes.slab,
        misfit_space=measurement.space,
        steps=tuple(steps),
        structures=structures,
        starts=measurement.starts(scanner, result),
        start_rule=start_rule(config, result, prior),
        facts={
            "preparation": [step.to_json() for step in steps],
            **result_facts(options.solver, config, result, scanner, models, structures),
            "title": f"{_title(options.to, contrast, len(names))}: {', '.join(Path(name).name for name in names)}",
            "initial": case.initial.source,
            "contrast": contrast.name,
            **({} if options.to is None else {"synthesised_contrast": options.to}),
            "brain": {"method": head.mask.method, "millilitres": round(head.mask.millilitres(head.whole), 1)},
            "acquisition": head.acquisition.to_json(),
            "slab": volumes.slab,
            **measurement.facts(),
        },
        durations=stages.seconds | {"solve": round(result.seconds, 3)},
        arguments={
            "scan": names[0] if len(names) == 1 else names,
            "initial": None if start is None else name_of(start),
            **values_of(options, EnhanceOptions),
        },
        argv=() if isinstance(operator, ScanOperator) else words_of(given, start, options),
    )


# What brings an image of the solver to where it is written.
Placing = Callable[[Volume], Volume]


@dataclass(frozen=True)
class _Asked:
    """What is asked for, and who is told of the work."""

    options: EnhanceOptions
    config: Any
    models: Mapping[str, ModelFile]
    device: str
    stages: Stages
    announce: Callable[[Plan], None] | None


@dataclass(frozen=True)
class _Case:
    """What the solver is given, and what was found on the way there."""

    measurement: Measurement
    scanner: ScanOperator
    initial: Initial
    prior: Prior
    contrast: ScanContrast
    steps: list[Step]
    warnings: list[str]
    fits: Sequence[OperatorFit | None]
    slice_axes: Sequence[int | None]

    def others(self, residuals: Sequence[Volume]) -> tuple[OtherScan, ...]:
        """The scans that were given after the first, with their residuals."""
        if not isinstance(self.measurement, ScansOfHead):
            return ()
        return tuple(map(OtherScan, self.measurement.others_shown, residuals, self.fits[1:]))


def _one_scan(given: Path | Volume, scanner: ScanOperator | None, start: Volume | None, asked: _Asked) -> _Case:
    options, stages = asked.options, asked.stages
    with stages.stage("open"):
        measurement = open_measurement(given, options, options.mask, cropped=scanner is None or scanner.image_shape is None)
        head = measurement.head
        contrast = contrast_for(options.contrast, given, head, asked.models)
        if options.to is not None:
            check_from(contrast.name)
            check_contrast(options.to, asked.models["prior"])
        prior = open_prior(options.prior, asked.device, options.precision, options.to or contrast.name)
        # After the scan, which may be none: a network takes seconds.
        made = [] if options.to is None else [synthesised_warning(contrast.name)]
        warnings = [*made, *head.acquisition.warnings, *head.mask.warnings, *contrast.warnings, *prior_warnings(prior)]
        steps = [orientation_step(head.whole), brain_step(head, options.mask), contrast.step()]
    if asked.announce is not None:
        asked.announce(make_plan(given, head, scanner, prior, asked.config, options, None if start is None else name_of(start)))
    with stages.stage("prepare"):
        measurement.prepare(options.seed)
    fitted: FittedScan | None = None
    with stages.stage("initial"):
        if scanner is None:
            known = header_values(head.acquisition)
            # A start in another contrast says nothing of the scan's.
            own = start if options.to is None else None
            fitted = fit_scan(
                head, own, options.conditional, FITTED, known, measurement.noise, options.shading, contrast.name, options.precision
            )
            scanner, found = fitted.fit.scan_operator, fitted.initial
            steps.append(fitted.shading.step())
            warnings += [*steps[-1].warnings, *fitted.fit.warnings]
        else:
            found = find_initial(head, scanner, start, options.conditional, options.precision)
        if options.to is not None:
            scale = measurement_scale(head.brain, scanner).scale
            given_start = None if start is None else initial_from_volume(head.brain, scanner, start, name_of(start))
            crossed = cross(head, scanner, scale, prior, given_start)
            measurement, scanner, found = ImageOfScan(crossed.head), crossed.scanner, crossed.initial
            if fitted is not None:
                fitted = replace(fitted, fit=replace(fitted.fit, scan_operator=scanner))
    fits, axes = [None if fitted is None else fitted.fit], [head.acquisition.slice_axis]
    return _Case(measurement, scanner, found, prior, contrast, steps, warnings, fits, axes)


def _several_scans(given: Sequence[Path | Volume], scanners: Sequence[ScanOperator | None], start: Volume | None, asked: _Asked) -> _Case:
    """Scans of one head: each is opened and fitted alone, then all are brought to their places.

    Raises:
        InputError: one is raw k-space, they do not show one head, or the initial image lies elsewhere.
    """
    options, stages = asked.options, asked.stages
    if any(scanner is not None and scanner.image_shape is not None for scanner in scanners):
        names = ", ".join(name_of(each) for each, scanner in zip(given, scanners, strict=True) if scanner is not None)
        raise InputError(
            f"the operator of {names} is tied to one image grid, as `simulate` writes it; expected none, or one without a grid, "
            "for several scans; give --operator fit"
        )
    with stages.stage("open"):
        opened, looking = [], {kind: model for kind, model in asked.models.items() if kind != "prior"}
        for each in given:
            if isinstance(each, Path) and is_kspace(each):
                raise InputError(f"{each} is raw k-space; expected images where several scans are given; enhance it alone")
            measurement = open_measurement(each, options, options.mask, cropped=True)
            opened.append((each, measurement.head, contrast_for(options.contrast, each, measurement.head, looking)))
        # The image's contrast is that of the first by this order, whatever was named first.
        contrast = min((own for _, _, own in opened), key=lambda own: (*KNOWN, own.name).index(own.name))
        check_contrast(contrast.name, asked.models["prior"])
        prior = open_prior(options.prior, asked.device, options.precision, contrast.name)
        warnings = [w for _, head, own in opened for w in (*head.acquisition.warnings, *head.mask.warnings, *own.warnings)]
        warnings += prior_warnings(prior)
        steps = [step for _, head, own in opened for step in (orientation_step(head.whole), brain_step(head, options.mask))]
        steps += [own.step() for own in {own.name: own for _, _, own in opened}.values()]
    if asked.announce is not None:
        name = None if start is None else name_of(start)
        asked.announce(make_plan(given[0], opened[0][1], scanners[0], prior, asked.config, options, name, others=opened[1:]))
    scans = []
    with stages.stage("initial"):
        for done, ((each, head, own), scanner) in enumerate(zip(opened, scanners, strict=True)):
            stages.tell("initial", done, len(opened) + 1)
            if scanner is None:
                known = header_values(head.acquisition)
                fitted = fit_scan(head, None, options.conditional, FITTED, known, None, options.shading, own.name, options.precision)
                steps.append(fitted.shading.step())
                warnings += [*steps[-1].warnings, *fitted.fit.warnings]
                scans.append(OneScan(name_of(each), head, fitted.fit.scan_operator, fitted.initial, fitted.fit, contrast=own.name))
            else:
                known_scale = replace(scanner, intensity_scale=measurement_scale(head.brain, scanner).scale)
                image = find_initial(head, scanner, None, options.conditional, options.precision)
                scans.append(OneScan(name_of(each), head, known_scale, image, None, contrast=own.name))
        kept, repeated = without_repeats(scans)
        if len(kept) == 1:
            raise InputError(f"{repeated[0]}; expected scans that differ; give it once")
        order = in_order(kept)
        stages.tell("initial", len(opened), len(opened) + 1)
        placed, doubts = align(alike_contrasts([kept[k] for k in order]), keep_all=options.keep_all)
        if options.slice_motion:
            placed, unmoved = find_slice_motion(placed)
            doubts += unmoved
        joint = ScansOfHead(placed, [order.index(k) for k in range(len(kept))], start, shading=options.shading != "off")
        found, unlike = joint.initial()
    by_given = [placed[k] for k in joint.given]
    axes = [each.head.acquisition.slice_axis for each in by_given]
    fits = [each.fit for each in by_given]
    return _Case(joint, joint.operator, found, prior, contrast, steps, [*warnings, *repeated, *doubts, *unlike], fits, axes)


def open_prior(name: str, device: str, precision: str, contrast: str | None = None) -> Prior:
    """The prior that is asked for, told a contrast, computing in the precision that is asked for."""
    return load_prior(name, device, type_named(precision), contrast)


def prior_warnings(prior: Prior) -> list[str]:
    """What a prior's card leaves open."""
    warnings = []
    if not prior.domain.errors:
        warnings.append(
            "the prior's card has no denoising errors, so that those of a good prior are taken, which this one may not reach; train it "
            "with --validation"
        )
    if not prior.domain.start_level:
        warnings.append(
            "the prior's card has no calibration of the start level, so that the bundled prior's is taken, which may start too high or too "
            "low; run `dynamicdps calibrate start` and give --start-calibration"
        )
    return warnings


def models_for(options: EnhanceOptions, *, with_conditional: bool) -> dict[str, ModelFile]:
    """The models that are used, by kind.

    Raises:
        InputError: one cannot be used.
    """
    models = {"prior": read_model(options.prior, "prior")}
    if with_conditional:
        models["conditional"] = read_model(options.conditional, CONDITIONAL_KINDS)
        load_conditional(options.conditional, precision=type_named(options.precision))
    return models


def contrast_for(asked: str, scan: Path | Volume, head: BrainScan, models: Mapping[str, ModelFile]) -> ScanContrast:
    """The scan's contrast, which all models must know.

    Raises:
        InputError: the user, the scan's name or its sequence says a contrast that a model was not made for.
    """
    cards = [set(known_contrasts(model.card)) for model in models.values()]
    contrast = find_contrast(asked, scan, head, set(KNOWN).intersection(*(names for names in cards if names)))
    for model in models.values():
        check_contrast(contrast.name, model)
    return contrast


def find_initial(head: BrainScan, operator: ScanOperator, start: Volume | None, conditional: str, precision: str) -> Initial:
    """The volume that is given, or the conditional model's image of the scan without shading, which no model knows."""
    if start is not None:
        return initial_from_volume(head.brain, operator, start, name_of(start))
    even = without_shading(head.around, operator.operator)
    model = load_conditional(conditional, precision=type_named(precision))
    return initial_from_model(even, operator, model, conditional, head.soft_mask)


def within_memory(options: EnhanceOptions, config: Any, scan: Volume, operator: ScanOperator, prior: Prior, card: dict[str, Any]) -> Any:
    """The configuration with as many slices a denoiser pass as the memory that is allowed; as it is where none is named.

    Raises:
        InputError: the budget is too small for any.
    """
    if options.memory is None or not isinstance(config, SamplerConfig):
        return config
    shape, whole = operator.grid_for(scan)[0], is_solved_whole(operator.operator, prior)
    kept = config.samples if config.samples > 1 else 0
    chunk = chunk_within(options.memory, shape, whole, card, options.precision, kept, config.differentiates)
    return replace(config, chunk=chunk)


def with_cost(metrics: StageMetrics, result: Result) -> StageMetrics:
    """A solver's metrics with what it took."""
    seconds = round(result.seconds, 2)
    return replace(metrics, nfe=result.nfe, nbackward=result.nbackward, start_sigma=result.start_sigma, seconds=seconds)


def in_head(head: BrainScan, estimate: Volume, grid: str) -> tuple[Placing, Volume | None]:
    """What puts the estimate and its samples into the head, on the grid that is asked for, and the brain mask with its soft edge.

    A skull-stripped scan has no surroundings: on the prior's grid images stay as they are, without a mask.
    """
    if head.weights is None and grid == "prior":
        return lambda volume: volume, None
    return head.surroundings(estimate, grid).with_brain, head.mask.soft(head.whole, EDGE_MM)


def brain_alone(head: BrainScan, estimate: Volume, grid: str) -> tuple[Placing, None]:
    """What leaves the inside of the brain on the grid that is asked for, 0 around it; the second is no mask, as `in_head` has it."""
    chosen = native_grid(estimate) if grid == "prior" else target_grid(grid, head.whole)
    return lambda volume: sample(estimate_alone(head, volume), chosen, order=3), None


def _title(to: str | None, contrast: ScanContrast, scans: int) -> str:
    if to is not None:
        return f"{to}-like image synthesised from a {contrast.name} scan"
    return f"Enhanced scan{'s' * (scans > 1)}"


def estimate_alone(head: BrainScan, estimate: Volume) -> Volume:
    """The estimate inside the brain: outside of it nothing was measured, and what the solver leaves there is no result."""
    return estimate if head.weights is None else estimate.with_data(estimate.data * head.inside_on(estimate))


def maps_of(head: BrainScan | None, result: Result, unsupported: Volume | None) -> tuple[Volume | None, Volume | None]:
    """Uncertainty and null-space part of a result, ended at the brain of a head: outside nothing was measured."""
    uncertainty = result.uncertainty
    if head is None or head.weights is None:
        return uncertainty, unsupported
    inside = head.inside_on(result.volume)
    uncertainty, unsupported = (v if v is None else v.with_data(v.data * inside) for v in (uncertainty, unsupported))
    return uncertainty, unsupported


def start_rule(config: Any, result: Result, prior: Prior) -> StartRule | None:
    """The calibration that chose the start levels; `None` where they were given or the solver has none."""
    if not isinstance(config, DynamicDPSConfig) or config.start_sigma is not None:
        return None
    return config.start_rule or start_rule_of(prior, result.volume.shape[2])


def result_facts(
    solver: str, config: Any, result: Result, operator: ScanOperator, models: Mapping[str, ModelFile], structures: ImageStructures
) -> dict[str, Any]:
    """What run.json says of a reconstruction."""
    return {
        "models": {kind: model.card["sha256"] for kind, model in models.items()} | dict(structures.models),
        "cards": {kind: {"name": model.name, **model.card} for kind, model in models.items()},
        "operator": operator.to_json(),
        "solver": solver,
        "settings": settings_of(config),
        "intensity_scale": result.scale.scale,
        "start_sigma": result.start_sigma,
        "warnings": result.reconstruction.warnings,
    }


def settings_of(config: Any) -> dict[str, Any]:
    """A solver's settings as plain values, calibrations by their source; what is not set is left out."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {name: getattr(value, "source", value) for name, value in values.items() if value is not None}


def words_of(scans: Sequence[Path | Volume], start: Volume | None, options: EnhanceOptions) -> tuple[str, ...]:
    """The words of the command line that enhance the same, without the folder; none where an image has no file."""
    if any(isinstance(scan, Volume) and scan.path is None for scan in scans) or (start is not None and start.path is None):
        return ()
    initial = [] if start is None else ["--initial", name_of(start)]
    plain = EnhanceOptions(**values_of(options, EnhanceOptions))
    return ("enhance", *map(name_of, scans), *initial, *as_words(plain))
