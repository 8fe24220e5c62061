"""`dynamicdps sample`."""

from typing import TYPE_CHECKING

import numpy as np

from dynamicdps.cli.pictures import write_sheet
from dynamicdps.cli.progress import progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.cli.run_enhance import check_device, open_prior
from dynamicdps.diffusion import draw_samples, read_model
from dynamicdps.errors import InputError
from dynamicdps.volumes import Volume, from_slices

if TYPE_CHECKING:
    from dynamicdps.cli.commands import Sample


def run(arguments: "Sample") -> None:
    for name, high in (("n", 10_000), ("steps", 1000), ("height", 1024), ("width", 1024)):
        if not 1 <= getattr(arguments, name) <= high:
            raise InputError(f"--{name} is {getattr(arguments, name)}; expected 1 to {high}; change it")
    device = check_device(arguments.device)
    with recorded(arguments.out, "sample", arguments) as record:
        denoiser = open_prior(arguments.prior, device, arguments.precision)
        card = read_model(arguments.prior, "prior").card
        affine = np.diag([*card["spacing_mm"], 1.0])
        record.facts["models"] = {"prior": card["sha256"]}
        with progress_bar("sample", "images") as bar, record.timed("sample"):
            samples = draw_samples(
                denoiser,
                arguments.n,
                arguments.height,
                arguments.width,
                steps=arguments.steps,
                seed=arguments.seed,
                ancestral=arguments.sampler == "ancestral",
                progress=bar,
            )
        Volume(from_slices(samples), affine).save(arguments.out / "samples.nii.gz")
        write_sheet(arguments.out / "samples.png", samples[:32], f"{arguments.n} random slices of {arguments.prior}")
    say(f"{arguments.out / 'samples.png'}\n{arguments.out / 'samples.nii.gz'}")
