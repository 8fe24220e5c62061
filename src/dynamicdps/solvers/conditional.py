"""The initial image itself: what the other solvers start from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, join
from dynamicdps.priors import Denoiser, Prior
from dynamicdps.solvers.reconstruction import PlainConfig, Progress, Reconstruction
from dynamicdps.solvers.registry import register


@register("conditional")
def solve_conditional(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser | None,
    initial: Tensor,
    *,
    generator: torch.Generator | None = None,
    config: PlainConfig = PlainConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Return the initial image with its data misfit; arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`."""
    term = join(terms)
    del prior, generator, config, progress
    zeros = torch.zeros(len(initial), device=initial.device)
    return Reconstruction(initial, term.misfit(initial), zeros.long(), zeros.long(), zeros, operator_calls=1)
