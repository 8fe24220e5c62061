"""Solvers on operators other than the low-field scanner."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import Inpainting, InPlaneResolution, KSpace, LowField, Operator, ScanOperator, SliceProfile, simulate
from dynamicdps.operators import variable_density_mask as dense
from dynamicdps.solvers import DynamicDPSConfig, solve, solve_tensors
from dynamicdps.solvers.diffpir import DiffPIRConfig
from dynamicdps.volumes import Volume

MEAN, STD, NOISE, SIZE = 0.5, 0.2, 0.05, (16, 12)


class GaussianDenoiser:
    """The exact posterior mean for images with independent normal pixels."""

    errors = {s: s * STD / (s**2 + STD**2) ** 0.5 for s in torch.logspace(-3, 1, 60).tolist()}  # noqa: RUF012

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        return MEAN + STD**2 / (STD**2 + s**2) * (x - MEAN)


def line_mask() -> Tensor:
    return dense(SIZE, 2, generator=torch.Generator().manual_seed(0), centre=0.2)


OPERATORS: dict[str, tuple[Operator, int]] = {
    "inpainting": (Inpainting(torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) < 0.6), 1),
    "kspace": (KSpace(line_mask()), 1),
    "kspace-complex": (KSpace(line_mask()), 2),
    "kspace-coils": (KSpace(line_mask(), torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(2)) + 0j), 1),
}


# The weight 1 is that of Bayes' rule, which a known prior calls for; the default is for networks, and explains the data less closely.
CONFIGS = {"dynamicdps": DynamicDPSConfig(), "diffpir": DiffPIRConfig(steps=30, weight=1.0)}


@pytest.mark.parametrize("solver", CONFIGS)
@pytest.mark.parametrize("name", OPERATORS)
def test_solvers_explain_the_measurement(name: str, solver: str, generator: torch.Generator) -> None:
    operator, channels = OPERATORS[name]
    truth = MEAN + STD * torch.randn(3, channels, *SIZE, generator=generator)
    clean = operator(truth)
    measured = operator(torch.ones_like(truth)) != 0 if name == "inpainting" else line_mask()
    y = clean + NOISE * measured * torch.randn(clean.shape, generator=generator)
    initial = torch.full_like(truth, 0.9)
    before = ((y - operator(initial)) / NOISE).square().mean((1, 2, 3)).sqrt()
    seeded = torch.Generator().manual_seed(0)
    found = solve_tensors(solver, [DataTerm(y, operator, NOISE)], GaussianDenoiser(), initial, generator=seeded, config=CONFIGS[solver])
    assert (before > 1.5).all()
    assert (found.misfit < 1.5).all()
    assert ((found.image - truth).square().mean() < (initial - truth).square().mean()).all()


def test_composition_solves_a_scan_as_the_low_field_scanner_does(phantom: Volume) -> None:
    whole = LowField(in_plane_factor=2.0, slice_thickness=3.0)
    scan, tied = simulate(phantom, ScanOperator(whole, 0.02))
    parts = SliceProfile(3.0) @ InPlaneResolution(2.0)
    composed = ScanOperator(parts, 0.02, tied.image_shape, tied.image_affine, tied.intensity_scale)
    initial = phantom.with_data(0.8 * phantom.data)
    first, second = (solve("data-step", scan, operator, GaussianDenoiser(), initial=initial) for operator in (tied, composed))
    np.testing.assert_allclose(second.volume.data, first.volume.data, atol=1e-3)
    bare = solve("data-step", scan, ScanOperator(parts, 0.02), GaussianDenoiser(), initial=initial)
    assert bare.volume.shape == first.volume.shape
