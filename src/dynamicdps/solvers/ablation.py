"""The ablation that every sampler must beat: the initial image after one data step, without the prior."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, data_step, join
from dynamicdps.priors import Denoiser, Prior
from dynamicdps.solvers.reconstruction import Progress, Reconstruction, check_positive
from dynamicdps.solvers.registry import register


@dataclass(frozen=True)
class DataStepConfig:
    """How to run the data step alone.

    Attributes:
        spread: expected error of the initial image, image intensities; it only matters where the measurement is noisy.
        method: see `dynamicdps.data_term.data_step`, like the next two.
        line_search: which.
        iterations: most steps along a direction.
    """

    spread: float = 0.1
    method: str = "gauss-newton"
    line_search: str = "wolfe"
    iterations: int = 4

    def __post_init__(self) -> None:
        check_positive(self)


@register("data-step", config=DataStepConfig)
def solve_data_step(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser | None,
    initial: Tensor,
    *,
    generator: torch.Generator | None = None,
    config: DataStepConfig = DataStepConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """The image nearest to the initial one that explains the measurement; arguments as `solve_dynamicdps`; no prior, no noise."""
    term = join(terms)
    del prior, generator, progress
    zeros = torch.zeros(len(initial), device=initial.device)
    step = data_step(
        term,
        initial,
        torch.full_like(zeros, config.spread),
        method=config.method,
        line_search=config.line_search,
        iterations=config.iterations,
    )
    return Reconstruction(step.x, step.misfit, zeros.long(), zeros.long(), zeros, operator_calls=step.operator_calls)
