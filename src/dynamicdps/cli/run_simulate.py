"""`dynamicdps simulate`."""

from dataclasses import replace

from dynamicdps.cli.commands import Simulate
from dynamicdps.cli.progress import say
from dynamicdps.cli.record import recorded
from dynamicdps.errors import InputError
from dynamicdps.operators import LowField, Noise, read_operator, simulate
from dynamicdps.volumes import load
from dynamicdps.volumes.volume import SUFFIXES

WHITE_MATTER = 0.9


def run(arguments: Simulate) -> None:
    path = arguments.out
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"cannot write {path.name!r}; expected a name that ends in .nii or .nii.gz; change --out")
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    scanner = read_operator(arguments.degradation)
    operator = scanner.operator
    names = ("gamma", "in_plane_factor", "blur", "slice_thickness", "noise_std", "noise")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.snr is not None:
        if arguments.noise_std is not None:
            raise InputError("both --noise-std and --snr are given; expected one of them; leave one out")
        if arguments.snr <= 0:
            raise InputError(f"--snr is {arguments.snr:g}; expected a number greater than 0")
        given["noise_std"] = WHITE_MATTER ** given.get("gamma", getattr(operator, "gamma", 1.0)) / arguments.snr
    if given and not isinstance(operator, LowField):
        raise InputError(
            f"--{'snr' if arguments.snr is not None else next(iter(given)).replace('_', '-')} is given with {arguments.degradation}, a "
            f"{type(operator).__name__}; expected it with a LowField alone; write the parameter into the operator's file"
        )
    if isinstance(operator, LowField):
        noise = Noise(given.pop("noise_std", scanner.noise.std), given.pop("noise", scanner.noise.kind))
        scanner = replace(scanner, operator=replace(operator, **given), noise=noise)
    scan = load(arguments.scan)
    with recorded(path.parent, "simulate", arguments, f"{stem}.run.json"):
        measurement, tied = simulate(scan, scanner, seed=arguments.seed)
        tied.save(path.with_name(f"{stem}.operator.json"))
        measurement.save(path)
    say(f"{tied}")
    x, y, z = measurement.shape
    spacing = " x ".join(f"{s:g}" for s in measurement.spacing)
    say(f"{path}: {x} x {y} x {z} voxels of {spacing} mm; operator beside it in {stem}.operator.json")
