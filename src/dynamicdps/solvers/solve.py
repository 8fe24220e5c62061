"""Solve by name: volumes in, volumes out."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.data_term import DataTerm, scan_term
from dynamicdps.errors import InputError
from dynamicdps.operators import AffineResample, Operator, Scanner, ScanOperator
from dynamicdps.operators.posed_voxels import MOST_DEGREES, posed
from dynamicdps.operators.scan_operator import require_noise
from dynamicdps.priors import Denoiser, Prior, as_prior
from dynamicdps.solvers.batches import concatenate
from dynamicdps.solvers.reconstruction import Progress, Reconstruction, with_warnings
from dynamicdps.solvers.registry import find_solver
from dynamicdps.solvers.result import Result
from dynamicdps.volumes import IntensityScale, Volume, from_slices, resample_to, to_batch, to_slices
from dynamicdps.volumes.intensity import PERCENTILE_VALUE

BATCH_SIZE = 16


def measurement_scale(scan: Volume, operator: ScanOperator) -> IntensityScale:
    """Scanner units of one image-intensity unit: the recorded scale, or a robust one that undoes the contrast.

    Without a record, the 99th percentile of the measured brain is put where the operator's contrast sends 0.95.
    """
    if operator.intensity_scale is not None:
        return IntensityScale(operator.intensity_scale)
    return IntensityScale.robust(scan.data, value=operator.operator.typical_value(PERCENTILE_VALUE))


def is_solved_whole(operator: Operator, prior: Prior) -> bool:
    """Whether a scan's slices are one image: where thick slices couple them, or where the prior looks at neighbours."""
    return operator.couples_slices or prior.neighbours > 0


