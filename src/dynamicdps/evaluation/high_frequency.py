"""Error in what the measurement does not resolve."""

import math

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators import Operator
from dynamicdps.operators.image_grid import voxel_factors


def nyquist_frequency(operator: Operator, spacing: float) -> float:
    """Highest frequency in cycles/mm that the measurement's grid holds in the plane, ``1 / (2 voxel)``, of its longer voxel side.

    Args:
        operator: the forward model.
        spacing: of the image grid in the plane, in mm.
    """
    x, y, _ = voxel_factors(operator)
    return 1 / (2 * max(x, y) * spacing)


def high_frequency_error(image: Tensor, truth: Tensor, *, low: float, high: float = math.inf, spacing: float = 1.0) -> Tensor:
    """Energy of the error over energy of the truth in a band of radial frequency, slice by slice.

    0 is perfect; 1 is what an image gets that shows nothing in the band; above 1 what it shows there is worse than nothing. Below
    the measurement's Nyquist frequency data decide, above it the prior: `low` at `nyquist_frequency` measures what was filled in.

    Args:
        image: ``(slices, 1, height, width)``.
        truth: the same shape.
        low: cycles/mm, from where the band counts; 0 leaves out nothing.
        high: cycles/mm, up to where; by default the corners of the spectrum.
        spacing: of pixels in mm.

    Returns:
        ``(slices,)``, float64; not finite where the truth has nothing in the band.

    Raises:
        InputError: the band holds no frequency of the image.
        ValueError: the shapes differ or are not those of slices.
    """
    if image.shape != truth.shape or image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f"slices have shapes {tuple(image.shape)} and {tuple(truth.shape)}; expected (slices, 1, height, width) twice")
    v, u = (torch.fft.fftfreq(n, spacing, dtype=torch.float64, device=truth.device) for n in truth.shape[-2:])
    radius = (v[:, None].square() + u[None].square()).sqrt()
    band = (radius >= low) & (radius <= high)
    if not bool(band.any()):
        raise InputError(
            f"the band from {low:g} to {high:g} cycles/mm is empty; expected frequencies up to {float(radius.max()):.3g} for pixels of "
            f"{spacing:g} mm"
        )

    def energy(x: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.fft2(x)
        return spectrum[..., band].abs().square().sum((1, 2))

    return energy(image.double() - truth.double()) / energy(truth.double())
