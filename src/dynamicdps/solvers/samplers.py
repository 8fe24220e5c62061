"""What all diffusion samplers share: noise levels, starts, counted passes, the mean of samples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, join
from dynamicdps.operators import LinearProblem
from dynamicdps.operators.parameters import per_image
from dynamicdps.priors import Denoiser, Prior, as_prior, descending_levels
from dynamicdps.priors.levels import cosine_levels
from dynamicdps.priors.sampling import image_generators, noise_like
from dynamicdps.solvers.reconstruction import Progress, Reconstruction, TraceStep, check_positive
from dynamicdps.solvers.registry import Solver, register

SPACINGS = ("karras", "log", "cosine")
PURE_NOISE = 10.0


@dataclass(frozen=True)
class SamplerConfig:
    """What every sampler has; each adds the constants of its paper.

    Attributes:
        samples: posterior samples; the estimate is their mean, the uncertainty their spread.
        steps: noise levels from the start down.
        start_sigma: the initial image is noised to this level; `None` is the algorithm's own start (pure noise, unless it says
            otherwise).
        stop_sigma: the last level.
        spacing: of the levels: ``"karras"`` (Karras et al. 2022), ``"log"`` (uniform in log sigma) or ``"cosine"`` (the paper's
            1000-step table, every so many).
        rho: how much Karras's levels crowd at the low end.
        eta: share of ancestral noise in each step: 0 is deterministic, 1 ancestral sampling. Where an algorithm has no such
            choice it says so.
        chunk: slices a denoiser pass, a bound on memory.
        keep_samples: keep every posterior sample beside their mean, for volumes with intervals; takes their memory.
    """

    may_be_zero: ClassVar[tuple[str, ...]] = ("eta",)

    samples: int = 1
    steps: int = 100
    start_sigma: float | None = None
    stop_sigma: float = 0.01
    spacing: str = "karras"
    rho: float = 3.0
    eta: float = 1.0
    chunk: int = 8
    keep_samples: bool = False

    def __post_init__(self) -> None:
        check_positive(self, self.may_be_zero)
        if self.spacing not in SPACINGS:
            raise ValueError(f"the spacing is {self.spacing!r}; expected one of {', '.join(SPACINGS)}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; expected 0 to 1")

    @property
    def differentiates(self) -> bool:
        """Whether the solver differentiates through the network."""
        return False

    def levels(self, start: Tensor) -> Tensor:
        """Noise levels from each image's start down, ``(steps, batch)``."""
        if self.spacing == "karras":
            return descending_levels(start, self.steps, self.stop_sigma, self.rho)
        if self.spacing == "log":
            # rho to infinity: equal ratios.
            end = torch.minimum(start, torch.full_like(start, self.stop_sigma)).log()
            ramp = torch.linspace(0, 1, self.steps, device=start.device)[:, None] if self.steps > 1 else torch.zeros_like(start[None, :1])
            return (start.log() + ramp * (end - start.log())).exp()
        table = cosine_levels().to(start)
        top = torch.searchsorted(table, start.clamp(max=float(table[-1])))
        low = torch.searchsorted(table, torch.minimum(start, torch.full_like(start, self.stop_sigma)))
        ramp = torch.linspace(0, 1, self.steps, device=start.device)[:, None] if self.steps > 1 else torch.zeros_like(start[None, :1])
        return table[(top + ramp * (low - top)).round().long()]


