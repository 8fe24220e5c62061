"""The main job on the bundled scan: simulate, enhance, and compare with the truth."""

from typing import Literal

from dynamicdps.conditional import load_unet
from dynamicdps.evaluation import evaluate_volume, segment, unsupported_map
from dynamicdps.models import demo_scan
from dynamicdps.models.model_file import read_model
from dynamicdps.operators import preset, simulate
from dynamicdps.pipeline.brain_volumes import keeping_samples, volume_intervals, without_samples
from dynamicdps.pipeline.checks import check_device, solver_config
from dynamicdps.pipeline.enhanced import Enhanced
from dynamicdps.pipeline.enhancement import maps_of, open_prior, result_facts, start_rule, with_cost
from dynamicdps.pipeline.image_structures import image_structures
from dynamicdps.pipeline.options import StudyOptions
from dynamicdps.pipeline.progress import Progress, Stages
from dynamicdps.pipeline.ranges import misfit_range, quality_ranges
from dynamicdps.report.run_folder import misfit_warnings
from dynamicdps.report.trace import start_rows
from dynamicdps.solvers import solve
from dynamicdps.solvers.initial import initial_from_model
from dynamicdps.volumes import IntensityScale, Volume, brain_mask, load, resample_to

PRIOR, CONDITIONAL, DEGRADATION, SOLVER = "brain", "unet-iqt-in", "iqt-out", "dynamicdps"


def demo(
    *,
    quality: Literal["fast", "default", "best"] = "default",
    samples: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Enhanced:
    """Degrade the bundled scan, whose contrast its conditional model has then never seen, and enhance it.

    Args:
        quality: as `EnhanceOptions`.
        samples: likewise.
        precision: likewise.
        seed: likewise.
        device: likewise.
        progress: is told how far the work is.

    Returns:
        With its truth, and the stage ``measurement``: the measurement, interpolated on the image grid.

    Raises:
        InputError: an option is wrong.
    """
    check_device(device)
    config = solver_config(StudyOptions(solver=SOLVER, quality=quality, samples=samples))
    stages = Stages(progress)
    truth = load(demo_scan())
    measurement, operator = simulate(truth, preset(DEGRADATION), seed=seed)
    models = {"prior": read_model(PRIOR, "prior"), "conditional": read_model(CONDITIONAL, "unet")}
    with stages.stage("initial"):
        initial = initial_from_model(measurement, operator, load_unet(CONDITIONAL), CONDITIONAL)
    prior = open_prior(PRIOR, device, precision)
    result = solve(
        SOLVER,
        measurement,
        operator,
        prior,
        initial=initial.volume,
        seed=seed,
        config=keeping_samples(config),
        progress=lambda done, planned: stages.tell("solve", done, planned),
    )
    drawn, result = result.samples, without_samples(result)
    with stages.stage("volumes"):
        scale = IntensityScale.robust(truth.data)
        images = {"measurement": interpolated(measurement, truth), "conditional": result.initial, SOLVER: result.volume}
        mask = brain_mask(truth)
        labels = segment(truth.data, mask)
        metrics = {
            name: evaluate_volume(image, truth, scale, *((measurement, operator) if name != "measurement" else ()), truth_labels=labels)
            for name, image in images.items()
        }
        metrics[SOLVER] = with_cost(metrics[SOLVER], result)
        ranges = {name: quality_ranges(image, truth, scale) for name, image in images.items()}
        for name in ("conditional", SOLVER):
            ranges[name] |= misfit_range(images[name], measurement, operator, scale)
        intervals = volume_intervals(drawn, mask, metrics[SOLVER].volume_mm3)
        structures = image_structures(
            result.volume, drawn, truth.with_data(mask), sided=True, edge_mm=max(measurement.spacing), device=device
        )
        result.reconstruction.warnings.extend(structures.warnings)
    result.reconstruction.warnings.extend(misfit_warnings(metrics[SOLVER].data_misfit))
    uncertainty, hallucination = maps_of(None, result, unsupported_map(result.volume, operator, result.scale))
    return Enhanced(
        scan="a slab of Colin 27",
        image=result.volume,
        estimate=result.volume,
        brain_mask=None,
        measurement=measurement,
        uncertainty=uncertainty,
        hallucination=hallucination,
        result=result,
        solver=SOLVER,
        operator=operator,
        fit=None,
        metrics=metrics,
        ranges=ranges,
        intervals=intervals,
        slab=True,
        misfit_space="",
        steps=(),
        starts=start_rows(result, [(measurement, operator)]),
        start_rule=start_rule(config, result, prior),
        facts={
            **result_facts(SOLVER, config, result, operator, models, structures),
            "title": "DynamicDPS demo: a slab of Colin 27",
            "initial": initial.source,
            "slab": True,
        },
        durations=stages.seconds,
        truth=truth,
        structures=structures,
    )


def interpolated(measurement: Volume, grid: Volume) -> Volume:
    """The measurement as one sees it: linearly interpolated on the image grid, edges held by the nearest voxel."""
    linear = resample_to(measurement, grid.shape, grid.affine, order="linear")
    nearest = resample_to(measurement, grid.shape, grid.affine, order="nearest")
    return linear.with_data(linear.data + (linear.data == 0) * nearest.data)
