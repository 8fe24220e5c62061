"""Solve by name: volumes in, volumes out."""

import time
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.errors import InputError
from dynamicdps.operators import LowField, Operator, ScanOperator, power_law
from dynamicdps.solvers.ablation import solve_data_step
from dynamicdps.solvers.conditional import solve_conditional
from dynamicdps.solvers.dynamicdps import DynamicDPSConfig, solve_dynamicdps
from dynamicdps.solvers.reconstruction import Progress, Reconstruction, TraceStep
from dynamicdps.solvers.start_level import StartLevelRule
from dynamicdps.volumes import IntensityScale, Volume, from_slices, resample_to, to_slices
from dynamicdps.volumes.intensity import PERCENTILE_VALUE

BATCH_SIZE = 16


class Solver(Protocol):
    """A solver on tensors; see `dynamicdps.solvers.dynamicdps.solve_dynamicdps` for what the arguments are."""

    def __call__(
        self, measurement: Tensor, operator: Operator, denoiser: Denoiser, initial: Tensor, *, generator: torch.Generator
    ) -> Reconstruction: ...


_SOLVERS: dict[str, Solver] = {"conditional": solve_conditional, "data-step": solve_data_step, "dynamicdps": solve_dynamicdps}


def register(name: str, solver: Solver) -> None:
    """Make a solver available under a name.

    Raises:
        ValueError: the name is taken.
    """
    if name in _SOLVERS:
        raise ValueError(f"there is a solver {name!r} already; expected a new name")
    _SOLVERS[name] = solver


def available() -> list[str]:
    """Names of all solvers."""
    return sorted(_SOLVERS)


@dataclass(frozen=True)
class Result:
    """A reconstruction as volumes, in the units of the scan.

    Attributes:
        volume: the estimate on the image grid.
        initial: the initial image it started from.
        residual: ``(y - A(x)) / noise_std`` on the scanner's grid; 1 is one standard deviation of the noise.
        uncertainty: standard deviation over posterior samples, or `None`.
        reconstruction: tensors, counts and the trace.
        scale: scanner units of one image-intensity unit.
        seconds: wall time of the solver.
    """

    volume: Volume
    initial: Volume
    residual: Volume
    uncertainty: Volume | None
    reconstruction: Reconstruction
    scale: IntensityScale
    seconds: float

    @property
    def nfe(self) -> int:
        """Denoiser passes of an image (the largest)."""
        return int(self.reconstruction.nfe.max())

    @property
    def nbackward(self) -> int:
        return int(self.reconstruction.nbackward.max())

    @property
    def start_sigma(self) -> float:
        """Median start level."""
        return float(self.reconstruction.start_sigma.median())

    @property
    def trace(self) -> list[TraceStep]:
        return self.reconstruction.trace


def measurement_scale(scan: Volume, operator: ScanOperator) -> IntensityScale:
    """Scanner units of one image-intensity unit: the recorded scale, or a robust one that undoes the contrast.

    Without a record, the 99th percentile of the measured brain is put where the operator's contrast sends 0.95.
    """
    if operator.intensity_scale is not None:
        return IntensityScale(operator.intensity_scale)
    gamma = operator.operator.gamma
    value = float(power_law(torch.tensor(PERCENTILE_VALUE), torch.as_tensor(gamma, dtype=torch.float32)).mean())
    return IntensityScale.robust(scan.data, value=value)