def solve_tensors(
    name: str,
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: Any = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Reconstruct a batch in image intensities by the solver's name; arguments as `solve_dynamicdps`.

    Args:
        name: one of `available`.
        terms: what was measured of the images.
        prior: the prior, or a denoiser of slices.
        initial: images to start from.
        generator: source of all randomness.
        config: the solver's configuration; by default its own defaults.
        progress: called with steps done and planned.

    Raises:
        InputError: there is no solver of that name, or it cannot work with this operator.
        TypeError: the configuration is another solver's.
    """
    return with_warnings(_solve_batch(name, terms, prior, initial, generator=generator, config=config, progress=progress))


def _solve_batch(
    name: str,
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: Any,
    progress: Progress | None,
) -> Reconstruction:
    """`solve_tensors` without the warnings that count images."""
    solver, kind = find_solver(name)
    if config is not None and not isinstance(config, kind):
        raise TypeError(f"the configuration is a {type(config).__name__}; expected a {kind.__name__} for {name}")
    return solver(terms, prior, initial, generator=generator, config=config or kind(), progress=progress)


def solve(
    name: str,
    scan: Volume | Sequence[tuple[Volume, ScanOperator]],
    operator: ScanOperator | None,
    prior: Prior | Denoiser,
    *,
    initial: Volume,
    seed: int = 0,
    config: Any = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Result:
    """Reconstruct a scan, or one image from several scans of it.

    Args:
        name: one of `available`.
        scan: the measurement on the scanner's grid, in scanner units; it is never resampled. Of several scans of one head a list of scans
            with their operators, each on its own grid and in its own units; the image is on the grid and in the units of the first.
        operator: its forward model and noise; a grid and an intensity scale that it does not have come from the scan; `None` for a list of
            scans. One with k-space explains that instead of the scan.
        prior: the denoiser.
        initial: the conditional model's output, in the units of the (first) scan; put on the image grid if it is on another.
        seed: of all randomness; the result is the same for any `batch_size`.
        config: the solver's configuration, for example a `DynamicDPSConfig`; by default its own defaults.
        batch_size: slices solved together, a bound on memory, where they are images of their own; see `is_solved_whole`.
        progress: called with steps of slices done and planned.

    Raises:
        InputError: there is no solver of that name, the grids do not fit each other, or scan and operator are not given as described.
    """
    pairs = _pairs(scan, operator)
    first, tied = pairs[0]
    shape, affine = tied.grid_for(first)
    scales = [measurement_scale(each, of_scan) for each, of_scan in pairs]
    scale = scales[0].scale
    pairs = [pairs[0], *((each, on_grid(each, of_scan, shape, affine)) for each, of_scan in pairs[1:])]
    start = resample_to(initial, shape, affine)
    known = as_prior(prior)
    whole = len(pairs) > 1 or tied.couples_slices or known.neighbours > 0
    x = (to_batch if whole else to_slices)(start.data / scale, known.device)
    terms = [
        scan_term(each, of_scan, own.scale, whole=whole, device=known.device) for (each, of_scan), own in zip(pairs, scales, strict=True)
    ]
    generator = torch.Generator().manual_seed(seed)
    began = time.monotonic()
    parts: list[Reconstruction] = []
    for begin in range(0, len(x), batch_size):
        chosen = torch.arange(begin, min(begin + batch_size, len(x)))

        def tick(done: int, planned: int, begin: int = begin, count: int = len(chosen)) -> None:
            if progress is not None:
                progress(begin * planned + count * done, len(x) * planned)

        some = [term.select(chosen) for term in terms]
        parts.append(_solve_batch(name, some, known, x[chosen], generator=generator, config=config, progress=tick))
    found = with_warnings(concatenate(parts))
    seconds = time.monotonic() - began
    grid = Volume(from_slices(found.image) * scale, affine, first.native)
    residuals = [_residual(each, of_scan, term.whitened(found.image)) for (each, of_scan), term in zip(pairs, terms, strict=True)]
    seen = [] if any(of_scan.kspace is not None for _, of_scan in pairs) else [term.scanner(found.image) for term in terms]
    spread, kept = found.uncertainty, found.samples
    return Result(
        volume=grid,
        initial=grid.with_data(start.data),
        residual=residuals[0],
        uncertainty=None if spread is None else grid.with_data(from_slices(spread) * scale),
        reconstruction=found,
        scale=scales[0],
        seconds=seconds,
        samples=() if kept is None else tuple(grid.with_data(from_slices(x) * scale) for x in kept.unbind(1)),
        other_residuals=tuple(residuals[1:]),
        predicted=tuple(each.with_data(from_slices(a)) for (each, _), a in zip(pairs, seen, strict=False)),
    )


def _pairs(scan: Volume | Sequence[tuple[Volume, ScanOperator]], operator: ScanOperator | None) -> list[tuple[Volume, ScanOperator]]:
    """Scans with their operators."""
    require_noise(operator)
    if isinstance(scan, Volume) and operator is not None:
        return [(scan, operator)]
    if isinstance(scan, Volume) or operator is not None or not scan:
        raise InputError(
            "scan and operator do not go together; expected one scan with its operator, or a list of such pairs and no operator"
        )
    return list(scan)


def on_grid(
    scan: Volume,
    operator: ScanOperator,
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    motion: NDArray[np.float64] | None = None,
) -> ScanOperator:
    """The operator of a scan for images on another grid than its own: it looks at them on its own grid, wherever that lies.

    The contrast acts on intensities as they are, before they are interpolated.

    Args:
        scan: on its own grid.
        operator: on the image grid that the scan covers.
        shape: of the images.
        affine: their place in mm.
        motion: ``(slices, 4, 4)``, movement in mm of each of the scan's slices.

    Raises:
        InputError: the operator is not linear behind a contrast, or its slices cannot have places of their own.
    """
    own_shape, own_affine = operator.grid_for(scan)
    if motion is None and own_shape == shape and np.allclose(own_affine, affine, atol=1e-4):
        return operator
    near = posed(operator.operator, own_shape, own_affine, affine, motion)
    if near is not None:
        return replace(operator, operator=near, image_shape=shape, image_affine=affine)
    if motion is not None:
        raise InputError(
            f"the slices of {operator.operator} cannot have places of their own; expected thick slices, turned by {MOST_DEGREES:g} degrees "
            "at most; leave --slice-motion out"
        )
    linear = operator.operator.linear
    if linear is None:
        raise InputError(f"{operator.operator} is not linear behind a contrast; expected it to be for a second scan; leave this scan out")
    pose = AffineResample(torch.from_numpy(np.linalg.inv(affine) @ own_affine), own_shape)
    moved = Scanner((linear @ pose).linear or linear, operator.operator.contrast)
    return replace(operator, operator=moved, image_shape=shape, image_affine=affine)


def _residual(scan: Volume, operator: ScanOperator, whitened: Tensor) -> Volume:
    return scan.with_data(from_slices(whitened) if operator.kspace is None else operator.kspace.residual_image(whitened))
