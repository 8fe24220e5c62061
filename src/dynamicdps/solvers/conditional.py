"""The initial image itself: what the other solvers start from."""

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import Operator
from dynamicdps.solvers.data_fidelity import data_misfit
from dynamicdps.solvers.reconstruction import PlainConfig, Progress, Reconstruction


def solve_conditional(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser | None,
    initial: Tensor,
    *,
    generator: torch.Generator | None = None,
    config: PlainConfig = PlainConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Return the initial image with its data misfit; arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`."""
    del denoiser, generator, config, progress
    zeros = torch.zeros(len(initial), device=initial.device)
    return Reconstruction(initial, data_misfit(operator, measurement, initial), zeros.long(), zeros.long(), zeros, operator_calls=1)
