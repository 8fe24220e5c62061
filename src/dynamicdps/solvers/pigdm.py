"""PiGDM (Song, Vahdat, Mardani, Kautz, ICLR 2023): pseudo-inverse guidance."""

from dataclasses import dataclass

from torch import Tensor

from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, sampler

SPREADS = ("noise", "error")


@dataclass(frozen=True)
class PiGDMConfig(SamplerConfig):
    """How to run PiGDM.

    Attributes:
        noise_scale: factor on the noise that the measurement is believed to have.
        spread: r, the deviation of the Gaussian: ``"error"`` is the denoiser's error r(sigma), exact where pixels are independent, and
            good from a warm start; ``"noise"`` is sigma itself. Large smooth structures are less certain than the mean error of all
            pixels says: from pure noise, guidance by it overshoots and can diverge.
    """

    noise_scale: float = 1.0
    spread: str = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spread not in SPREADS:
            raise ValueError(f"spread is {self.spread!r}; expected one of {', '.join(SPREADS)}")

    @property
    def differentiates(self) -> bool:
        return True


@sampler("pigdm", PiGDMConfig)
def solve_pigdm(task: Task, config: PiGDMConfig) -> Sample:
    """``p(x0 | x_t)`` taken as a Gaussian around the denoised image with variance r^2, so that ``p(y | x_t)`` is known.

    The paper's guidance in noise-level form: the posterior mean is ``x0 = D + sigma^2 (dD/dx)^T H^T (r^2 H H^T + sigma_y^2)^-1 (y - H D)``,
    from which a DDIM step follows; the authors' program also has adaptive weights, which scale the correction by the step's own
    coefficient instead. The paper's r^2 is ``sigma^2 / (1 + sigma^2)``, for data of unit variance.

    Raises:
        InputError: the operator is not linear.
    """
    term = task.term
    problem = task.linear
    model, y = problem.model, problem.measurement

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            denoised, pullback = run.denoise_with_pullback(x, sigma)
            variance = (run.error(sigma) if config.spread == "error" else sigma).square()
            noise = (config.noise_scale * model.noise_std.to(variance)).square()
            w = model.solve_dual(y - model(denoised), noise / variance) / per_image(variance, y)
            x0 = denoised + per_image(sigma.square(), x) * pullback(model.adjoint(w))
            run.operator_calls += 4
            run.record(term.misfit(x0))
            x = run.step_down(x, x0, sigma, down, config.eta)
        return x

    return sample
