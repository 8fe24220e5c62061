"""DynamicDPS in the paper's own configuration (Kim et al., MICCAI 2025), for comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, Outcome
from dynamicdps.errors import InputError
from dynamicdps.models import FOLDER
from dynamicdps.operators.inner_products import inner
from dynamicdps.operators.parameters import per_image
from dynamicdps.operators.precision import wide_type
from dynamicdps.priors import Denoiser, Prior
from dynamicdps.priors.levels import cosine_levels
from dynamicdps.priors.sampling import noise_like
from dynamicdps.solvers.composite_loss import composite_loss
from dynamicdps.solvers.dps import vp_factor
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.registry import register
from dynamicdps.solvers.samplers import Run, SamplerConfig, run_samples
from dynamicdps.solvers.start_level import BankRule, read_start_level

C1, C2 = 1e-3, 0.8
SHORTEST, LONGEST = 0.1, 1.5
SHRINK, GROW = 0.75, 1.25
MAX_TRIALS = 10


@dataclass(frozen=True)
class PaperConfig(SamplerConfig):
    """The paper's configuration.

    Every step of its 1000-step process is taken from the start level down, whatever `steps` says.

    Attributes:
        start_sigma: level of the start; `None` chooses by the memory bank.
        bank: the memory bank; `None` is the bundled one.
        search_every: steps between line searches; between them the last step length is kept.
        blend: blend the initial image in, with a share that falls from 1 at the start to 0 at the end.
    """

    spacing: str = "cosine"
    bank: BankRule | None = None
    search_every: int = 5
    blend: bool = False

    @property
    def differentiates(self) -> bool:
        return True


@register("dynamicdps-paper", config=PaperConfig)
def solve_dynamicdps_paper(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: PaperConfig = PaperConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Ancestral steps of the 1000-step process, each followed by a step along the composite loss's gradient through the network.

    A line search every fifth step: the length starts at 1 and is shrunk or grown within [0.1, 1.5] until the Wolfe conditions
    hold, at most 10 trials, each a full pass and back; the last 5 steps take 0.1. Returns the denoised image of best data fit.
    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`.

    Raises:
        InputError: there is more than one data term.
    """
    if len(terms) > 1:
        raise InputError(f"there are {len(terms)} measurements; expected one: the paper's loss is of one image; choose dynamicdps")
    (term,) = terms
    table = cosine_levels().to(initial)
    outside = torch.zeros(len(initial), dtype=torch.bool, device=initial.device)
    if config.start_sigma is None:
        rule = config.bank or read_bank()
        residual = term.residual_over_measured(initial)
        first = rule.steps(residual)
        outside = rule.outside(residual, term.noise.std)
    else:
        first = (torch.searchsorted(table, torch.tensor(config.start_sigma).to(table)) + 1).expand(len(initial))

    # Images start at different steps of one process: all count down together, and each joins when its step comes.
    most = int(first.max())

    count = torch.arange(most, 0, -1, device=initial.device)[:, None]

    def sample(run: Run) -> Tensor:
        x = run.x
        run.levels = table[torch.minimum(first[None], count) - 1]
        out = initial.clone()
        best = torch.full((len(initial),), torch.inf, dtype=wide_type(initial.device), device=initial.device)
        length = torch.full_like(best, 1.0)
        for i in range(most):
            t = most - i
            running = (first >= t).nonzero()[:, 0]
            sigma = table[t - 1].expand(len(running))
            # The loss is in the paper's units already (range 2), hence half the factor of DPS.
            down = table[t - 2] if t > 1 else torch.zeros_like(table[0])
            scale = float(vp_factor(table[t - 1], down)) / 2
            part, here = term.select(running), x[running]
            denoised, pullback = run.denoise_with_pullback(here, sigma, running)
            share = (t / first[running]).to(here) * config.blend
            denoised = _blended(denoised, initial[running], share)
            value, slope = composite_loss(part, denoised)
            gradient = pullback(per_image(1 - share, slope) * slope)
            run.operator_calls += 2
            outcome = torch.full_like(running, int(Outcome.UNCHECKED))
            if t <= 5:
                length[running] = SHORTEST
            else:
                # Counted from each image's own start: who else is in the batch changes nothing.
                due = ((first[running] - t) % config.search_every == 0).nonzero()[:, 0]
                if len(due):
                    one = part.select(due)
                    found, why = _search(
                        run,
                        here[due],
                        scale * gradient[due],
                        gradient[due],
                        value[due],
                        sigma[due],
                        one,
                        running[due],
                        initial[running[due]],
                        share[due],
                    )
                    length[running[due]], outcome[due] = found, why
            better = value < best[running]
            out = out.index_copy(0, running[better], denoised[better])
            best[running] = torch.minimum(best[running], value)
            if t > 1:
                wide = per_image(sigma, here)
                fresh = noise_like(here, [run.generators[k] for k in running.tolist()])
                mean = denoised + (down / wide) ** 2 * (here - denoised)
                stepped = mean + down * (1 - (down / wide) ** 2).clamp_min(0).sqrt() * fresh
                x = x.index_copy(0, running, stepped - per_image(length[running], here) * scale * gradient)
            full = torch.full_like(first, int(Outcome.UNCHECKED)).index_copy(0, running, outcome)
            run.record(term.misfit(out), length, full)
        return out

    start = table[first - 1]
    shown = replace(config, steps=most)
    found = run_samples(
        sample,
        term,
        prior,
        initial,
        shown,
        generator=generator,
        progress=progress,
        start=start,
    )
    return replace(found, outside_calibration=outside)