def solve_tensors(
    name: str,
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: DynamicDPSConfig | None = None,
    start_level: StartLevelRule | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Reconstruct a batch in image intensities by the solver's name; arguments as `solve_dynamicdps`.

    Raises:
        InputError: there is no solver of that name.
    """
    if name not in _SOLVERS:
        raise InputError(f"there is no solver {name!r}; expected one of {', '.join(available())}; choose one")
    if name == "dynamicdps":
        settings = config or DynamicDPSConfig()
        return solve_dynamicdps(
            measurement, operator, denoiser, initial, generator=generator, config=settings, start_level=start_level, progress=progress
        )
    return _SOLVERS[name](measurement, operator, denoiser, initial, generator=generator)


def solve(
    name: str,
    scan: Volume,
    operator: ScanOperator | LowField,
    prior: Denoiser,
    *,
    initial: Volume,
    seed: int = 0,
    config: DynamicDPSConfig | None = None,
    start_level: StartLevelRule | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Result:
    """Reconstruct a scan.

    Args:
        name: one of `available`.
        scan: the measurement on the scanner's grid, in scanner units; it is never resampled.
        operator: its forward model; a bare one gets its grid and intensity scale from the scan.
        prior: the denoiser.
        initial: the conditional model's output, in the units of the scan; put on the image grid if it is on another.
        seed: of all randomness; the result is the same for any `batch_size`.
        config: of DynamicDPS.
        start_level: calibration of its start level; by default the bundled one.
        batch_size: slices solved together, a bound on memory. Thick slices couple a volume: it is solved whole.
        progress: called with denoiser passes of slices done and planned.

    Raises:
        InputError: there is no solver of that name, or the grids do not fit each other.
    """
    tied = operator if isinstance(operator, ScanOperator) else ScanOperator(operator)
    shape, affine = tied.grid_for(scan)
    scale = measurement_scale(scan, tied)
    start = resample_to(initial, shape, affine)
    y = to_slices(scan.data / scale.scale)
    x = to_slices(start.data / scale.scale)
    forward = tied.operator
    device = (
        next((p.device for p in prior.parameters()), torch.device("cpu")) if isinstance(prior, torch.nn.Module) else torch.device("cpu")
    )
    y, x = y.to(device), x.to(device)
    if forward.couples_slices:
        y, x = y.movedim(0, 1)[None], x.movedim(0, 1)[None]
    generator = torch.Generator().manual_seed(seed)
    began = time.monotonic()
    parts: list[Reconstruction] = []
    for first in range(0, len(x), batch_size):
        chosen = slice(first, first + batch_size)
        count = len(x[chosen])

        def tick(done: int, planned: int, first: int = first, count: int = count) -> None:
            if progress is not None:
                progress(first * planned + count * done, len(x) * planned)

        part = solve_tensors(
            name,
            y[chosen],
            forward.select(torch.arange(len(x))[chosen]),
            prior,
            x[chosen],
            generator=generator,
            config=config,
            start_level=start_level,
            progress=tick,
        )
        parts.append(part)
    whole = _join(parts)
    seconds = time.monotonic() - began
    residual = (y - forward(whole.image)) / forward.noise_std
    grid = Volume(from_slices(_as_slices(whole.image)) * scale.scale, affine, scan.native)
    spread = whole.uncertainty
    return Result(
        volume=grid,
        initial=grid.with_data(start.data),
        residual=scan.with_data(from_slices(_as_slices(residual))),
        uncertainty=None if spread is None else grid.with_data(from_slices(_as_slices(spread)) * scale.scale),
        reconstruction=whole,
        scale=scale,
        seconds=seconds,
    )


def _as_slices(x: Tensor) -> Tensor:
    return x if x.ndim == 4 else x[0].movedim(1, 0)


def _join(parts: list[Reconstruction]) -> Reconstruction:
    """Batches of one scan as one reconstruction."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    trace = [
        TraceStep(steps[0].step, *(torch.cat([getattr(s, f.name) for s in steps]) for f in fields(TraceStep)[1:]))
        for steps in zip(*(part.trace for part in parts), strict=True)
    ]
    return replace(
        parts[0],
        image=joined("image"),
        misfit=joined("misfit"),
        nfe=joined("nfe"),
        nbackward=joined("nbackward"),
        start_sigma=joined("start_sigma"),
        uncertainty=None if parts[0].uncertainty is None else joined("uncertainty"),
        operator_calls=max(part.operator_calls for part in parts),
        trace=trace,
        warnings=list(dict.fromkeys(w for part in parts for w in part.warnings)),
    )