@dataclass
class Run:
    """One sample of a batch on its way down: the state that a sampler's loop needs.

    Attributes:
        x: the start, noised to ``levels[0]``.
        levels: noise levels, ``(steps, batch)``.
        generators: one an image.
        prior: the prior.
        chunk: slices a pass.
        nfe: denoiser passes of each image so far.
        nbackward: backward passes.
        sign: of all noise: -1 in the second sample of a pair.
        trace: the steps so far.
    """

    x: Tensor
    levels: Tensor
    generators: Sequence[torch.Generator]
    prior: Prior
    chunk: int
    tick: Callable[[int], None]
    nfe: Tensor
    nbackward: Tensor
    sign: float = 1.0
    operator_calls: int = 0
    trace: list[TraceStep] = field(default_factory=list)

    def denoise(self, x: Tensor, sigma: Tensor, index: Tensor | None = None) -> Tensor:
        """``D(x, sigma)`` without gradient, counted; `index` says which images of the batch these are, if not all."""
        with torch.no_grad():
            out = self.prior(x, sigma, self.chunk, self.turn)
        self.nfe[slice(None) if index is None else index] += 1
        return out

    def denoise_with_pullback(self, x: Tensor, sigma: Tensor, index: Tensor | None = None) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """``D(x, sigma)`` and the product of a vector with its Jacobian's transpose, usable once; both passes are counted.

        A graph takes hundreds of times the memory of an image: of more slices than `chunk` it is made anew, a chunk at a time, when the
        product is asked for. That repeats the pass, which is not counted again.
        """
        chosen = slice(None) if index is None else index
        turn = self.turn
        if len(x) * (x.shape[2] if x.ndim == 5 else 1) > self.chunk:
            whole = self.denoise(x, sigma, index)

            def pullback_of_chunks(w: Tensor) -> Tensor:
                self.nbackward[chosen] += 1
                return self.prior.pullback(x, sigma, w, self.chunk, turn)

            return whole, pullback_of_chunks
        with torch.enable_grad():
            variable = x.detach().clone().requires_grad_()
            denoised = self.prior(variable, sigma, self.chunk, turn)
        self.nfe[chosen] += 1

        def pullback(w: Tensor) -> Tensor:
            self.nbackward[chosen] += 1
            gradient: Tensor = torch.autograd.grad(denoised, variable, w.to(denoised))[0]
            return gradient

        return denoised.detach(), pullback

    @property
    def turn(self) -> int:
        """Number of the level, by which a prior of several planes chooses one."""
        return len(self.trace)

    def error(self, sigma: Tensor) -> Tensor:
        """The denoiser's expected error r(sigma), ``(batch,)``."""
        return self.prior.error(sigma)

    def noise(self, shape: Sequence[int] | None = None) -> Tensor:
        """Standard normal noise of image shape, or of another one, batch first."""
        like = self.x if shape is None else self.x.new_empty(tuple(shape))
        return self.sign * noise_like(like, self.generators)

    def steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each noise level with the next one, ``(batch,)`` both; the last one's next is 0."""
        return falling(self.levels)

    def renew(self, x: Tensor, x0: Tensor, sigma: Tensor, down: Tensor, share: float) -> Tensor:
        """From a level to the next, with a share of the noise's variance drawn anew (Zhu et al. 2023, eq. 14; Zhang et al. 2025).

        Down to 0 it is `x0`.
        """
        if not down.any():
            return x0
        if share == 1:
            return x0 + per_image(down, x) * self.noise()
        noise = float((1 - share) ** 0.5) * (x - x0) / per_image(sigma, x)
        if share > 0:
            noise = noise + float(share**0.5) * self.noise()
        return x0 + per_image(down, x) * noise

    def step_down(self, x: Tensor, x0: Tensor, sigma: Tensor, down: Tensor, eta: float) -> Tensor:
        """From a level to the next, with `x0` as the clean image (Song et al. 2021, DDIM eq. 12, in noise-level form).

        With ``eta = 1`` it is the ancestral step: the posterior of the next state given `x` and `x0`. Down to 0 it is `x0`.
        """
        if not down.any():
            return x0
        sigma, down = per_image(sigma, x), per_image(down, x)
        fresh = eta * down * (1 - (down / sigma) ** 2).clamp_min(0).sqrt()
        kept = (down**2 - fresh**2).clamp_min(0).sqrt()
        return x0 + kept / sigma * (x - x0) + (fresh * self.noise() if eta > 0 else 0)

    def record(self, misfit: Tensor, step_length: Tensor | None = None, outcome: Tensor | None = None) -> None:
        """Note a finished step; what a solver does not have is 1 (step) or satisfied (outcome)."""
        i = len(self.trace)
        sigma = self.levels[i]
        ones = torch.ones_like(sigma)
        lengths = ones if step_length is None else step_length.to(sigma)
        outcomes = torch.zeros_like(sigma, dtype=torch.long) if outcome is None else outcome
        self.trace.append(TraceStep(i, sigma, misfit.to(sigma), lengths, outcomes))
        self.tick(i)


