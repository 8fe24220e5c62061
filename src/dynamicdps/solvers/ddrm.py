"""DDRM (Kawar, Elad, Ermon, Song, NeurIPS 2022): a diffusion of its own for each singular vector of the operator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.operators import spectral
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, sampler


@dataclass(frozen=True)
class DDRMConfig(SamplerConfig):
    """How to run DDRM.

    Attributes:
        eta: share of fresh noise where the measurement says nothing or is noisier than the state.
        eta_measured: weight of the measurement where it is the better of the two ("eta_b").
        noise_scale: factor on the noise that the measurement is believed to have.
    """

    steps: int = 40
    eta: float = 0.85
    eta_measured: float = 1.0
    noise_scale: float = 1.0


@sampler("ddrm", DDRMConfig)
def solve_ddrm(task: Task, config: DDRMConfig) -> Sample:
    """Equations 7 and 8 of the paper, coefficient by coefficient.

    Raises:
        InputError: the operator is not linear or its singular values are not known.
    """
    term = task.term
    problem = task.linear
    model = spectral(problem.model)
    inverse = model.inverse_values
    known = inverse > 0
    measured = inverse * model.data_to_basis(problem.measurement)
    noise = config.noise_scale * per_image(model.noise_std, measured) * inverse

    def sample(run: Run) -> Tensor:
        first = per_image(run.levels[0], run.x)
        state = model.to_basis(run.x)
        # Equation 7: where the measurement is better than the first level it is the start, filled up with noise.
        direct = measured + (first.square() - noise.square()).clamp_min(0).sqrt() * model.to_basis(run.noise())
        state = torch.where(known & (first >= noise), direct, state)
        for sigma, down in run.steps():
            denoised = model.to_basis(run.denoise(model.from_basis(state), sigma))
            last = not down.any()
            lower = per_image(sigma if last else down, state)
            better = known & (lower >= noise)
            kept = (1 - config.eta**2) ** 0.5 * lower
            from_state = denoised + kept / per_image(sigma, state) * (state - denoised)
            from_data = denoised + kept / noise.clamp_min(1e-12) * (measured - denoised)
            mixed = denoised + config.eta_measured * (measured - denoised)
            if last:
                break
            run.record(term.misfit(model.from_basis(denoised)))
            mean = torch.where(better, mixed, torch.where(known, from_data, from_state))
            std = torch.where(better, (lower.square() - (config.eta_measured * noise).square()).clamp_min(0).sqrt(), config.eta * lower)
            state = mean + std * model.to_basis(run.noise())
            run.operator_calls += 1
        x0 = model.from_basis(torch.where(better, mixed, torch.where(known, from_data, denoised)))
        run.record(term.misfit(x0))
        return x0

    return sample
