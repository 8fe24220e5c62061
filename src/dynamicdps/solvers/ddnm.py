"""DDNM (Wang, Yu, Zhang, ICLR 2023): range space from the measurement, null space from the prior; its noisy form DDNM+."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.operators import spectral
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, sampler


@dataclass(frozen=True)
class DDNMConfig(SamplerConfig):
    """How to run DDNM.

    Attributes:
        noise_scale: factor on the noise that the measurement is believed to have; above 1 the prior is believed more.
    """

    eta: float = 0.85
    noise_scale: float = 1.0


@sampler("ddnm", DDNMConfig)
def solve_ddnm(task: Task, config: DDNMConfig) -> Sample:
    """Each denoised image gets the measured part, ``x0 + Lambda H^+ (y - H x0)``, and less fresh noise where `y` brings noise.

    Equations 17 to 19 of the paper in noise-level form: with a step ``x' = a x0 + b x + f n``, a coefficient of singular value s gets
    ``lambda = min(1, f s / (a sigma_y))``, so that noise of the measurement and fresh noise together are what the step wants.

    Raises:
        InputError: the operator is not linear or its singular values are not known.
    """
    term = task.term
    problem = task.linear
    model = spectral(problem.model)
    s, known = model.singular_values, model.inverse_values > 0
    measured = model.inverse_values * model.data_to_basis(problem.measurement)
    # Noise of each coefficient of H^+ y.
    noise = config.noise_scale * per_image(model.noise_std, measured) * model.inverse_values.expand_as(s)

    def share(fresh: Tensor, a: Tensor) -> Tensor:
        brought = a * noise
        # Without noise in the measurement all of it is taken, even by a deterministic step.
        weight = torch.where(brought <= fresh, torch.ones_like(brought), fresh / brought.clamp_min(1e-12))
        return torch.where(known, weight, torch.zeros_like(weight))

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            denoised = run.denoise(x, sigma)
            expected = model.to_basis(denoised)
            if not down.any():
                break
            wide, lower = per_image(sigma, x), per_image(down, x)
            fresh = config.eta * lower * (1 - (lower / wide) ** 2).clamp_min(0).sqrt()
            kept = (lower**2 - fresh**2).clamp_min(0).sqrt() / wide
            weight = share(fresh, 1 - kept)
            x0 = model.from_basis(expected + weight * (measured - expected))
            run.record(term.misfit(x0))
            rest = (fresh.square() - ((1 - kept) * weight * noise).square()).clamp_min(0).sqrt()
            x = x0 + kept * (x - x0) + model.from_basis(rest * model.to_basis(run.noise()))
            run.operator_calls += 3
        wide = per_image(sigma, expected)
        x0 = model.from_basis(expected + share(wide, torch.ones_like(wide)) * (measured - expected))
        run.record(term.misfit(x0))
        return x0

    return sample
