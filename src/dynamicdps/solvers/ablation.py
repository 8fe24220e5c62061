"""The ablation that every sampler must beat: the initial image after one data step, without the prior."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import Operator
from dynamicdps.solvers.data_fidelity import data_step
from dynamicdps.solvers.reconstruction import Progress, Reconstruction, check_positive


@dataclass(frozen=True)
class DataStepConfig:
    """How to run the data step alone.

    Attributes:
        spread: expected error of the initial image, image intensities; it only matters where the measurement is noisy.
        method: see `dynamicdps.solvers.data_fidelity.data_step`, like the next two.
        line_search: which.
        iterations: most steps along a direction.
    """

    spread: float = 0.1
    method: str = "gauss-newton"
    line_search: str = "wolfe"
    iterations: int = 4

    def __post_init__(self) -> None:
        check_positive(self)


def solve_data_step(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser | None,
    initial: Tensor,
    *,
    generator: torch.Generator | None = None,
    config: DataStepConfig = DataStepConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """The image nearest to the initial one that explains the measurement; arguments as `solve_dynamicdps`; no prior, no noise."""
    del denoiser, generator, progress
    zeros = torch.zeros(len(initial), device=initial.device)
    step = data_step(
        operator,
        measurement,
        initial,
        torch.full_like(zeros, config.spread),
        method=config.method,
        line_search=config.line_search,
        iterations=config.iterations,
    )
    return Reconstruction(step.x, step.misfit, zeros.long(), zeros.long(), zeros, operator_calls=step.operator_calls)
