"""Solve for a scan whose measurement is k-space."""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.diffusion import Denoiser, as_prior
from dynamicdps.operators import ScanOperator
from dynamicdps.operators.kspace_encoding import EncodedOperator
from dynamicdps.operators.kspace_measurement import KSpaceMeasurement
from dynamicdps.solvers.data_fidelity import data_misfit
from dynamicdps.solvers.reconstruction import Progress
from dynamicdps.solvers.solve import Result, measurement_scale, solve_tensors
from dynamicdps.volumes import Volume, from_slices, resample_to, to_slices


def solve_kspace(
    name: str,
    measured: KSpaceMeasurement,
    scan: Volume,
    operator: ScanOperator,
    prior: Denoiser,
    *,
    initial: Volume,
    seed: int = 0,
    config: object = None,
    progress: Progress | None = None,
) -> Result:
    """Reconstruct the brain of a raw scan.

    Args:
        name: of a solver; linear ones cannot undo a contrast in k-space.
        measured: what is left of the k-space to explain.
        scan: magnitude of the brain on the measured grid, units of the file: it gives the grid and, where none is recorded, the
            intensity scale.
        operator: B, what the scanner shows before k-space.
        prior: the denoiser.
        initial: the conditional model's output, in the units of the scan.
        seed: of all randomness.
        config: the solver's configuration; by default its own defaults.
        progress: called with steps done and planned.

    Returns:
        As `solve`; the residual is an image on the scan's grid in which noise alone has a standard deviation of about 1.

    Raises:
        InputError: there is no solver of that name, it cannot work with this operator, or the grids do not fit each other.
    """
    shape, affine = operator.grid_for(scan)
    scale = measurement_scale(scan, operator)
    start = resample_to(initial, shape, affine)
    device = as_prior(prior).device
    forward = measured.operator(operator.operator, scale.scale)
    y = (measured.data / scale.scale).to(device)
    x = to_slices(start.data / scale.scale, device).movedim(0, 1)[None]
    began = time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    found = solve_tensors(name, y, forward, prior, x, generator=generator, config=config, progress=progress)
    seconds = time.monotonic() - began

    def on_grid(image: torch.Tensor) -> NDArray[np.float32]:
        return from_slices(image[0].movedim(1, 0)) * np.float32(scale.scale)

    grid = Volume(on_grid(found.image), affine, scan.native)
    residual = measured.residual_image((y - forward(found.image)) / forward.noise_std)
    return Result(
        volume=grid,
        initial=grid.with_data(start.data),
        residual=scan.with_data(residual),
        uncertainty=None if found.uncertainty is None else grid.with_data(on_grid(found.uncertainty)),
        reconstruction=found,
        scale=scale,
        seconds=seconds,
        samples=() if found.samples is None else tuple(grid.with_data(on_grid(each)) for each in found.samples.unbind(1)),
    )


def kspace_misfit(volume: Volume, measured: KSpaceMeasurement, operator: ScanOperator, scale: float) -> tuple[float, NDArray[np.float64]]:
    """Data misfit of an image against k-space, of all of it and of each measured slice; 1 is noise alone.

    Args:
        volume: on the image grid, units of the file.
        measured: the k-space.
        operator: B.
        scale: units of the file of one image-intensity unit.
    """
    y, forward, x = residual_parts(volume, measured, operator, scale)
    residual = (y - forward(x)) / forward.noise_std
    return float(data_misfit(forward, y, x)[0]), measured.slice_misfits(residual)


def residual_parts(
    volume: Volume, measured: KSpaceMeasurement, operator: ScanOperator, scale: float
) -> tuple[torch.Tensor, EncodedOperator, torch.Tensor]:
    """Measurement, forward model and image in image intensities."""
    forward = measured.operator(operator.operator, scale)
    return measured.data / scale, forward, to_slices(volume.data / scale).movedim(0, 1)[None]
