"""Every solver on a device that has no float64, imitated: the CPU, on which whatever makes float64 is refused but for the tables named."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import Inpainting, KSpace, LowField, Operator, uniform_mask
from dynamicdps.solvers import available, make_config, solve_tensors

# Small tables that are made on the CPU on every device, and go to it as float32.
ON_CPU = {
    "cosine_levels",
    "of_distances",
    "_of",
    "separable_spectrum",
    "separable_model",
    "on_cpu",
    "denoising_error",
    "_interpolated",
    "_mixed",
}
# Scipy's work is on the CPU as a whole.
ELSEWHERE = {"tv"}
NEED_SINGULAR_VALUES = {"ddnm", "ddrm"}
STEPS = {"conditional": {}, "data-step": {}, "dynamicdps-paper": {"start_sigma": 0.02}, "daps": {"steps": 2, "langevin_steps": 3}}


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        parts = found if isinstance(found, tuple | list) else (found,)
        if any(isinstance(part, Tensor) and part.dtype in (torch.float64, torch.complex128) for part in parts) and not _allowed():
            raise TypeError(f"{func} makes float64")
        return found


def _allowed() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name in ON_CPU:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class Smooth:
    data_mean = 0.4
    errors = {0.01: 0.008, 0.1: 0.04, 1.0: 0.12}  # noqa: RUF012

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        return (x + s * torch.nn.functional.avg_pool2d(x, 3, 1, 1)) / (1 + s)


MASK = torch.rand(12, 10, generator=torch.Generator().manual_seed(0)) < 0.7
OPERATORS: dict[str, Operator] = {
    "flat": LowField(gamma=0.7, in_plane_factor=2.0, blur=0.5),
    "thick": LowField(slice_thickness=3.0),
    "holes": Inpainting(MASK),
    "k-space": KSpace(uniform_mask((12, 10), 2, generator=torch.Generator().manual_seed(1), centre=0.3)),
}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest type is float32, as on Apple's GPUs, in every module that asks."""
    for name, module in list(sys.modules.items()):
        if name.startswith("dynamicdps.") and hasattr(module, "wide_type"):
            monkeypatch.setattr(module, "wide_type", lambda device: torch.float32)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("solver", sorted(set(available()) - ELSEWHERE))
def test_solvers(solver: str, name: str) -> None:
    if name == "k-space" and solver in NEED_SINGULAR_VALUES:
        pytest.skip("the singular values of undersampled k-space of a real image are not known")
    operator = OPERATORS[name]
    depth = (4,) if name == "thick" else ()
    truth = torch.rand(2, 1, *depth, 12, 10, generator=torch.Generator().manual_seed(2))
    y = operator(truth)
    settings = STEPS.get(solver, {"steps": 2, "samples": 2})
    config = make_config(solver, settings)
    with NoFloat64():
        found = solve_tensors(
            solver, [DataTerm(y, operator, 0.05)], Smooth(), truth * 0.9, generator=torch.Generator().manual_seed(3), config=config
        )
    assert torch.isfinite(found.image).all()
    assert found.image.dtype == torch.float32


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="makes float64"), NoFloat64():
        torch.ones(2).double()
