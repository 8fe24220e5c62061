"""DDNM (Wang, Yu, Zhang, ICLR 2023): range space from the measurement, null space from the prior; its noisy form DDNM+."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import Operator, spectral
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.data_fidelity import data_misfit
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.sampler import Run, SamplerConfig, run_samples


@dataclass(frozen=True)
class DDNMConfig(SamplerConfig):
    """How to run DDNM.

    Attributes:
        noise_scale: factor on the noise that the measurement is believed to have; above 1 the prior is believed more.
    """

    eta: float = 0.85
    noise_scale: float = 1.0


def solve_ddnm(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: DDNMConfig = DDNMConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Each denoised image gets the measured part, ``x0 + Lambda H^+ (y - H x0)``, and less fresh noise where `y` brings noise.

    Equations 17 to 19 of the paper in noise-level form: with a step ``x' = a x0 + b x + f n``, a coefficient of singular value s gets
    ``lambda = min(1, f s / (a sigma_y))``, so that noise of the measurement and fresh noise together are what the step wants.
    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`.

    Raises:
        InputError: the operator is not linear or its singular values are not known.
    """
    problem = operator.linear_problem(measurement, initial.shape)
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
        for i, sigma in enumerate(run.levels):
            denoised = run.denoise(x, sigma)
            prior = model.to_basis(denoised)
            if i + 1 == len(run.levels):
                wide = per_image(sigma, prior)
                x0 = model.from_basis(prior + share(wide, torch.ones_like(wide)) * (measured - prior))
                run.record(i, data_misfit(operator, measurement, x0))
                return x0
            wide, down = per_image(sigma, x), per_image(run.levels[i + 1], x)
            fresh = config.eta * down * (1 - (down / wide) ** 2).clamp_min(0).sqrt()
            kept = (down**2 - fresh**2).clamp_min(0).sqrt() / wide
            weight = share(fresh, 1 - kept)
            x0 = model.from_basis(prior + weight * (measured - prior))
            run.record(i, data_misfit(operator, measurement, x0))
            left = (fresh.square() - ((1 - kept) * weight * noise).square()).clamp_min(0).sqrt()
            x = x0 + kept * (x - x0) + model.from_basis(left * model.to_basis(run.noise()))
            run.operator_calls += 3
        raise AssertionError("a schedule has at least one level")

    return run_samples(
        sample, measurement, operator, denoiser, initial, config, generator=generator, progress=progress, warnings=problem.warnings
    )
