"""`dynamicdps demo`: the main job on the bundled scan."""

from typing import TYPE_CHECKING

from dynamicdps.cli.brain_volumes import keeping_samples, volume_intervals, volumes_line, without_samples
from dynamicdps.cli.outputs import misfit_range, quality_ranges, run_facts, write_metrics, write_page, write_steps, write_volumes
from dynamicdps.cli.progress import console, out, progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.run_enhance import check_device, open_prior, with_cost
from dynamicdps.cli.table import metrics_table
from dynamicdps.conditional import load_unet
from dynamicdps.diffusion import read_model
from dynamicdps.evaluation import evaluate_volume, segment
from dynamicdps.models import demo_scan
from dynamicdps.operators import preset, simulate
from dynamicdps.report.trace import start_rows
from dynamicdps.solvers import make_config, solve
from dynamicdps.solvers.dynamicdps import QUALITIES
from dynamicdps.solvers.initial import initial_from_model
from dynamicdps.volumes import IntensityScale, Volume, brain_mask, load, resample_to

if TYPE_CHECKING:
    from dynamicdps.cli.commands import Demo

PRIOR = "brain"
CONDITIONAL = "unet-iqt-in"
DEGRADATION = "iqt-out"


def run(arguments: "Demo") -> None:
    device = check_device(arguments.device)
    truth = load(demo_scan())
    out.print(f"[bold]Scan[/]: a slab of Colin 27, {truth.shape[2]} slices. No model has seen it.")
    out.print(f"[bold]Measurement[/]: {DEGRADATION}: in-plane resolution / 4 and a contrast that {CONDITIONAL} has never seen.")
    with recorded(arguments.out, "demo", arguments) as record:
        measurement, operator = simulate(truth, preset(DEGRADATION), seed=arguments.seed)
        operator.save(arguments.out / "measurement.operator.json")
        models = {"prior": read_model(PRIOR, "prior"), "conditional": read_model(CONDITIONAL, "unet")}
        config = make_config(
            "dynamicdps", QUALITIES[arguments.quality] | ({} if arguments.samples is None else {"samples": arguments.samples})
        )
        with record.timed("initial"):
            initial = initial_from_model(measurement, operator, load_unet(CONDITIONAL), CONDITIONAL)
        prior = open_prior(PRIOR, device, arguments.precision)
        with progress_bar("DynamicDPS", "denoiser passes") as bar:
            result = solve(
                "dynamicdps",
                measurement,
                operator,
                prior,
                initial=initial.volume,
                seed=arguments.seed,
                config=keeping_samples(config),
                progress=bar,
            )
        record.facts |= {
            **run_facts("dynamicdps", config, result, operator, models),
            "title": "DynamicDPS demo: a slab of Colin 27",
            "initial": initial.source,
            "slab": True,
        }
        samples, result = result.samples, without_samples(result)
        write_volumes(arguments.out, measurement, operator, result, truth)
        write_steps(arguments.out, start_rows(result, measurement, operator), result, config, prior)
        with record.timed("evaluate"), console.status("tissue volumes ..."):
            scale = IntensityScale.robust(truth.data)
            on_grid = interpolated(measurement, truth)
            mask = brain_mask(truth)
            labels = segment(truth.data, mask)
            enhanced = evaluate_volume(result.volume, truth, scale, measurement, operator, truth_labels=labels)
            stages = {
                "measurement": evaluate_volume(on_grid, truth, scale, truth_labels=labels),
                "conditional": evaluate_volume(result.initial, truth, scale, measurement, operator, truth_labels=labels),
                "dynamicdps": with_cost(enhanced, result),
            }
            images = {"measurement": on_grid, "conditional": result.initial, "dynamicdps": result.volume}
            ranges = {name: quality_ranges(image, truth, scale) for name, image in images.items()}
            for name in ("conditional", "dynamicdps"):
                ranges[name] |= misfit_range(images[name], measurement, operator, scale)
            intervals = volume_intervals(samples, mask, enhanced.volume_mm3)
        write_metrics(arguments.out, stages, ranges, {"dynamicdps": intervals})
    # After run.json, which it shows: the page of `dynamicdps report`.
    report = write_page(arguments.out)
    out.print(metrics_table(stages))
    say("misfit: rms of (y - A x) / noise, 1 is noise alone. CSF, GM, WM: error of the tissue volume. NFE: denoiser passes.")
    say(volumes_line(enhanced.volume_mm3, intervals, slab=True))
    for warning in result.reconstruction.warnings:
        say(f"warning: {warning}")
    say(f"Report: {report}")


def interpolated(measurement: Volume, grid: Volume) -> Volume:
    """The measurement as one sees it: linearly interpolated on the image grid, edges held by the nearest voxel."""
    linear = resample_to(measurement, grid.shape, grid.affine, order="linear")
    nearest = resample_to(measurement, grid.shape, grid.affine, order="nearest")
    return linear.with_data(linear.data + (linear.data == 0) * nearest.data)
