"""How long an enhancement takes on this machine: its work, counted, times what a small part of it takes here, measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dynamicdps.calibration.fit import low_field, slice_axis
from dynamicdps.data_term import DataTerm, data_step
from dynamicdps.operators import Noise, Operator, ScanOperator, SwapSliceAxis
from dynamicdps.operators.scan_operator import covered_grid
from dynamicdps.priors import Prior
from dynamicdps.solvers import DynamicDPSConfig
from dynamicdps.solvers.dynamicdps import LOOP_TOLERANCE
from dynamicdps.volumes import Volume

Size = tuple[int, int, int]

# Slices that are denoised, and slices of the image on which a data step is made, to see how long they take.
TIMED_SLICES, TIMED_DEPTH = 10, 20
# Voxels along each edge of the cube that is filtered.
TIMED_EDGE = 96
# Smoothings of the image that take as long as a stage, measured on a whole head (112 x 136 x 40 voxels of 1.6 x 1.6 x 5 mm): the
# conditional model of volumes, the fit of the scanner with its shading, tissues of one image, the structures of a whole head, and maps and
# files at the end.
CONDITIONAL, FIT, TISSUES, STRUCTURES, FILES = 260.0, 10.0, 27.0, 150.0, 154.0
# Images of fewer voxels of 1 mm along an axis have no structures.
WHOLE = 80
# The same for a data step, in steps of the bare scanner that is timed: a scan's own has weights, shading and errors of neighbours.
OWN_STEP = 3.0


@dataclass(frozen=True)
class Work:
    """What an enhancement has to compute.

    Attributes:
        megavoxels: of the image, in millions.
        passes: of the denoiser over the whole image.
        data_steps: over the whole image.
        segmented: images whose tissues are measured.
        conditional: whether a conditional model makes the initial image.
        fitted: whether the scanner is fitted.
        whole: whether the image holds a whole head, whose structures are measured too.
    """

    megavoxels: float
    passes: int
    data_steps: int
    segmented: int
    conditional: bool = True
    fitted: bool = True
    whole: bool = False


@dataclass(frozen=True)
class Pace:
    """Seconds that this machine takes for a million voxels of the image.

    Attributes:
        denoiser_pass: a pass of the denoiser.
        data_step: a data step of a scanner with the scan's voxels.
        smoothing: smoothing an image, as a measure of everything that is neither.
    """

    denoiser_pass: float
    data_step: float
    smoothing: float


def stage_seconds(work: Work, pace: Pace) -> dict[str, float]:
    """Expected seconds of the stages that come after the scan has been opened, by the names that `Progress` is told; ``write`` ends it."""
    initial = CONDITIONAL * work.conditional + FIT * work.fitted
    return {
        "initial": work.megavoxels * initial * pace.smoothing,
        "solve": work.megavoxels * (work.passes * pace.denoiser_pass + work.data_steps * pace.data_step),
        "volumes": work.megavoxels * (work.segmented * TISSUES + work.whole * STRUCTURES) * pace.smoothing,
        "write": work.megavoxels * FILES * pace.smoothing,
    }


def work_of(shape: Size, config: Any, *, conditional: bool, fitted: bool) -> Work | None:
    """The work of DynamicDPS with data steps on the image; `None` for other solvers, whose passes depend on the scan.

    Args:
        shape: of the image.
        config: of the solver.
        conditional: whether a conditional model makes the initial image.
        fitted: whether the scanner is fitted.
    """
    if not isinstance(config, DynamicDPSConfig) or config.differentiates:
        return None
    samples = 1 if config.estimate == "deterministic" else config.samples
    # A data step before the levels, and after them where samples are averaged.
    steps = samples * config.steps + 1 + (config.estimate == "mean")
    segmented = 2 + (samples if samples > 1 else 0)
    return Work(float(np.prod(shape)) / 1e6, samples * config.steps, steps, segmented, conditional, fitted, min(shape) >= WHOLE)


def image_shape(scan: Volume, scanner: ScanOperator | None) -> Size:
    """Voxels of the image that explains a scan; the scanner is `None` where it is to be fitted."""
    return covered_grid(nominal_scanner(scan.spacing), scan)[0] if scanner is None else scanner.grid_for(scan)[0]


def nominal_scanner(spacing: tuple[float, float, float]) -> Operator:
    """A scanner with the voxels of a scan, for how long its data steps take."""
    across = slice_axis(spacing)
    upright = list(spacing)
    upright[across], upright[2] = upright[2], upright[across]
    inner = low_field({"gamma": 0.7}, (upright[0], upright[1], upright[2]))
    return inner if across == 2 else SwapSliceAxis(inner, across)


def measure_pace(prior: Prior, scan: Volume, shape: Size, at_once: int) -> Pace:
    """Time a pass of the denoiser over a few slices, a data step on them, and a smoothing; it takes a second or a few.

    Args:
        prior: the prior.
        scan: what is to be enhanced; its voxels count.
        shape: of the image.
        at_once: slices, or windows of slices, that pass the network together.
    """
    width, height, depth = shape
    generator = torch.Generator().manual_seed(0)
    slices = min(depth, TIMED_SLICES if prior.device.type == "cpu" else TIMED_SLICES * at_once)
    x = torch.rand((1, 1, slices, height, width), generator=generator).to(prior.device)
    sigma = torch.full((1,), 0.1, device=prior.device)
    with torch.no_grad():
        passing = _seconds(lambda: prior(x, sigma, at_once)) / x.numel()
    slab = torch.rand((1, 1, min(depth, TIMED_DEPTH), height, width), generator=generator).to(prior.device)
    scanner = nominal_scanner(scan.spacing)
    term = DataTerm(scanner(slab), scanner, Noise(0.03))
    spread = torch.full((1,), 0.05, device=prior.device)
    centre = slab + 0.05 * torch.randn(slab.shape, generator=generator).to(slab)
    stepping = _seconds(lambda: data_step(term, centre, spread, iterations=1, cg_tolerance=LOOP_TOLERANCE).x) / slab.numel()
    return Pace(1e6 * passing, 1e6 * OWN_STEP * stepping, _smoothing())


def _smoothing() -> float:
    from scipy import ndimage

    cube = np.random.default_rng(0).random((TIMED_EDGE,) * 3, dtype=np.float32)
    began = time.perf_counter()
    ndimage.gaussian_filter(cube, 1.0)
    return 1e6 * (time.perf_counter() - began) / cube.size


def _seconds(work: Callable[[], torch.Tensor]) -> float:
    """Seconds of the second of two calls: the first one prepares what all later ones use. Reading a number waits for the device."""
    work().sum().item()
    began = time.perf_counter()
    work().sum().item()
    return time.perf_counter() - began


def quicker(config: Any) -> Any:
    """The configuration that ``--quality fast`` stands for."""
    return replace(config, estimate="deterministic")
