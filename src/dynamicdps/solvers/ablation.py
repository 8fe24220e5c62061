"""The ablation that every sampler must beat: the initial image after one data step, without the prior."""

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import Operator
from dynamicdps.solvers.data_fidelity import data_step
from dynamicdps.solvers.reconstruction import Reconstruction

SPREAD = 0.1


def solve_data_step(
    measurement: Tensor, operator: Operator, denoiser: Denoiser | None, initial: Tensor, *, generator: torch.Generator | None = None
) -> Reconstruction:
    """The image nearest to the initial one that explains the measurement; arguments as `solve_dynamicdps`.

    The initial image's expected error only matters where the measurement is noisy; 0.1 is that of a poor conditional model.
    """
    del denoiser, generator
    zeros = torch.zeros(len(initial), device=initial.device)
    step = data_step(operator, measurement, initial, torch.full_like(zeros, SPREAD), iterations=4)
    return Reconstruction(step.x, step.misfit, zeros.long(), zeros.long(), zeros, operator_calls=step.operator_calls)
