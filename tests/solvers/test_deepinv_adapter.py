import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import LinearOperator, LowField, Operator, add_noise
from dynamicdps.solvers import Reconstruction, available, make_config, solve_tensors
from dynamicdps.solvers.deepinv_adapter import (
    SAMPLERS,
    DeepinvConfig,
    deepinv_denoiser,
    deepinv_physics,
    register_deepinv,
    solve_deepinv,
)
from dynamicdps.solvers.diffpir import DiffPIRConfig
from dynamicdps.volumes.grids import Grid
from tests.properties import assert_adjoint, input_error

MEAN, STD, NOISE = 0.5, 0.2, 0.05
BATCH, HEIGHT, WIDTH = 2, 12, 8
CALLS: list[Callable[[], object]] = [
    lambda: deepinv_denoiser(gaussian),
    lambda: deepinv_physics(DataTerm(torch.zeros(1, 1, 4, 4), LowField(), NOISE), (1, 1, 4, 4)),
    lambda: solve_deepinv(*terms(problem()), generator=torch.Generator()),
    register_deepinv,
]


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact posterior mean for images with independent normal pixels."""
    assert sigma.shape == (len(x),)
    return MEAN + STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2) * (x - MEAN)


class Squares(Operator):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()

    def grid(self, image: Grid) -> Grid:
        raise NotImplementedError


class PairSums(LinearOperator, Squares):
    """A linear operator whose singular values nobody has told."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2] + 0.5 * x[..., 1::2]


def problem(operator: Operator | None = None, shape: tuple[int, ...] = (BATCH, 1, HEIGHT, WIDTH)) -> tuple[Tensor, Operator, Any, Tensor]:
    """Measurement, operator, denoiser and an initial image that is far off."""
    operator = operator or LowField(in_plane_factor=2.0)
    truth = (MEAN + STD * torch.randn(shape, generator=torch.Generator().manual_seed(3))).clamp(0.02, 1)
    generators = [torch.Generator().manual_seed(i) for i in range(len(truth))]
    return add_noise(operator(truth), NOISE, generators), operator, gaussian, torch.full_like(truth, 0.95)


def terms(given: tuple[Tensor, Operator, Any, Tensor]) -> tuple[list[DataTerm], Any, Tensor]:
    y, operator, denoiser, initial = given
    return [DataTerm(y, operator, NOISE)], denoiser, initial


def run(given: tuple[Tensor, Operator, Any, Tensor], seed: int = 0, **settings: Any) -> Reconstruction:
    return solve_deepinv(*terms(given), generator=torch.Generator().manual_seed(seed), config=DeepinvConfig(**settings))


