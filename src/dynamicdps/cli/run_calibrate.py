"""`dynamicdps calibrate start`."""

from typing import TYPE_CHECKING

from dynamicdps.cli.progress import out, progress_bar
from dynamicdps.cli.record import recorded
from dynamicdps.cli.run_enhance import open_prior
from dynamicdps.conditional import load_unet
from dynamicdps.diffusion import read_model
from dynamicdps.diffusion.model_file import write_json
from dynamicdps.errors import InputError
from dynamicdps.operators import preset
from dynamicdps.solvers import DynamicDPSConfig
from dynamicdps.solvers.calibrate import calibrate_start, spread_slices

if TYPE_CHECKING:
    from dynamicdps.cli.commands import Calibrate


def run(arguments: "Calibrate") -> None:
    if arguments.out.suffix != ".json":
        raise InputError(f"cannot write {arguments.out.name!r}; expected a name that ends in .json; change --out")
    if not arguments.scans:
        raise InputError("there is no scan to calibrate on; expected at least one SCAN; name skull-stripped T1w files")
    degradations = {name: preset(name) for name in arguments.degradations}
    coupled = [name for name, operator in degradations.items() if operator.couples_slices]
    if coupled:
        raise InputError(f"{coupled[0]} couples slices; expected degradations of single slices; leave it out")
    with recorded(arguments.out.parent, "calibrate start", arguments, f"{arguments.out.stem}.run.json") as record:
        truth = spread_slices(arguments.scans, arguments.slices_per_scan)
        models = {name: load_unet(name) for name in arguments.conditional}
        record.facts["models"] = {"prior": read_model(arguments.prior, "prior").card["sha256"]}
        source = f"{len(truth)} slices of {len(arguments.scans)} scans; {', '.join(models)}; {', '.join(degradations)}"
        with progress_bar("calibrate start", "runs") as bar, record.timed("calibrate"):
            found = calibrate_start(
                truth,
                models,
                degradations,
                open_prior(arguments.prior, "cpu", arguments.precision),
                config=DynamicDPSConfig(samples=arguments.samples, steps=arguments.steps),
                seed=arguments.seed,
                source=source,
                progress=bar,
            )
        write_json(arguments.out, found.rule.to_json())
    out.print("start level by excess misfit of the initial image (image intensities):")
    for misfit, sigma in zip(found.rule.misfit, found.rule.sigma, strict=True):
        out.print(f"  {misfit:8.4f}  {sigma:6.3f}")
    out.print(f"{arguments.out}")
