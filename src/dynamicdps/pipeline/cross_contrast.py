"""The T1w-like image that explains a T2w scan: what it starts from, and the forward model from it to the scan."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.data_term import scan_term
from dynamicdps.errors import InputError
from dynamicdps.operators import ScanOperator
from dynamicdps.pipeline.other_contrast import explain
from dynamicdps.priors import Prior
from dynamicdps.solvers.initial import Initial
from dynamicdps.volumes import BrainScan, Volume, from_slices, to_batch
from dynamicdps.volumes.grids import Grid, sample
from dynamicdps.volumes.morphology import erode

# The contrast that images are made in, and those of the scans that a falling curve leads to.
TO, FROM = "T1w", ("T2w",)
# Share of a brain's voxels, fluid around it included, that are darker than each intensity of a T1w image: means of six whole heads of as
# many scanners that the prior was trained on (patient 07, AOMIC, JHU Eve, FreeSurfer's demo image, two of OASIS).
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
T1W = (0.0, 0.045, 0.077, 0.136, 0.225, 0.304, 0.365, 0.41, 0.451, 0.515, 0.57, 0.64, 0.729, 0.817, 0.886, 0.907, 0.931, 0.95, 1.0)
# Noise of the falling image, which the prior takes off it, in image intensities.
NOISE_LEVEL = 0.12
# Share of the darkest tissue's intensity below which a scan shows less than any tissue.
VOID = 0.7
# Around a stripped brain nothing was measured, and the curve would take it for white matter: its rim of this width does not count.
RIM_MM = 2.0


@dataclass(frozen=True)
class Crossed:
    """How a T1w-like image explains a scan of another contrast.

    Attributes:
        head: the scan with weights: outside of its brain nothing counts.
        scanner: from the T1w-like image to the scan: a free curve, then the scan's own blur, slices and noise.
        initial: the T1w-like image to start from, in the units of the scan.
    """

    head: BrainScan
    scanner: ScanOperator
    initial: Initial


def check_to(to: str | None) -> str | None:
    """The contrast that is asked for, as BIDS writes it.

    Raises:
        InputError: no image can be made in it.
    """
    if to is None or to.lower() == TO.lower():
        return None if to is None else TO
    raise InputError(
        f"--to is {to!r}; expected T1w, the contrast of most training scans; leave it out for an image in the scan's own contrast"
    )


def check_from(contrast: str) -> None:
    """Refuse scans that no falling curve leads to.

    Raises:
        InputError: the scan is T1w already, or of a contrast in which fluid is not brightest.
    """
    if contrast == TO:
        raise InputError("--to T1w is given for a T1w scan; expected a T2w scan; leave --to out, or give --contrast if the scan is no T1w")
    if contrast not in FROM:
        raise InputError(
            f"--to T1w is given for a scan of contrast {contrast}; expected a T2w scan, where fluid is brightest and white matter darkest; "
            "leave --to out, or give --contrast T2w if it is one"
        )


def synthesised_warning(contrast: str) -> str:
    """What stands above everything else that is said of such an image."""
    return (
        f"synthesised contrast: the image is T1w-like and was made from a {contrast} scan; how bright a tissue is in it comes from models, "
        "and what the scan does not show was not measured: look at the scan itself for lesions"
    )


def cross(head: BrainScan, scanner: ScanOperator, scale: float, prior: Prior, start: Initial | None) -> Crossed:
    """The T1w-like image to start from, and how it explains the scan.

    Without an image to start from, the scan's intensities are mapped by the falling curve after which as many voxels of the brain are
    darker than each intensity as in T1w heads; the prior takes the noise off. From the T1w-like image to the scan leads a free curve
    (`explain`), which follows what that image and the scan say.

    Args:
        head: a T2w scan and its brain.
        scanner: its forward model, whose own contrast is left out.
        scale: scanner units of one image-intensity unit.
        prior: told T1w.
        start: a T1w-like image of the same head.

    Raises:
        InputError: the forward model is not linear behind a contrast.
    """
    linear = scanner.operator.linear
    if linear is None:
        raise InputError(
            f"{scanner.operator} is not linear behind a contrast; expected it to be for --to; give --operator fit, or leave --to out"
        )
    head = head if head.weights is not None else _weighted(head)
    assert head.weights is not None
    shape, affine = scanner.grid_for(head.brain)
    if start is None:
        fallen = falling_image(head, Grid(shape, affine), scale)
        start = Initial(_denoised(fallen, prior, head, scale), "falling curve of the scan, denoised by the prior")
    else:
        fallen = start.volume
    own = scanner.operator if scanner.operator.is_linear else linear
    measured = replace(scanner, operator=own, intensity_scale=scale).weighted(head.weights)
    term = scan_term(head.brain, measured, scale, whole=True)
    explained = explain(term, to_batch(fallen.data / scale), head.brain.spacing, shading=False)
    operator = explained.with_curve(own)
    return Crossed(head, replace(scanner, operator=operator, intensity_scale=scale), start)


def falling_image(head: BrainScan, grid: Grid, scale: float) -> Volume:
    """The scan on a grid with its intensities turned round: the brightest of its brain are darkest, with the histogram of T1w heads.

    Args:
        head: the scan and its brain.
        grid: where to; the scan is interpolated by cubic splines.
        scale: of the result: what 1 in a T1w image becomes.

    Raises:
        InputError: the brain has one intensity.
    """
    values = head.whole.data[head.mask.inside]
    if not values.size or values.min() == values.max():
        raise InputError("the brain of the scan has one intensity; expected tissues that differ; check the scan and its mask")
    # As many voxels are brighter in the scan as are darker in the image.
    brighter = np.quantile(values, [1 - share for share in SHARES])
    image = sample(head.around, grid, order=3)
    turned = np.interp(image.data, brighter[::-1], T1W[::-1])
    # Where there is no signal at all, T1w images have none either: beyond a stripped brain, and in fast blood.
    void = VOID * float(np.quantile(values, 0.02))
    turned = turned * (np.clip(image.data / void, 0, 1) if void > 0 else 1)
    return image.with_data((scale * turned * head.inside_on(image)).astype(np.float32))


def _denoised(image: Volume, prior: Prior, head: BrainScan, scale: float) -> Volume:
    with torch.inference_mode():
        x = to_batch(image.data / scale, prior.device)
        clean: NDArray[np.float32] = from_slices(prior(x, torch.full((1,), NOISE_LEVEL, device=x.device)).cpu())
    return image.with_data((scale * clean * head.inside_on(image)).astype(np.float32))


def _weighted(head: BrainScan) -> BrainScan:
    """A stripped scan with weights: its brain without the rim."""
    inner = erode(head.mask.inside, RIM_MM, head.whole.spacing)
    return replace(head, weights=(inner if inner.any() else head.mask.inside).astype(np.float32))
