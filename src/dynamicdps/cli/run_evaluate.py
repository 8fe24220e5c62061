"""`dynamicdps evaluate`."""

from dynamicdps.cli.commands import Evaluate
from dynamicdps.cli.progress import out, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.table import metrics_table
from dynamicdps.errors import InputError
from dynamicdps.evaluation import evaluate_volume
from dynamicdps.operators import read_operator
from dynamicdps.output_names import ENHANCED, ENHANCED_BRAIN
from dynamicdps.pipeline.enhanced import write_metrics
from dynamicdps.volumes import IntensityScale, load


def run(arguments: Evaluate) -> None:
    if (arguments.measurement is None) != (arguments.operator is None):
        raise InputError("one of --measurement and --operator is missing; expected both or neither; add the other")
    reconstruction, truth = load(arguments.reconstruction), load(arguments.truth)
    measurement = load(arguments.measurement) if arguments.measurement else None
    operator = read_operator(arguments.operator) if arguments.operator else None
    with recorded(arguments.out, "evaluate", arguments) as record, record.timed("evaluate"):
        scale = IntensityScale.robust(truth.data)
        stages = {arguments.name: evaluate_volume(reconstruction, truth, scale, measurement, operator)}
        write_metrics(arguments.out, stages)
    out.print(metrics_table(stages))
    alone = arguments.reconstruction.with_name(ENHANCED_BRAIN)
    if arguments.reconstruction.name == ENHANCED and alone.is_file():
        say(f"warning: {arguments.reconstruction} shows the scan around the brain; evaluate {alone.name}, which is the estimate alone")
    say(f"{arguments.out / 'metrics.json'}")
