"""Adapter to deepinv: our prior and operators for its algorithms, its samplers as solvers of ours.

deepinv (DeepInverse, BSD-3, https://deepinv.github.io) is optional and imported only when used. Facts of it that matter here, from its
documentation and version 0.5.0:

- A `deepinv.models.Denoiser` works on images in [0, 1] with noise levels in the same units, as ours. Samplers whose state is in [-1, 1]
  convert before each call, so nothing is rescaled here.
- Its samplers draw from torch's global random state and know one noise level a call, so images are solved one at a time, each from
  its own seed: results do not depend on the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynamicdps.data_term import DataTerm, join
from dynamicdps.errors import InputError
from dynamicdps.operators.linear import LinearModel, SpectralModel
from dynamicdps.priors import Denoiser, Prior, as_prior
from dynamicdps.priors.sampling import image_generators
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.registry import available, register

GUIDED = {
    "DPS": "DPSDataFidelity",
    "PiGDM": "PiGDMDataFidelity",
    "MMPS": "MomentMatchingDataFidelity",
    "ALD": "ALDDataFidelity",
    "ScoreSDE": "ScoreSDEDataFidelity",
    "ILVR": "ILVRDataFidelity",
}
SAMPLERS = ("DiffPIR", "DDRM", *GUIDED)
OLDEST = "0.5"
REMEDY = "install it by pip install dynamicdps[peers]"


@dataclass(frozen=True)
class DeepinvConfig:
    """How to run a sampler of deepinv; what is `None` stays as deepinv has it.

    Attributes:
        sampler: ``"DiffPIR"`` (Zhu et al. 2023), ``"DDRM"`` (Kawar et al. 2022), ``"DPS"`` (Chung et al. 2023), ``"PiGDM"`` (Song et al.
            2023), ``"MMPS"`` (moment matching, Rozet et al. 2024), ``"ALD"`` (Jalal et al. 2021), ``"ScoreSDE"`` (Song et al. 2021) or
            ``"ILVR"`` (Choi et al. 2021). All but the first two run deepinv's variance-preserving reverse process.
        samples: posterior samples; the estimate is their mean, the uncertainty their spread.
        steps: denoiser passes of a sample, at least 2.
        weight: of the prior in DiffPIR (its lambda; in deepinv's units, twice our `DiffPIRConfig.weight` is the same data step); of the
            measurement in the others. DDRM has none. DPS with deepinv's own weight of 1 hardly sees the measurement: about
            ``|y - A(x)| / noise_std^2`` is the likelihood's.
        eta: share of fresh noise in a step: zeta of DiffPIR, eta of DDRM, eta of DDIM in the others (1: ancestral sampling).
        chunk: slices a denoiser pass, a bound on memory.
    """

    sampler: str = "DiffPIR"
    samples: int = 1
    steps: int = 100
    weight: float | None = None
    eta: float | None = None
    chunk: int = 8

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"the sampler is {self.sampler!r}; expected one of {', '.join(SAMPLERS)}")
        if self.samples < 1 or self.chunk < 1 or self.steps < 2:
            raise ValueError(f"samples {self.samples}, chunk {self.chunk}, steps {self.steps}; expected at least 1, 1 and 2")
        if self.weight is not None and (self.sampler == "DDRM" or self.weight <= 0):
            raise ValueError(f"the weight of {self.sampler} is {self.weight}; expected a number greater than 0, and none for DDRM")
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; expected 0 to 1")


@dataclass(frozen=True)
class DeepinvProblem:
    """An inverse problem as deepinv sees it.

    Attributes:
        physics: a `deepinv.physics.Physics`; ``physics(x)`` also adds noise, ``physics.A(x)`` does not.
        measurement: y for it. It differs from the given one where a contrast was undone.
        warnings: what was changed to make the problem linear, one sentence each.
    """

    physics: Any
    measurement: Tensor
    warnings: list[str]


def _deepinv() -> Any:
    """The package, if it is there and new enough."""
    try:
        import deepinv
    except (ImportError, RuntimeError) as error:
        # A torchvision that was built for another torch fails with a RuntimeError.
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"deepinv cannot be imported ({reason}); expected deepinv {OLDEST} or later with torchvision; {REMEDY}") from error
    if not hasattr(deepinv.sampling, "MomentMatchingDataFidelity"):
        found = getattr(deepinv, "__version__", "of an unknown version")
        raise InputError(f"the installed deepinv is {found}; expected {OLDEST} or later; {REMEDY}")
    return deepinv


def deepinv_denoiser(denoiser: Denoiser, *, chunk: int = 8) -> nn.Module:
    """A prior of ours as a `deepinv.models.Denoiser`, for any of deepinv's algorithms.

    Call it ``model(x, sigma)``: `x` of shape ``(batch, 1, height, width)``, or ``(batch, 1, depth, height, width)`` denoised slice by
    slice, range [0, 1] up to noise; `sigma` in the same units, a number or a tensor with one value or one for each image
    (``()``, ``(1,)``, ``(batch,)``, ``(batch, 1, 1, 1)``). If the denoiser is a module it becomes a submodule, so that
    ``.to(device)`` moves it.

    Args:
        denoiser: ``denoiser(x, sigma)`` with `sigma` of shape ``(batch,)``.
        chunk: slices a pass, a bound on memory.

    Raises:
        InputError: deepinv is not installed.
        ValueError: from the call: `sigma` has another shape.

    Source: `deepinv.models.Denoiser`, deepinv 0.5.0.
    """
    model: nn.Module = _denoiser_class(_deepinv().models.Denoiser)(denoiser, chunk)
    return model


@cache
def _denoiser_class(base: Any) -> Any:
    """The class, made when deepinv's own is known."""

    class Prior(base):  # type: ignore[misc]
        def __init__(self, denoiser: Denoiser, chunk: int) -> None:
            super().__init__()
            self.denoiser = denoiser
            self.chunk = chunk

        def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return as_prior(self.denoiser)(x, _levels(sigma, x), self.chunk)

    return Prior


def _levels(sigma: float | Tensor, x: Tensor) -> Tensor:
    """One noise level an image, ``(batch,)``."""
    levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if levels.numel() != 1 and (levels.numel() != len(x) or levels.shape[0] != len(x)):
        raise ValueError(f"sigma has shape {tuple(levels.shape)}; expected one noise level, or one for each of {len(x)} images")
    return levels.flatten().expand(len(x))


def deepinv_physics(term: DataTerm, shape: Sequence[int], *, linear: bool | None = None) -> DeepinvProblem:
    """A data term of ours as a physics of deepinv, with Gaussian noise.

    A linear operator becomes a `LinearPhysics`: a `DecomposablePhysics` where its singular values are known (as of `LowField`).
    `A_dagger` and `prox_l2` are ours: closed forms with singular values, conjugate gradients without. Images are in [0, 1], as in
    deepinv. Computation is in the measurement's type.

    Args:
        term: measurement, forward model and noise.
        shape: of the images, ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``; the physics is for batches of it.
        linear: `None` takes the operator as it is; where it is not linear, the result is a `Physics` with `A` only. True asks for a
            `LinearPhysics`, if need be by undoing a contrast on the measurement, which then changes and a warning says so. False asks
            for a `Physics` with `A` only.

    Raises:
        InputError: deepinv is not installed, or a linear physics was asked for and the operator cannot become linear.

    Source: `deepinv.physics.DecomposablePhysics`, `LinearPhysics`, `Physics` and `GaussianNoise`, deepinv 0.5.0.
    """
    dinv = _deepinv()
    operator, measurement = term.operator, term.target
    if linear is False or (linear is None and not operator.is_linear):
        physics = dinv.physics.Physics(A=operator.forward, noise_model=dinv.physics.GaussianNoise(term.noise.std))
        return DeepinvProblem(physics.to(measurement.device), measurement, [])
    problem = term.linear_problem(shape)
    return DeepinvProblem(_linear_physics(dinv, problem.model, problem.measurement, shape), problem.measurement, problem.warnings)


def _linear_physics(dinv: Any, model: LinearModel, y: Tensor, shape: Sequence[int]) -> Any:
    def typed(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        # Samplers with a float64 state apply the physics to it, or to the denoiser's float32.
        return lambda x: function(x.to(y.dtype)).to(x.dtype)

    noise = model.noise_std.to(y)
    # One value as a scalar: deepinv's samplers compute with it without broadcasting.
    common = {
        "noise_model": dinv.physics.GaussianNoise(noise[0].clone() if len(noise) == 1 else noise),
        "img_size": tuple(shape[1:]),
        "device": y.device,
    }
    if isinstance(model, SpectralModel):
        values = model.singular_values
        physics = dinv.physics.DecomposablePhysics(
            U=typed(model.data_from_basis),
            # Without a matrix the basis change is the identity, and DDRM writes into its result: the measurement must not be it.
            U_adjoint=typed(lambda w: model.data_to_basis(w).clone()),
            V=typed(model.from_basis),
            V_adjoint=typed(model.to_basis),
            mask=values.expand(len(values), *shape[1:]).contiguous(),
            **common,
        )
    else:
        physics = dinv.physics.LinearPhysics(A=typed(model.forward), A_adjoint=typed(model.adjoint), **common)

    def prox_l2(z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        x = z if isinstance(z, Tensor) else torch.full_like(physics.A_adjoint(y), float(z or 0))
        c = 1 / torch.as_tensor(gamma, dtype=noise.dtype, device=x.device).flatten()
        near, w = x.to(noise), y.to(noise)
        return (near + model.adjoint(model.solve_dual(w - model(near), c))).to(x.dtype)

    # In the normal form, deepinv's own, rounding is multiplied by gamma: at high noise levels float32 loses every digit.
    physics.prox_l2 = prox_l2
    physics.A_dagger = lambda y, **_: model.pseudo_inverse(y.to(noise)).to(y.dtype)
    return physics


def solve_deepinv(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: DeepinvConfig = DeepinvConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Run a sampler of deepinv as a solver of ours.

    DPS takes the operator as it is. The others need a linear one: a contrast is undone on the measurement, and a warning says so. All
    start from noise that hides the initial image; only its shape matters. Torch's global random state is left as it was. deepinv does
    not report its steps: the trace is empty and operator calls are not counted.

    Args:
        terms: what was measured.
        prior: the prior, or a denoiser of slices.
        initial: images in [0, 1], ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
        generator: source of all randomness.
        config: sampler and its constants.
        progress: called with denoiser passes done and planned, of an image.

    Raises:
        InputError: deepinv is not installed, or the sampler cannot work with this operator.

    Source: `deepinv.sampling`, deepinv 0.5.0.
    """
    dinv = _deepinv()
    term, model = join(terms), deepinv_denoiser(prior, chunk=config.chunk)
    passes = _Passes(len(initial), config.samples * config.steps, progress)
    model.register_forward_hook(passes)
    images, spreads, starts, warnings = [], [], [], []
    for i, seeds in enumerate(image_generators(generator, len(initial))):
        passes.image = i
        chosen, start = term.select(torch.tensor([i])), initial[i : i + 1].detach()
        problem = deepinv_physics(chosen, start.shape, linear=None if config.sampler == "DPS" else True)
        draw, sigma = _sampler(dinv, config, model, problem, start)
        drawn = torch.cat([_seeded(draw, seeds.initial_seed() + k, start.device) for k in range(config.samples)]).to(initial.dtype)
        images.append(drawn.mean(0, keepdim=True))
        spreads.append(drawn.std(0, keepdim=True) if config.samples > 1 else drawn)
        starts.append(sigma)
        warnings += problem.warnings
    image = torch.cat(images)
    return Reconstruction(
        image=image,
        misfit=term.misfit(image),
        nfe=torch.tensor(passes.forward, device=image.device),
        nbackward=torch.tensor(passes.backward, device=image.device),
        start_sigma=torch.tensor(starts, dtype=image.dtype, device=image.device),
        uncertainty=torch.cat(spreads) if config.samples > 1 else None,
        warnings=list(dict.fromkeys(warnings)),
    )


def _sampler(dinv: Any, config: DeepinvConfig, prior: nn.Module, problem: DeepinvProblem, initial: Tensor) -> tuple[Any, float]:
    """A function that draws one sample, and the noise level that it starts from in units of [0, 1]."""
    y, physics = problem.measurement, problem.physics
    if config.sampler == "DiffPIR":
        sampler = dinv.sampling.DiffPIR(
            prior,
            dinv.optim.data_fidelity.L2(),
            sigma=float(physics.noise_model.sigma),
            max_iter=config.steps,
            device=initial.device,
            **_given(zeta=config.eta, lambda_=config.weight),
        )
        return lambda: sampler(y, physics, x_init=initial), float(sampler.sigmas[sampler.seq[0]]) / 2
    if config.sampler == "DDRM":
        if not isinstance(physics, dinv.physics.DecomposablePhysics):
            raise InputError("the operator's singular values are not known; expected an operator that has them for DDRM; choose DiffPIR")
        sigmas = np.linspace(1, 0, config.steps)
        sampler = dinv.sampling.DDRM(prior, sigmas=sigmas, **_given(eta=config.eta))
        return lambda: sampler(y, physics), float(sigmas[0])
    sampler = _guided(dinv, config, prior, initial.device)
    return lambda: sampler(y, physics, x_init=initial.shape), float(sampler.sde.sigma_t(1.0)) / 2


def _guided(dinv: Any, config: DeepinvConfig, prior: nn.Module, device: torch.device) -> Any:
    """The reverse process with an approximation of the likelihood's score, which names the sampler."""
    # The state at the last time is the clean image: one pass fewer than times.
    times = torch.linspace(1, 0, config.steps + 1, dtype=torch.float64, device=device)
    solver = dinv.sampling.DDIMSolver(timesteps=times, eta=1.0 if config.eta is None else config.eta)
    weight = _given(weight=config.weight)
    if config.sampler == "DPS":
        return dinv.sampling.DPS(prior, solver=solver, device=device, **weight)
    fidelity = getattr(dinv.sampling, GUIDED[config.sampler])(**weight)
    sde = dinv.sampling.VariancePreservingDiffusion(device=device)
    return dinv.sampling.PosteriorDiffusion(fidelity, prior, sde, solver, device=device)


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _seeded(draw: Callable[[], Tensor], seed: int, device: torch.device) -> Tensor:
    """Call with torch's global random state seeded, and put the caller's back."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        return draw().detach()


class _Passes:
    """Forward hook of the denoiser: counts passes both ways for the image that is being solved."""

    def __init__(self, batch: int, planned: int, progress: Progress | None) -> None:
        self.image = 0
        self.forward = [0] * batch
        self.backward = [0] * batch
        self.planned = planned
        self.progress = progress

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        del module, inputs
        self.forward[self.image] += 1
        if self.progress is not None:
            self.progress(sum(self.forward) // len(self.forward), self.planned)
        watched: Tensor = _Watched.apply(output, self)  # type: ignore[no-untyped-call]
        return watched

    def pulled_back(self) -> None:
        self.backward[self.image] += 1


class _Watched(torch.autograd.Function):
    """The identity, which notes backward passes through it; tensor hooks do not work under `torch.func`."""

    @staticmethod
    def forward(output: Tensor, passes: _Passes) -> Tensor:
        del passes
        return output.view_as(output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Passes], output: Tensor) -> None:
        del output
        ctx.passes = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.passes.pulled_back()
        return gradient, None


def register_deepinv() -> list[str]:
    """Make deepinv's samplers solvers of ours, for `dynamicdps.solvers.solve`: ``"deepinv-diffpir"``, ``"deepinv-ddrm"`` and so on.

    Their configurations are `DeepinvConfig` with the sampler fixed. Calling it again changes nothing.

    Returns:
        The names, in the order of `SAMPLERS`.

    Raises:
        InputError: deepinv is not installed.
    """
    _deepinv()
    names = {f"deepinv-{sampler.lower()}": sampler for sampler in SAMPLERS}
    for name, sampler in names.items():
        if name not in available():
            register(name, config=_fixed(sampler))(solve_deepinv)
    return list(names)


def _fixed(sampler: str) -> type[DeepinvConfig]:
    """The configuration of one sampler: another name in its settings is refused."""
    fixed = field(default=sampler, init=False)
    kind: type[DeepinvConfig] = make_dataclass(f"Deepinv{sampler}Config", [("sampler", str, fixed)], bases=(DeepinvConfig,), frozen=True)
    return kind
