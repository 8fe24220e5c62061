"""What data steps are preconditioned with: exact where an operator only mixes voxels, symmetric and positive everywhere."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dynamicdps.operators import BiasField, Composition, HermiteCurve, Linearisation, LowField, Operator, Scanner, SwapSliceAxis, Weighting
from dynamicdps.operators.linear import conjugate_gradients
from tests.properties import assert_batch_independent

SHAPE = (2, 1, 9, 20, 16)
NOISE, R = 0.02, torch.tensor([0.1, 0.3]).view(2, 1, 1, 1, 1)
MIXING = LowField(in_plane_factor=2.0, blur=0.8, slice_thickness=3.0)
SCANNERS: dict[str, Operator] = {
    "mixing": MIXING,
    "per-image": replace(MIXING, blur=torch.tensor([0.5, 1.2])),
    "coronal": SwapSliceAxis(MIXING, 1),
    "sagittal": SwapSliceAxis(MIXING, 0),
}


def normal(operator: Operator, w: Tensor) -> Tensor:
    return R.square() * operator(operator.adjoint(w, SHAPE)) + NOISE**2 * w


@pytest.mark.parametrize("name", SCANNERS)
def test_it_is_the_inverse_where_voxels_are_only_mixed(name: str, generator: torch.Generator) -> None:
    operator = SCANNERS[name]
    w = torch.randn(operator(torch.zeros(SHAPE)).shape, generator=generator)
    spectrum = operator.data_spectrum(SHAPE, w)
    assert spectrum is not None
    again = spectrum.from_basis(spectrum.values * spectrum.to_basis(w))
    torch.testing.assert_close(again, operator(operator.adjoint(w, SHAPE)), atol=1e-5, rtol=1e-4)
    row_sums = operator(operator.adjoint(torch.ones_like(w), SHAPE))
    torch.testing.assert_close(spectrum.row_sums.expand_as(w), row_sums, atol=1e-5, rtol=1e-4)
    apply = spectrum.preconditioner(row_sums, R, NOISE)
    torch.testing.assert_close(apply(normal(operator, w)), w, atol=2e-3, rtol=2e-3)


def test_it_is_symmetric_and_positive_with_contrast_shading_and_a_mask(generator: torch.Generator) -> None:
    """The conditions for conjugate gradients; voxels without weight have the noise alone."""
    x = torch.rand(SHAPE, generator=generator)
    weights = (torch.rand(3, 10, 8, generator=generator) > 0.3).float()
    scanner = LowField(gamma=0.5, in_plane_factor=2.0, blur=0.8, slice_thickness=3.0)
    operator = Weighting(weights) @ BiasField(0.2 * torch.ones(1, 1, 2)) @ scanner
    near = operator.linearise(x)
    a, b = (torch.randn(near.value.shape, generator=generator) for _ in range(2))
    spectrum = operator.data_spectrum(SHAPE, a)
    assert spectrum is not None
    apply = spectrum.preconditioner(near.jvp(near.vjp(torch.ones_like(a))), R, NOISE)
    torch.testing.assert_close((apply(a) * b).sum(), (a * apply(b)).sum(), rtol=1e-3, atol=0)
    assert ((apply(a) * a).flatten(1).sum(1) > 0).all()
    outside = (1 - weights) * a
    torch.testing.assert_close(apply(outside), outside / NOISE**2)


def test_voxels_without_slope_cost_no_steps(generator: torch.Generator) -> None:
    """Where a curve turns round a voxel says nothing; conjugate gradients are as short as for one that rises."""
    x = 0.3 + 0.1 * torch.rand(SHAPE, generator=generator)
    x[..., 8:] += 0.4
    weights = (torch.rand(3, 10, 8, generator=generator) > 0.3).float()
    rising = HermiteCurve(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.8]))
    turning = HermiteCurve(torch.tensor([0.0, 0.1, 0.2, 0.6, 0.95]), torch.tensor([0.0, 0.6, 1.0, 0.65, 0.65]))
    steps = []
    for curve in (rising, turning):
        operator = Composition((Weighting(weights), Scanner(MIXING.linear, curve)))
        near = operator.linearise(x)
        b = torch.randn(near.value.shape, generator=generator)
        spectrum = operator.data_spectrum(SHAPE, b)
        assert spectrum is not None
        apply = spectrum.preconditioner(near.row_sums(b), R, NOISE)

        def times(w: Tensor, near: Linearisation = near) -> Tensor:
            return R.square() * near.jvp(near.vjp(w)) + NOISE**2 * w

        found = conjugate_gradients(times, b, 200, 1e-3, precondition=apply)
        torch.testing.assert_close(times(found.x), b, atol=0.05, rtol=0)
        steps.append(int(found.products.max()))
        torch.testing.assert_close((apply(b) * found.x).sum(), (b * apply(found.x)).sum(), rtol=1e-3, atol=0)
    assert steps[1] <= 2 * steps[0]


def test_correlated_errors_enter_once_for_each_correlation(generator: torch.Generator) -> None:
    """``A M M^T A^T``; the decomposition is kept for the same M and never taken for another."""
    w = torch.randn(MIXING(torch.zeros(SHAPE)).shape, generator=generator)
    first, second = (torch.linalg.cholesky(0.3 * torch.eye(9) + share) for share in (0.7, 0.1))
    found = MIXING.data_spectrum(SHAPE, w, first)
    assert found is MIXING.data_spectrum(SHAPE, w, first.clone())
    for factor, spectrum in ((first, found), (second, MIXING.data_spectrum(SHAPE, w, second))):
        assert spectrum is not None
        spread = torch.einsum("ij,ncjyx->nciyx", factor @ factor.mT, MIXING.adjoint(w, SHAPE))
        torch.testing.assert_close(spectrum.from_basis(spectrum.values * spectrum.to_basis(w)), MIXING(spread), atol=1e-5, rtol=1e-4)


def test_two_parts_that_mix_have_none() -> None:
    assert (MIXING @ MIXING).data_spectrum(SHAPE, torch.zeros(2, 1, 1, 5, 4)) is None


def test_images_do_not_see_each_other(generator: torch.Generator) -> None:
    x = torch.rand(SHAPE, generator=generator)

    def apply(x: Tensor) -> Tensor:
        near = MIXING.linearise(x)
        spectrum = MIXING.data_spectrum(x.shape, near.value)
        assert spectrum is not None
        return spectrum.preconditioner(near.jvp(near.vjp(torch.ones_like(near.value))), torch.tensor(0.1), NOISE)(near.value)

    assert_batch_independent(apply, x)
