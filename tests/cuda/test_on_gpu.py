"""The same numbers on a GPU as on the CPU: every operator, every solver, the priors, a resumed training. Run with `pytest -m cuda`."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.networks import NeighbourConfig, NeighbourUNet
from dynamicdps.operators import LowField, Operator
from dynamicdps.priors import Domain, NeighbourPrior
from dynamicdps.solvers import available, make_config, solve_tensors
from dynamicdps.training.loop import TrainingConfig, train
from dynamicdps.training.prior_training import WindowScoreMatching
from dynamicdps.training.processes import Processes
from dynamicdps.training.windows import SliceWindows, TrainingVolume
from tests.conftest import make_phantom
from tests.operators.every_operator import CASES, Case

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

FEWER = ("dps", "dps+", "projection", "mcg", "pigdm", "ddnm", "ddrm", "diffpir", "dds", "red-diff", "daps", "ccdf")
NOISE = 0.05
LINEAR = LowField(in_plane_factor=2.0)
BENT = LowField(gamma=0.6, in_plane_factor=1.5, blur=0.4)
THICK = LowField(slice_thickness=3.0)


class Smoothing:
    """A denoiser of images of any size, without weights."""

    data_mean = 0.4
    errors = {0.01: 0.008, 0.1: 0.04, 1.0: 0.12}  # noqa: RUF012

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def parameters(self) -> "list[Tensor]":
        return [torch.zeros((), device=self.device)]

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.to(x).view(-1, 1, 1, 1)
        smooth = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return self.data_mean + 0.1 / (0.1 + s**2) * ((x + s * smooth) / (1 + s) - self.data_mean)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operators(case: Case, generator: torch.Generator) -> None:
    x = case.image(generator)
    here, there = case.operator.linearise(x), case.operator.linearise(x.cuda())
    torch.testing.assert_close(there.value.cpu(), here.value)
    torch.testing.assert_close(there.jvp(x.cuda()).cpu(), here.jvp(x))
    torch.testing.assert_close(there.vjp(here.value.cuda()).cpu(), here.vjp(here.value))


@pytest.mark.parametrize("operator", [LINEAR, BENT, THICK], ids=["linear", "bent", "thick"])
@pytest.mark.parametrize("name", available())
def test_solvers(name: str, operator: Operator, generator: torch.Generator) -> None:
    deep = (3,) if operator is THICK else ()
    truth = torch.rand((2, 1, *deep, 24, 20), generator=generator)
    y = operator(truth) + NOISE * torch.randn(operator(truth).shape, generator=generator)
    initial = truth + 0.1 * torch.randn(truth.shape, generator=generator)
    config = make_config(name, {"steps": 4} if name in FEWER else {"steps": 8} if name == "dynamicdps-paper" else {})

    def run(device: str) -> Tensor:
        found = solve_tensors(
            name,
            [DataTerm(y.to(device), operator, NOISE)],
            Smoothing(device),
            initial.to(device),
            generator=torch.Generator().manual_seed(1),
            config=config,
        )
        return found.image.cpu()

    if name == "dynamicdps-paper" and operator is BENT:
        pytest.skip("its constant steps over a steep contrast multiply what rounding leaves")
    try:
        expected = run("cpu")
    except ValueError as error:
        pytest.skip(str(error))
    # A line search may take another branch where rounding decides.
    torch.testing.assert_close(run("cuda"), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.03)])
def test_prior(precision: torch.dtype, tolerance: float, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    network = (
        NeighbourUNet(NeighbourConfig(5, 3, channels=(16, 32), residual_blocks=(1, 1), attention=(False, False)))
        .eval()
        .requires_grad_(False)
    )
    x, sigma = torch.rand((2, 1, 5, 40, 36), generator=generator), torch.tensor([0.05, 0.5])
    expected = NeighbourPrior(network, 0.3, 0.3, Domain(suffix="T1w"))(x, sigma)
    found = NeighbourPrior(network.cuda(), 0.3, 0.3, Domain(suffix="T1w"), precision)(x.cuda(), sigma.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_resumed_training_is_the_uninterrupted_one(optimiser: str, tmp_path: Path) -> None:
    phantom = make_phantom((96, 80, 9))
    volume = TrainingVolume.from_array(phantom.data.transpose(2, 1, 0))

    def run(out: Path, *steps: int) -> dict[str, Tensor]:
        for number, end in enumerate(steps):
            torch.manual_seed(0)
            network = NeighbourUNet(NeighbourConfig(5, 3, channels=(16, 32), residual_blocks=(1, 1), attention=(False, False)))
            windows = SliceWindows([volume], 5, (32, 32), 4).to("cuda")
            objective = WindowScoreMatching(windows, 0.3, 0.3, 3)
            config = TrainingConfig(steps=end, warmup=2, checkpoint_every=2, optimiser=optimiser)
            state = train(network, objective, out, config, resume=number > 0, processes=Processes(device=torch.device("cuda")))
        return state.average

    torch.use_deterministic_algorithms(False)
    whole, parts = run(tmp_path / "a", 4), run(tmp_path / "b", 2, 4)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)
