"""How often a data step reads a number of a tensor: on a GPU each reading waits for all that was queued there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dynamicdps.data_term import DataStep, DataTerm, data_step
from dynamicdps.operators import LowField, conjugate_gradients, linear, operator
from dynamicdps.operators.linear import LOOK_EVERY

WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default}
NOISE = 0.02


class Readings(TorchDispatchMode):
    """Counts the operations whose result Python has to see."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The parameters of operators are numbers on the CPU.
        self.count += func in WAITS and args[0].numel() > 0 and args[0].ndim < 4
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU passes for a device that one waits for."""
    for module in (linear, operator):
        monkeypatch.setattr(module, "may_wait", lambda x: True)


def step(scanner: LowField, cg_iterations: int) -> DataStep:
    truth = 0.2 + 0.6 * torch.rand(3, 1, 5, 24, 20, generator=torch.Generator().manual_seed(1))
    term = DataTerm(scanner(truth), scanner, NOISE)
    # Without a tolerance all steps are taken.
    return data_step(term, 0.9 * truth + 0.05, torch.full((3,), 0.1), iterations=1, cg_iterations=cg_iterations, cg_tolerance=0.0)


def readings(work: Callable[[], object]) -> int:
    with Readings() as mode:
        work()
    return mode.count


SCANNERS = pytest.mark.parametrize(
    "scanner",
    [LowField(in_plane_factor=2.0, slice_thickness=2.0), LowField(gamma=0.6, in_plane_factor=2.0), LowField(gamma=1.4, blur=1.0)],
    ids=["linear", "bent", "bent the other way"],
)


@SCANNERS
@pytest.mark.usefixtures("waiting")
def test_conjugate_gradients_look_at_every_few_steps_only(scanner: LowField) -> None:
    step(scanner, 4)
    few, many = (readings(lambda n=n: step(scanner, n)) for n in (LOOK_EVERY, 5 * LOOK_EVERY))
    assert many - few <= 4
    assert few < 20


@SCANNERS
def test_looking_less_often_changes_no_bit(scanner: LowField, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = step(scanner, 12)
    for module in (linear, operator):
        monkeypatch.setattr(module, "may_wait", lambda x: True)
    other = step(scanner, 12)
    assert torch.equal(other.x, plain.x)
    assert torch.equal(other.misfit, plain.misfit)


@pytest.mark.usefixtures("waiting")
def test_steps_after_the_last_image_is_done_are_not_counted(generator: torch.Generator) -> None:
    diagonal = torch.linspace(1, 3, 12, dtype=torch.float64)
    b = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    found = conjugate_gradients(lambda x: diagonal * x, b, 200, 1e-6)
    torch.testing.assert_close(diagonal * found.x, b, atol=1e-5, rtol=0)
    assert 0 < int(found.products.max()) <= 12