def falling(levels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each of falling noise levels ``(steps, batch)`` with the next one; the last one's next is 0."""
    return zip(levels, torch.cat([levels[1:], torch.zeros_like(levels[:1])]), strict=True)


Sample = Callable[[Run], Tensor]


def run_samples(
    sample: Sample,
    term: DataTerm,
    prior: Prior | Denoiser,
    initial: Tensor,
    config: SamplerConfig,
    *,
    generator: torch.Generator,
    progress: Progress | None = None,
    start: Tensor | None = None,
    warnings: Sequence[str] = (),
    finish: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Reconstruction:
    """Draw `config.samples` samples in pairs and return their mean with the spread.

    The second sample of a pair has the noise of the first with the opposite sign, everywhere: what is linear in the noise cancels in their
    mean (antithetic variates; Hammersley and Morton 1956). An image's noise depends on the generator and the image's place only; sample
    k's noise not on how many are drawn, so that more samples can be added later.

    Args:
        sample: one sample from a `Run` to its end; returns the clean images.
        term: the measurement.
        prior: the prior, or a denoiser of slices.
        initial: images that a warm start is noised from.
        config: counts and levels.
        generator: source of all randomness.
        progress: called with steps done and planned.
        start: start level of each image, ``(batch,)``; by default the configuration's, or pure noise.
        warnings: passed on.
        finish: called with the mean and the last levels; returns the estimate.
    """
    batch, device = len(initial), initial.device
    warm = start is not None or config.start_sigma is not None
    if start is None:
        start = torch.full((batch,), config.start_sigma or PURE_NOISE, device=device)
    levels = config.levels(start)
    # Pure noise has the prior's mean: a start around 0 would be off by a share of the range.
    prior = as_prior(prior)
    centre = initial if warm else torch.full_like(initial, prior.data_mean)
    seeds = image_generators(generator, batch)
    spread = PairSpread(initial)
    nfe, nbackward = (torch.zeros(batch, dtype=torch.long, device=device) for _ in range(2))
    traces: list[list[TraceStep]] = []
    kept = initial.new_empty((batch, config.samples, *initial.shape[1:])) if config.keep_samples else None
    calls = 0
    for index in range(config.samples):
        generators = [torch.Generator().manual_seed(g.initial_seed() + index // 2) for g in seeds]
        sign = 1.0 if index % 2 == 0 else -1.0

        def tick(i: int, index: int = index) -> None:
            if progress is not None:
                progress(index * config.steps + i + 1, config.samples * config.steps)

        x = centre + sign * per_image(levels[0], centre) * noise_like(centre, generators)
        run = Run(x, levels, generators, prior, config.chunk, tick, nfe, nbackward, sign)
        found = sample(run)
        if kept is not None:
            kept[:, index] = found
        traces.append(run.trace)
        calls += run.operator_calls
        spread.add(found)
    image = spread.mean if finish is None else finish(spread.mean, levels[-1])
    return Reconstruction(
        image=image,
        misfit=term.misfit(image),
        nfe=nfe,
        nbackward=nbackward,
        start_sigma=start,
        uncertainty=spread.deviation(),
        samples=kept,
        operator_calls=calls,
        trace=mean_trace(traces),
        warnings=list(warnings),
    )


@dataclass(frozen=True)
class Task:
    """What a sampler is asked to solve.

    Attributes:
        term: the measurement.
        initial: images that a warm start is noised from, ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
    """

    term: DataTerm
    initial: Tensor

    @cached_property
    def linear(self) -> LinearProblem:
        """The same for methods that need a linear operator; a contrast is undone, and the result warns of it.

        Raises:
            InputError: the operator is not linear and cannot become so.
        """
        return self.term.linear_problem(self.initial.shape)


Config = TypeVar("Config", bound=SamplerConfig)


def sampler(name: str, config: type[Config]) -> Callable[[Callable[[Task, Config], Sample]], Solver]:
    """Make a sampler available under a name; a decorator of the function that prepares it.

    The function gets the task and the configuration, and returns what draws one sample: from a `Run` down to the clean images.

    Args:
        name: a new one.
        config: its configuration, whose defaults are the sampler's.

    Raises:
        ValueError: from the decorator: the name is taken.
    """
    defaults = config()

    def add(prepare: Callable[[Task, Config], Sample]) -> Solver:
        def solve(
            terms: Sequence[DataTerm],
            prior: Prior | Denoiser,
            initial: Tensor,
            *,
            generator: torch.Generator,
            config: Config = defaults,
            progress: Progress | None = None,
        ) -> Reconstruction:
            task = Task(join(terms), initial)
            sample = prepare(task, config)
            warnings = task.linear.warnings if "linear" in vars(task) else ()
            return run_samples(sample, task.term, prior, initial, config, generator=generator, progress=progress, warnings=warnings)

        return register(name, config=config)(solve)

    return add


class PairSpread:
    """Mean and spread of samples that come in pairs of opposite noise.

    A pair's half difference holds what is linear in the noise, its mean the rest; both parts' variances add up.

    Args:
        like: an image.
    """

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        self.total = torch.zeros_like(like)
        self._first: Tensor | None = None
        self._pairs = 0
        self._odd = torch.zeros_like(like)
        self._mean, self._even = torch.zeros_like(like), torch.zeros_like(like)

    def add(self, sample: Tensor) -> None:
        """The next sample."""
        self.count += 1
        self.total = self.total + sample
        if self._first is None:
            self._first = sample
            return
        middle, half = (self._first + sample) / 2, (self._first - sample) / 2
        self._first = None
        self._pairs += 1
        self._odd = self._odd + half.square()
        # Welford's update: the spread of nearly equal means must not cancel.
        delta = middle - self._mean
        self._mean = self._mean + delta / self._pairs
        self._even = self._even + delta * (middle - self._mean)

    @property
    def mean(self) -> Tensor:
        """Mean of all samples."""
        return self.total / self.count

    def deviation(self) -> Tensor | None:
        """Standard deviation of a sample; `None` without a whole pair. A sample without its partner does not count."""
        if self._pairs == 0:
            return None
        variance = self._odd / self._pairs
        return (variance + self._even / (self._pairs - 1) if self._pairs > 1 else variance).sqrt()


def mean_trace(traces: Sequence[Sequence[TraceStep]]) -> list[TraceStep]:
    """The steps of several samples as one trace."""
    return [
        TraceStep(
            step=steps[0].step,
            sigma=steps[0].sigma,
            misfit=torch.stack([s.misfit for s in steps]).mean(0),
            step_length=torch.stack([s.step_length for s in steps]).mean(0),
            outcome=torch.stack([s.outcome for s in steps]).amax(0),
        )
        for steps in zip(*traces, strict=True)
    ]
