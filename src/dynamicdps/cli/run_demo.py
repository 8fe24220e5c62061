"""`dynamicdps demo`: the main job on the bundled scan."""

from dynamicdps.cli.commands import Demo
from dynamicdps.cli.progress import out, say, stage_bars
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import LEGEND, metrics_table, volumes_line
from dynamicdps.models import demo_scan
from dynamicdps.pipeline import demo
from dynamicdps.pipeline.checks import check_device
from dynamicdps.pipeline.demonstration import CONDITIONAL, DEGRADATION
from dynamicdps.pipeline.enhanced import write_page
from dynamicdps.volumes import load


def run(arguments: Demo) -> None:
    check_device(arguments.device)
    out.print(f"[bold]Scan[/]: a slab of Colin 27, {load(demo_scan()).shape[2]} slices. No model has seen it.")
    out.print(f"[bold]Measurement[/]: {DEGRADATION}: in-plane resolution / 4 and a contrast that {CONDITIONAL} has never seen.")
    options = {name: value for name, value in vars(arguments).items() if name != "out"}
    with recorded(arguments.out, "demo", arguments) as record:
        with stage_bars("DynamicDPS", "denoiser passes") as bars:
            result = demo(**options, progress=bars)
        record.facts |= result.facts
        record.durations |= result.durations
        result.operator.save(arguments.out / "measurement.operator.json")
        result.write_results(arguments.out)
    # After run.json, which it shows: the page of `dynamicdps report`.
    report, warnings = write_page(arguments.out)
    out.print(metrics_table(result.metrics))
    say(LEGEND)
    say(volumes_line(result.volumes, result.intervals, slab=True))
    for warning in warnings:
        say(f"warning: {warning}")
    say(f"Report: {report}")
