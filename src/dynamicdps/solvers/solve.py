"""Solve by name: volumes in, volumes out."""

import math
import time
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser, Prior, as_prior
from dynamicdps.errors import InputError
from dynamicdps.operators import Operator, ScanOperator
from dynamicdps.solvers.ablation import DataStepConfig, solve_data_step
from dynamicdps.solvers.ccdf import CCDFConfig, solve_ccdf
from dynamicdps.solvers.conditional import solve_conditional
from dynamicdps.solvers.daps import DAPSConfig, solve_daps
from dynamicdps.solvers.ddnm import DDNMConfig, solve_ddnm
from dynamicdps.solvers.ddrm import DDRMConfig, solve_ddrm
from dynamicdps.solvers.dds import DDSConfig, solve_dds
from dynamicdps.solvers.diffpir import DiffPIRConfig, solve_diffpir
from dynamicdps.solvers.dps import DPSConfig, solve_dps
from dynamicdps.solvers.dps_plus import DPSPlusConfig, solve_dps_plus
from dynamicdps.solvers.dynamicdps import DynamicDPSConfig, solve_dynamicdps
from dynamicdps.solvers.dynamicdps_paper import PaperConfig, solve_dynamicdps_paper
from dynamicdps.solvers.mcg import MCGConfig, solve_mcg
from dynamicdps.solvers.pigdm import PiGDMConfig, solve_pigdm
from dynamicdps.solvers.projection import ProjectionConfig, solve_projection
from dynamicdps.solvers.reconstruction import PlainConfig, Progress, Reconstruction, TraceStep, with_doubts
from dynamicdps.solvers.red_diff import REDDiffConfig, solve_red_diff
from dynamicdps.solvers.total_variation import TVConfig, solve_tv
from dynamicdps.volumes import IntensityScale, Volume, from_slices, resample_to, to_slices
from dynamicdps.volumes.intensity import PERCENTILE_VALUE

BATCH_SIZE = 16


class Solver(Protocol):
    """A solver on tensors; see `dynamicdps.solvers.dynamicdps.solve_dynamicdps` for what the arguments are.

    Its configuration is a frozen dataclass, the default of the argument `config`.
    """

    def __call__(
        self,
        measurement: Tensor,
        operator: Operator,
        denoiser: Denoiser,
        initial: Tensor,
        *,
        generator: torch.Generator,
        config: Any = ...,
        progress: Progress | None = None,
    ) -> Reconstruction: ...


_SOLVERS: dict[str, tuple[Solver, type]] = {
    "conditional": (solve_conditional, PlainConfig),
    "data-step": (solve_data_step, DataStepConfig),
    "dynamicdps": (solve_dynamicdps, DynamicDPSConfig),
    "dynamicdps-paper": (solve_dynamicdps_paper, PaperConfig),
    "dps": (solve_dps, DPSConfig),
    "projection": (solve_projection, ProjectionConfig),
    "mcg": (solve_mcg, MCGConfig),
    "dps+": (solve_dps_plus, DPSPlusConfig),
    "pigdm": (solve_pigdm, PiGDMConfig),
    "ddnm": (solve_ddnm, DDNMConfig),
    "ddrm": (solve_ddrm, DDRMConfig),
    "diffpir": (solve_diffpir, DiffPIRConfig),
    "dds": (solve_dds, DDSConfig),
    "red-diff": (solve_red_diff, REDDiffConfig),
    "daps": (solve_daps, DAPSConfig),
    "ccdf": (solve_ccdf, CCDFConfig),
    "tv": (solve_tv, TVConfig),
}


def register(name: str, solver: Solver, config: type = PlainConfig) -> None:
    """Make a solver available under a name.

    Args:
        name: a new one.
        solver: the function.
        config: its configuration, a frozen dataclass whose defaults are the solver's.

    Raises:
        ValueError: the name is taken.
    """
    if name in _SOLVERS:
        raise ValueError(f"there is a solver {name!r} already; expected a new name")
    _SOLVERS[name] = solver, config


def available() -> list[str]:
    """Names of all solvers."""
    return sorted(_SOLVERS)


