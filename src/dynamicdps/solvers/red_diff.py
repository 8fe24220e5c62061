"""RED-diff (Mardani, Song, Kautz, Vahdat, ICLR 2024): variational inference; the denoiser's residual as a regulariser."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, sampler

BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class REDDiffConfig(SamplerConfig):
    """How to run RED-diff; it has no state that `eta` could apply to.

    Attributes:
        weight: of the regulariser against ``|y - A(x)|^2 / 2``.
        learning_rate: of Adam, image intensities a step.
    """

    spacing: str = "cosine"
    weight: float = 0.25
    learning_rate: float = 0.02


@sampler("red-diff", REDDiffConfig)
def solve_red_diff(task: Task, config: REDDiffConfig) -> Sample:
    """Algorithm 1 of the paper: Adam on ``|y - A(m)|^2 / 2 + w_t <eps_hat(m + sigma n) - n, m>`` while the levels fall.

    With the paper's ``w_t = lambda / SNR`` the second gradient is ``lambda (m - D(m + sigma n, sigma))``. It starts at the initial image;
    the start level is the first one that is visited.
    """
    term = task.term

    def sample(run: Run) -> Tensor:
        mean = task.initial
        first, second = torch.zeros_like(mean), torch.zeros_like(mean)
        for i, (sigma, _) in enumerate(run.steps()):
            denoised = run.denoise(mean + per_image(sigma, mean) * run.noise(), sigma)
            linearised = term.linearise(mean)
            gradient = config.weight * (mean - denoised) - linearised.vjp(term.target - linearised.value)
            first = BETAS[0] * first + (1 - BETAS[0]) * gradient
            second = BETAS[1] * second + (1 - BETAS[1]) * gradient.square()
            corrected = first / (1 - BETAS[0] ** (i + 1)), second / (1 - BETAS[1] ** (i + 1))
            mean = mean - config.learning_rate * corrected[0] / (corrected[1].sqrt() + 1e-8)
            run.operator_calls += 2
            run.record(term.misfit(mean))
        return mean

    return sample
