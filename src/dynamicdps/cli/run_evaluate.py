"""`dynamicdps evaluate`."""

from pathlib import Path

from dynamicdps.cli.commands import Evaluate
from dynamicdps.cli.progress import out, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import LEGEND, metrics_table
from dynamicdps.errors import InputError
from dynamicdps.evaluation import evaluate_volume
from dynamicdps.operators import read_operator
from dynamicdps.output_names import ENHANCED, ENHANCED_BRAIN, INITIAL, MEASUREMENT
from dynamicdps.pipeline.demonstration import interpolated
from dynamicdps.pipeline.enhanced import write_metrics
from dynamicdps.volumes import IntensityScale, Volume, load, resample_to


def run(arguments: Evaluate) -> None:
    if (arguments.measurement is None) != (arguments.operator is None):
        raise InputError("one of --measurement and --operator is missing; expected both or neither; add the other")
    reconstruction, truth = load(arguments.reconstruction), load(arguments.truth)
    measurement = load(arguments.measurement) if arguments.measurement else None
    operator = read_operator(arguments.operator) if arguments.operator else None
    with recorded(arguments.out, "evaluate", arguments) as record, record.timed("evaluate"):
        scale = IntensityScale.robust(truth.data)
        images = {**beside(arguments.reconstruction, truth, measurement), arguments.name: reconstruction}
        stages = {
            name: evaluate_volume(image, truth, scale, *((measurement, operator) if name != "measurement" else ()))
            for name, image in images.items()
        }
        write_metrics(arguments.out, stages)
    out.print(metrics_table(stages))
    say(LEGEND)
    alone = arguments.reconstruction.with_name(ENHANCED_BRAIN)
    if arguments.reconstruction.name == ENHANCED and alone.is_file():
        say(f"warning: {arguments.reconstruction} shows the scan around the brain; evaluate {alone.name}, which is the estimate alone")
    say(f"{arguments.out / 'metrics.json'}")


def beside(reconstruction: Path, truth: Volume, measurement: Volume | None) -> dict[str, Volume]:
    """What the reconstruction is to be compared with, by stage, on the truth's grid: the measurement as one sees it, and the initial image.

    Args:
        reconstruction: of a results folder, in which both lie beside it; any other file has nothing beside it.
        truth: the good scan.
        measurement: what was given.
    """
    found = {} if measurement is None else {"measurement": interpolated(measurement, truth)}
    if reconstruction.name not in (ENHANCED, ENHANCED_BRAIN):
        return found
    measured, initial = (reconstruction.with_name(name) for name in (MEASUREMENT, INITIAL))
    if not found and measured.is_file():
        found["measurement"] = interpolated(load(measured), truth)
    if initial.is_file():
        found["conditional"] = resample_to(load(initial), truth.shape, truth.affine)
    return found