def read_bank() -> BankRule:
    """The bundled memory bank."""
    rule = read_start_level(FOLDER / "start-bank.json")
    if not isinstance(rule, BankRule):
        raise TypeError("the bundled memory bank is of another rule")
    return rule


def _blended(denoised: Tensor, initial: Tensor, share: Tensor) -> Tensor:
    """The denoised image with a share of the initial one, ``(batch,)``; itself where the share is 0."""
    return denoised + per_image(share, denoised) * (initial - denoised)


def _search(
    run: Run,
    x: Tensor,
    direction: Tensor,
    gradient: Tensor,
    value0: Tensor,
    sigma: Tensor,
    term: DataTerm,
    index: Tensor,
    initial: Tensor,
    share: Tensor,
) -> tuple[Tensor, Tensor]:
    """The reference implementation's search, image by image: Armijo fails, shrink; curvature fails, grow; within its bounds.

    The loss is of the denoised image with its share of the initial one, as its gradient is.
    """
    length = torch.ones_like(value0)
    outcome = torch.full_like(index, int(Outcome.TRIAL_LIMIT))
    slope0 = -inner(gradient, direction)
    active = torch.ones_like(index, dtype=torch.bool)
    for _ in range(MAX_TRIALS):
        chosen = active.nonzero()[:, 0]
        if len(chosen) == 0:
            break
        trial = x[chosen] - per_image(length[chosen], x) * direction[chosen]
        denoised, pullback = run.denoise_with_pullback(trial, sigma[chosen], index[chosen])
        kept = share[chosen]
        value, slope = composite_loss(term.select(chosen), _blended(denoised, initial[chosen], kept))
        along = -inner(pullback(per_image(1 - kept, slope) * slope), direction[chosen])
        run.operator_calls += 2
        short = value > value0[chosen] + C1 * length[chosen] * slope0[chosen]
        flat = along.abs() <= -C2 * slope0[chosen]
        new = torch.where(short, SHRINK * length[chosen], torch.where(flat, length[chosen], GROW * length[chosen]))
        new = new.clamp(SHORTEST, LONGEST)
        done = ~short & flat
        outcome[chosen[done]] = int(Outcome.SATISFIED)
        stuck = ~done & (new == length[chosen])
        outcome[chosen[stuck]] = int(Outcome.STEP_LIMIT)
        length[chosen] = new
        active[chosen[done | stuck]] = False
    return length, outcome