def find_solver(name: str) -> tuple[Solver, type]:
    """A solver and its configuration by name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _SOLVERS:
        raise InputError(f"there is no solver {name!r}; expected one of {', '.join(available())}; choose one")
    return _SOLVERS[name]


def make_config(name: str, settings: Mapping[str, Any]) -> Any:
    """A solver's configuration from plain values, as the command line and settings files give them.

    Args:
        name: the solver.
        settings: values by the configuration's field names; what is not named keeps its default.

    Raises:
        InputError: there is no such solver or field, or a value is of the wrong type or out of its range.
    """
    config = find_solver(name)[1]
    known = {f.name: f for f in fields(config)}
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise InputError(f"the solver {name} has no setting {key!r}; expected some of {', '.join(known) or 'none'}; leave it out")
        values[key] = _converted(name, known[key], value)
    try:
        return config(**values)
    except (ValueError, TypeError) as error:
        raise InputError(f"the settings of {name} are wrong ({error}); expected what `{config.__name__}` allows; change them") from error


def _converted(name: str, known: Field[Any], value: Any) -> Any:
    """A plain value as the type of the field's default; text from a command line is read as a number where one is wanted."""
    default: Any = known.default
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    kind: type = float if default is None else type(default)
    wrong = InputError(f"{known.name} of {name} is {value!r}; expected {kinds.get(kind, 'another value')}; change it")
    if kind is bool:
        if str(value).lower() not in {"true", "false"}:
            raise wrong
        return str(value).lower() == "true"
    if kind is str:
        return str(value)
    if isinstance(value, bool):
        raise wrong
    if default is None and (value is None or not isinstance(value, str | int | float)):
        return value
    try:
        number = kind(value)
        fits = math.isfinite(number) and (kind is not int or number == float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error
    if not fits:
        raise wrong
    return number


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
        samples: posterior samples on the image grid, where they were to be kept.
    """

    volume: Volume
    initial: Volume
    residual: Volume
    uncertainty: Volume | None
    reconstruction: Reconstruction
    scale: IntensityScale
    seconds: float
    samples: tuple[Volume, ...] = ()

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
    return IntensityScale.robust(scan.data, value=operator.operator.typical_value(PERCENTILE_VALUE))


def is_solved_whole(operator: Operator, prior: Prior) -> bool:
    """Whether a scan's slices are one image: where thick slices couple them, or where the prior looks at neighbours."""
    return operator.couples_slices or prior.neighbours > 0


def solve_tensors(
    name: str,
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: Any = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Reconstruct a batch in image intensities by the solver's name; arguments as `solve_dynamicdps`.

    Args:
        name: one of `available`.
        measurement: y, batch first.
        operator: forward model.
        denoiser: the prior.
        initial: images to start from.
        generator: source of all randomness.
        config: the solver's configuration; by default its own defaults.
        progress: called with steps done and planned.

    Raises:
        InputError: there is no solver of that name, or it cannot work with this operator.
        TypeError: the configuration is another solver's.
    """
    return with_doubts(_solve_batch(name, measurement, operator, denoiser, initial, generator=generator, config=config, progress=progress))


def _solve_batch(
    name: str,
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
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
    return solver(measurement, operator, denoiser, initial, generator=generator, config=config or kind(), progress=progress)


def solve(
    name: str,
    scan: Volume,
    operator: ScanOperator | Operator,
    prior: Prior | Denoiser,
    *,
    initial: Volume,
    seed: int = 0,
    config: Any = None,
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
        config: the solver's configuration, for example a `DynamicDPSConfig`; by default its own defaults.
        batch_size: slices solved together, a bound on memory, where they are images of their own; see `is_solved_whole`.
        progress: called with steps of slices done and planned.

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
    known = as_prior(prior)
    y, x = y.to(known.device), x.to(known.device)
    if is_solved_whole(forward, known):
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

        part = _solve_batch(
            name,
            y[chosen],
            forward.select(torch.arange(len(x))[chosen]),
            known,
            x[chosen],
            generator=generator,
            config=config,
            progress=tick,
        )
        parts.append(part)
    whole = with_doubts(_join(parts))
    seconds = time.monotonic() - began
    residual = (y - forward(whole.image)) / forward.noise_std
    grid = Volume(from_slices(_as_slices(whole.image)) * scale.scale, affine, scan.native)
    spread, kept = whole.uncertainty, whole.samples
    return Result(
        volume=grid,
        initial=grid.with_data(start.data),
        residual=scan.with_data(from_slices(_as_slices(residual))),
        uncertainty=None if spread is None else grid.with_data(from_slices(_as_slices(spread)) * scale.scale),
        reconstruction=whole,
        scale=scale,
        seconds=seconds,
        samples=() if kept is None else tuple(grid.with_data(from_slices(_as_slices(x)) * scale.scale) for x in kept.unbind(1)),
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
        for steps in _aligned([part.trace for part in parts])
    ]
    return replace(
        parts[0],
        image=joined("image"),
        misfit=joined("misfit"),
        nfe=joined("nfe"),
        nbackward=joined("nbackward"),
        start_sigma=joined("start_sigma"),
        uncertainty=None if parts[0].uncertainty is None else joined("uncertainty"),
        beyond=None if parts[0].beyond is None else joined("beyond"),
        samples=None if parts[0].samples is None else joined("samples"),
        operator_calls=max(part.operator_calls for part in parts),
        trace=trace,
        warnings=list(dict.fromkeys(w for part in parts for w in part.warnings)),
    )


def _aligned(traces: list[list[TraceStep]]) -> list[list[TraceStep]]:
    """Steps of several batches side by side; a batch that ended earlier keeps its last step."""
    most = max(map(len, traces))
    return [[replace(t[min(i, len(t) - 1)], step=i) for t in traces] for i in range(most)] if all(traces) else []
