"""`dynamicdps sample`."""

import numpy as np
from torch import Tensor

from dynamicdps.cli.commands import Sample
from dynamicdps.cli.pictures import write_sheet
from dynamicdps.cli.progress import progress_bar, say
from dynamicdps.cli.record import recorded
from dynamicdps.errors import InputError
from dynamicdps.models.model_file import read_model
from dynamicdps.pipeline.checks import check_device
from dynamicdps.pipeline.enhancement import open_prior
from dynamicdps.priors import draw_samples
from dynamicdps.priors.layout import Layout, layout_beside, load_layout
from dynamicdps.volumes import Volume, from_slices


def run(arguments: Sample) -> None:
    for name, high in (("n", 10_000), ("steps", 1000), ("slices", 512), ("height", 1024), ("width", 1024)):
        if not 1 <= getattr(arguments, name) <= high:
            raise InputError(f"--{name} is {getattr(arguments, name)}; expected 1 to {high}")
    device = check_device(arguments.device)
    with recorded(arguments.out, "sample", arguments) as record:
        prior = open_prior(arguments.prior, device, arguments.precision, arguments.contrast)
        card = read_model(arguments.prior, "prior").card
        affine = np.diag([*prior.domain.spacing, 1.0])
        layout = open_layout(arguments, prior.domain.suffix)
        record.facts["models"] = {"prior": card["sha256"]}
        with progress_bar("sample", "images") as bar, record.timed("sample"):
            samples = draw_samples(
                prior,
                arguments.n,
                arguments.height,
                arguments.width,
                depth=arguments.slices,
                steps=arguments.steps,
                seed=arguments.seed,
                ancestral=arguments.sampler == "ancestral",
                layout=layout,
                progress=bar,
            )
        files = [arguments.out / "samples.png"]
        # Single slices lie in one file, volumes in one each.
        stacks = [samples[:, :, 0]] if arguments.slices == 1 else [volume.movedim(0, 1) for volume in samples]
        for number, stack in enumerate(stacks):
            name = "samples.nii.gz" if len(stacks) == 1 else f"sample-{number + 1}.nii.gz"
            Volume(from_slices(stack), affine).save(arguments.out / name)
            files.append(arguments.out / name)
        what = "random slices" if arguments.slices == 1 else f"middle slices of volumes of {arguments.slices}, each in three planes,"
        told = "" if arguments.contrast is None else f", told {arguments.contrast}"
        write_sheet(arguments.out / "samples.png", sheet_of(samples[:32]), f"{arguments.n} {what} of {arguments.prior}{told}")
    say("\n".join(map(str, files)))


def open_layout(arguments: Sample, suffix: str) -> Layout | None:
    """What `--layout` names; the one beside the prior only where it fits contrast and number of slices.

    Raises:
        InputError: it cannot be read.
    """
    if arguments.layout != "auto":
        return None if arguments.layout == "none" else load_layout(arguments.layout)
    layout = layout_beside(arguments.prior)
    if layout is None or layout.suffix != suffix:
        return None
    if layout.shape[0] < arguments.slices:
        say(
            f"the layout of {arguments.prior} has {layout.shape[0]} slices: {arguments.slices} are drawn without it and may be put "
            "together wrongly"
        )
        return None
    return layout


def sheet_of(samples: Tensor) -> Tensor:
    """Pictures ``(count, 1, height, width)`` of samples ``(count, 1, depth, height, width)``: of volumes the middle of three planes."""
    depth, height, width = samples.shape[2:]
    if depth == 1:
        return samples[:, :, 0]
    side = max(depth, height, width)
    sheet = samples.new_zeros((len(samples), 3, 1, side, side))
    for number, plane in enumerate((samples[:, :, depth // 2], samples[:, :, :, height // 2], samples[..., width // 2])):
        top, left = (side - plane.shape[-2]) // 2, (side - plane.shape[-1]) // 2
        sheet[:, number, :, top : top + plane.shape[-2], left : left + plane.shape[-1]] = plane
    return sheet.flatten(0, 1)