@pytest.fixture(scope="module")
def deepinv() -> Any:
    with warnings.catch_warnings():
        # What deepinv and its requirements say of themselves on import.
        warnings.simplefilter("ignore")
        return pytest.importorskip("deepinv", reason="needs deepinv: pip install dynamicdps[peers]", exc_type=ImportError)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of deepinv as the denoiser needs: a base class."""
    sampling = SimpleNamespace(MomentMatchingDataFidelity=None)
    monkeypatch.setitem(sys.modules, "deepinv", SimpleNamespace(models=SimpleNamespace(Denoiser=nn.Module), sampling=sampling))


# Without deepinv.


@pytest.mark.parametrize("call", CALLS, ids=["denoiser", "physics", "solve", "register"])
def test_missing_package_is_an_input_error(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with input_error(r"deepinv cannot be imported .* pip install dynamicdps\[peers\]"):
        call()


def test_old_package_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", SimpleNamespace(sampling=SimpleNamespace(), __version__="0.3.7"))
    with input_error("deepinv is 0.3.7"):
        register_deepinv()


def test_torchvision_of_another_torch_is_an_input_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "deepinv.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    monkeypatch.delitem(sys.modules, "deepinv", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with input_error("nms does not exist"):
        register_deepinv()


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "diffpir"},
        {"samples": 0},
        {"steps": 1},
        {"chunk": 0},
        {"weight": 0.0},
        {"weight": 1.0, "sampler": "DDRM"},
        {"eta": 1.5},
    ],
)
def test_config_refuses(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        DeepinvConfig(**settings)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1), (3,), (3, 1, 1, 1)])
def test_denoiser_is_ours_at_any_shape_of_sigma(generator: torch.Generator, shape: tuple[int, ...]) -> None:
    x = MEAN + torch.randn(3, 1, 4, 5, generator=generator)
    sigma = 0.1 + torch.rand(shape, generator=generator, dtype=torch.float64)
    model = deepinv_denoiser(gaussian, chunk=2)
    torch.testing.assert_close(model(x, sigma), gaussian(x, sigma.float().flatten().expand(3)))
    if sigma.numel() == 1:
        torch.testing.assert_close(model(x, float(sigma)), model(x, sigma))


@pytest.mark.usefixtures("stand_in")
def test_denoiser_of_volumes_and_wrong_sigma(generator: torch.Generator) -> None:
    x = torch.randn(2, 1, 3, 4, 5, generator=generator)
    model = deepinv_denoiser(gaussian, chunk=2)
    sigma = torch.tensor([0.2, 0.5])
    torch.testing.assert_close(model(x, sigma)[:, :, 1], gaussian(x[:, :, 1], sigma))
    for shape in [(3,), (1, 2), (2, 1, 4, 5)]:
        with pytest.raises(ValueError, match="expected one noise level"):
            model(x, torch.ones(shape))


@pytest.mark.usefixtures("stand_in")
def test_denoiser_keeps_a_network_as_submodule() -> None:
    class Network(nn.Linear):
        pass

    assert len(list(deepinv_denoiser(Network(2, 2)).parameters())) == 2


# With deepinv.


def test_denoiser_is_one_of_deepinv(deepinv: Any) -> None:
    assert isinstance(deepinv_denoiser(gaussian), deepinv.models.Denoiser)


OPERATORS = {
    "singular values": LowField(in_plane_factor=2.0, blur=0.7),
    "per image": LowField(in_plane_factor=1.5, blur=torch.tensor([0.4, 1.0])),
    "identity": LowField(),
    "products only": PairSums(),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_linear_physics(deepinv: Any, generator: torch.Generator, name: str) -> None:
    operator = OPERATORS[name]
    x = torch.rand(BATCH, 1, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    y = operator(x)
    found = deepinv_physics(DataTerm(y, operator, NOISE), x.shape)
    physics, model = found.physics, operator.linear_problem(y, x.shape, NOISE).model
    assert isinstance(physics, deepinv.physics.LinearPhysics)
    assert isinstance(physics, deepinv.physics.DecomposablePhysics) == (name != "products only")
    assert not found.warnings
    torch.testing.assert_close(physics.A(x), y)
    assert_adjoint(physics.A, physics.A_adjoint, x.shape, generator)
    assert float(physics.adjointness_test(x, num_samples=BATCH)) < 1e-10
    torch.testing.assert_close(physics.A_dagger(y), model.pseudo_inverse(y), atol=1e-5, rtol=0)
    gamma = 3.0
    nearest = model.solve_normal(model.adjoint(y) + x / gamma, torch.full((1,), 1 / gamma, dtype=y.dtype))
    torch.testing.assert_close(physics.prox_l2(x, y, gamma), nearest, atol=1e-5, rtol=0)
    torch.testing.assert_close(physics.prox_l2(None, y, gamma), physics.prox_l2(torch.zeros_like(x), y, gamma))
    assert float(physics.noise_model.sigma) == pytest.approx(NOISE)
    # A sampler with a float64 state on a float32 measurement.
    single = deepinv_physics(DataTerm(y.float(), operator, NOISE), x.shape).physics
    torch.testing.assert_close(single.A(x), y, atol=1e-5, rtol=0)
    torch.testing.assert_close(single.A_adjoint(y), model.adjoint(y), atol=1e-5, rtol=0)
    torch.testing.assert_close(single.A_dagger(y), model.pseudo_inverse(y), atol=1e-5, rtol=0)
    # The trust in the measurement that DiffPIR starts with, where rounding must not be blown up.
    high = torch.tensor(1e8)
    torch.testing.assert_close(single.prox_l2(x.float(), y.float(), high).double(), physics.prox_l2(x, y, high), atol=1e-3, rtol=0)


def test_contrast_is_kept_or_undone(deepinv: Any) -> None:
    operator = LowField(gamma=torch.tensor([0.7, 1.3]), in_plane_factor=2.0)
    y, _, _, x = problem(operator)
    term = DataTerm(y, operator, NOISE)
    kept = deepinv_physics(term, x.shape)
    assert not isinstance(kept.physics, deepinv.physics.LinearPhysics)
    assert kept.measurement is y
    torch.testing.assert_close(kept.physics.A(x), operator(x))
    undone = deepinv_physics(term, x.shape, linear=True)
    assert isinstance(undone.physics, deepinv.physics.LinearPhysics)
    assert "contrast was undone" in undone.warnings[0]
    torch.testing.assert_close(undone.physics.A(x), operator.linear(x))
    assert undone.physics.noise_model.sigma.shape == (BATCH,)
    linear = LowField(in_plane_factor=2.0)
    assert not isinstance(deepinv_physics(DataTerm(y, linear, NOISE), x.shape, linear=False).physics, deepinv.physics.LinearPhysics)
    with input_error("Squares is not linear"):
        deepinv_physics(DataTerm(x, Squares(), NOISE), x.shape, linear=True)


@pytest.mark.usefixtures("deepinv")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler_explains_the_measurement(sampler: str) -> None:
    given = problem()
    y, operator, _, initial = given
    before = y.clone()
    # DPS differentiates the norm of the residual: its weight is of the order of residual / noise^2.
    weight = 100.0 if sampler == "DPS" else None
    found = run(given, sampler=sampler, steps=30, samples=2, weight=weight)
    assert found.image.shape == initial.shape
    assert found.image.dtype == initial.dtype
    assert -0.2 < found.image.min() < found.image.max() < 1.2
    assert (found.misfit < 0.3 * DataTerm(y, operator, NOISE).misfit(initial)).all()
    assert (found.misfit < 3).all()
    assert found.nfe.tolist() == [60] * BATCH
    guided = sampler in {"DPS", "PiGDM", "MMPS"}
    assert ((found.nbackward >= 60) == guided).all()
    assert guided or found.nbackward.sum() == 0
    assert (found.start_sigma >= 1).all()
    assert found.uncertainty is not None
    assert found.uncertainty.shape == initial.shape
    assert torch.equal(y, before)


@pytest.mark.usefixtures("deepinv")
@pytest.mark.parametrize("sampler", ["DiffPIR", "PiGDM"])
def test_samples_depend_on_seed_and_place_only(sampler: str) -> None:
    y, operator, denoiser, initial = given = problem()
    state = torch.random.get_rng_state()
    first, again, other = (run(given, seed=seed, sampler=sampler, steps=4).image for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = torch.Generator().manual_seed(1)
    config = DeepinvConfig(sampler=sampler, steps=4)
    alone = [
        solve_deepinv([DataTerm(y[i : i + 1], operator, NOISE)], denoiser, initial[i : i + 1], generator=generator, config=config).image
        for i in range(BATCH)
    ]
    assert torch.equal(torch.cat(alone), first)


@pytest.mark.usefixtures("deepinv")
@pytest.mark.parametrize("sampler", ["DiffPIR", "DDRM", "DPS"])
def test_other_operators(sampler: str) -> None:
    contrast = problem(LowField(gamma=0.7, in_plane_factor=2.0, blur=torch.tensor([0.3, 0.8])))
    found = run(contrast, sampler=sampler, steps=10, weight=100.0 if sampler == "DPS" else None)
    assert len(found.warnings) == (sampler != "DPS")
    assert (found.misfit < 3).all()
    thick = problem(LowField(in_plane_factor=2.0, slice_thickness=2.0), (1, 1, 4, HEIGHT, WIDTH))
    assert run(thick, sampler=sampler, steps=4).image.shape == (1, 1, 4, HEIGHT, WIDTH)
    identity = problem(LowField())
    before = identity[0].clone()
    run(identity, sampler=sampler, steps=4)
    assert torch.equal(identity[0], before)
    if sampler == "DDRM":
        with input_error("singular values are not known"):
            run(problem(PairSums()), sampler=sampler)
    elif sampler == "DiffPIR":
        with input_error("Squares is not linear"):
            run(problem(Squares()), sampler=sampler)
    else:
        assert run(problem(Squares()), sampler=sampler, steps=4).image.isfinite().all()


@pytest.mark.usefixtures("deepinv")
def test_twice_the_weight_is_our_data_step() -> None:
    given = problem(shape=(4, 1, 16, 12))
    theirs = run(given, sampler="DiffPIR", steps=60, weight=16.0, eta=0.3).misfit.mean()
    config = DiffPIRConfig(steps=60, weight=8.0)
    ours = solve_tensors("diffpir", *terms(given), generator=torch.Generator().manual_seed(0), config=config).misfit.mean()
    assert float(theirs) == pytest.approx(float(ours), rel=0.1)


@pytest.mark.usefixtures("deepinv")
def test_registered_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("dynamicdps.solvers.registry")
    monkeypatch.setattr(module, "_SOLVERS", dict(module._SOLVERS))
    names = register_deepinv()
    assert register_deepinv() == names
    assert set(names) <= set(available())
    assert {"deepinv-diffpir", "deepinv-dps", "deepinv-ddrm", "deepinv-pigdm"} <= set(names)
    config = make_config("deepinv-dps", {"steps": "3", "weight": "50"})
    assert (config.sampler, config.steps, config.weight) == ("DPS", 3, 50.0)
    with input_error("sampler"):
        make_config("deepinv-dps", {"sampler": "DDRM"})
    done: list[tuple[int, int]] = []
    generator = torch.Generator().manual_seed(0)
    found = solve_tensors("deepinv-dps", *terms(problem()), generator=generator, config=config, progress=lambda *step: done.append(step))
    assert found.nbackward.tolist() == [3] * BATCH
    assert done[-1] == (3, 3)
    assert done == sorted(done)
