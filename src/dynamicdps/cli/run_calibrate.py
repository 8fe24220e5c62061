"""`dynamicdps calibrate start`."""

from dynamicdps.cli.commands import CalibrateStart
from dynamicdps.cli.progress import progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.conditional import load_conditional
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json
from dynamicdps.models.model_file import read_model
from dynamicdps.operators import preset
from dynamicdps.pipeline.enhancement import open_prior
from dynamicdps.solvers import DynamicDPSConfig
from dynamicdps.solvers.calibrate import build_bank, calibrate_start, spread_slabs
from dynamicdps.solvers.dps import DPSConfig
from dynamicdps.solvers.start_level import CHUNK

# Two thick slices of the bundled degradations.
LEAST_COUPLED = 10


def run(arguments: CalibrateStart) -> None:
    if arguments.out.suffix != ".json":
        raise InputError(f"cannot write {arguments.out.name!r}; expected a name that ends in .json; change --out")
    if not arguments.scans:
        raise InputError("there is no scan to calibrate on; expected at least one SCAN; name skull-stripped files")
    for name, lowest, highest in (
        ("steps", 1, 1000),
        ("samples", 1, 1000),
        ("tau", 0.01, 2.0),
        ("slices_per_scan", 1, 1000),
        ("depth", 1, 512),
    ):
        value = getattr(arguments, name)
        if value is not None and not lowest <= value <= highest:
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected {lowest:g} to {highest:g}")
    degradations = {name: preset(name) for name in arguments.degradations}
    coupled = [name for name, scanner in degradations.items() if scanner.couples_slices]
    if coupled and arguments.depth < LEAST_COUPLED:
        raise InputError(
            f"{coupled[0]} couples slices, and --depth is {arguments.depth}; expected at least {LEAST_COUPLED} neighbouring slices; raise "
            "--depth or leave it out"
        )
    with recorded(arguments.out.parent, "calibrate start", arguments, f"{arguments.out.stem}.run.json") as record:
        truth = spread_slabs(arguments.scans, arguments.slices_per_scan, arguments.depth)
        least, kinds = (2, len(set(arguments.conditional))) if arguments.rule == "misfit" else (1, 1)
        if (images := len(truth) * len(degradations) * kinds) < least:
            raise InputError(
                f"{images} calibration images are too few; expected at least {least}; give more scans, slices, models or degradations"
            )
        models = {name: load_conditional(name) for name in arguments.conditional} if arguments.rule == "misfit" else {}
        prior = open_prior(arguments.prior, "cpu", arguments.precision, arguments.contrast)
        record.facts["models"] = {"prior": read_model(arguments.prior, "prior").card["sha256"]}
        images_of = f"{len(truth)} images of {arguments.depth} slices of {len(arguments.scans)} scans"
        source = f"{images_of}; {prior.domain.suffix}; {', '.join(models)}; {', '.join(degradations)}"
        with progress_bar("calibrate start", "runs") as bar, record.timed("calibrate"):
            if arguments.rule == "bank":
                count = arguments.steps or 1000
                bank = build_bank(
                    truth,
                    degradations,
                    prior,
                    # The paper's step is 1 at 1000 steps; fewer steps have to move as far.
                    config=DPSConfig(steps=count, step=1000 / count),
                    tau=arguments.tau,
                    seed=arguments.seed,
                    source=f"{len(truth)} slices of {len(arguments.scans)} scans; {', '.join(degradations)}",
                    progress=bar,
                )
                write_json(arguments.out, bank.to_json())
                lines = [f"  {CHUNK * (k + 1):5d}  {mean:8.2f}" for k, mean in enumerate(bank.means)]
                heading = "mean residual norm of the reference run up to each step (256 x 256 pixels of range 2):"
            else:
                found = calibrate_start(
                    truth,
                    models,
                    degradations,
                    prior,
                    config=DynamicDPSConfig(samples=arguments.samples, steps=arguments.steps or 5),
                    seed=arguments.seed,
                    source=source,
                    progress=bar,
                )
                rule = found.rule
                write_json(arguments.out, rule.to_json())
                pairs = zip(rule.misfit, rule.sigma, *rule.quantile_sigma, strict=True)
                lines = [f"  {misfit:8.4f}" + "".join(f"  {sigma:8.3f}" for sigma in row) for misfit, *row in pairs]
                names = "".join(f"  q {q:>6g}" for q in rule.quantiles)
                heading = f"start level by excess misfit of the initial image (image intensities):\n    misfit    lowest{names}"
    say("\n".join([heading, *lines]))
    say(f"{arguments.out}")
