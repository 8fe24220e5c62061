"""Residuals, misfits, noise and weights of one measurement, and several measurements as one."""

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, excess_misfit, join, pooled_residual
from dynamicdps.operators import (
    Contrast,
    LowField,
    MotionBlur,
    Noise,
    PowerLaw,
    Stack,
    add_noise,
)
from tests.properties import assert_adjoint, assert_jacobian_products, input_error


def test_residual_of_the_truth_is_standard_normal(generator: torch.Generator) -> None:
    operator = LowField(gamma=0.7, in_plane_factor=2.0)
    x = torch.rand(3, 1, 64, 64, generator=generator)
    y = add_noise(operator(x), 0.02, [generator] * 3)
    residual = DataTerm(y, operator, 0.02).whitened(x)
    assert residual.shape == y.shape
    assert abs(float(residual.mean())) < 0.06
    assert abs(float(residual.std()) - 1) < 0.05


def test_an_invented_structure_shows(generator: torch.Generator) -> None:
    operator = LowField(blur=1.0)
    truth = torch.full((1, 1, 32, 32), 0.5)
    invented = truth.clone()
    invented[..., 10:16, 10:16] += 0.3
    residual = DataTerm(operator(truth), operator, 0.01).whitened(invented)
    assert float(residual[..., 13, 13]) < -20
    assert float(residual[..., 28, 28].abs()) < 1e-3


def test_measurement_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="expected that of the measurement"):
        DataTerm(torch.zeros(1, 1, 8, 8), LowField(in_plane_factor=2.0), 0.02).whitened(torch.zeros(1, 1, 8, 8))


SHAPE = (2, 1, 5, 12, 10)
NOISE = 0.02
SCANNER = LowField(gamma=0.7, in_plane_factor=2.0, slice_thickness=2.0)


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def image(generator: torch.Generator) -> Tensor:
    return torch.rand(SHAPE, generator=generator, dtype=torch.float64)


def stationary(shape: tuple[int, ...]) -> Tensor:
    """A spectrum with most power at low frequencies."""
    axes = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) for n in shape), indexing="ij")
    power = 0.1 + torch.exp(-20 * sum(axis.square() for axis in axes))
    return power / power.mean()


def test_noise_out_of_its_range_is_refused() -> None:
    with input_error("noise_std"):
        Noise(0.0)
    with input_error("expected one of"):
        Noise(0.1, "poisson")
    with input_error("mean power"):
        Noise(0.1, spectrum=torch.full((4, 4), 2.0))
    with input_error("not white"):
        Noise(0.1, "rician", stationary((4, 4))).draw(torch.ones(1, 1, 4, 4), seeds(1))


@pytest.mark.parametrize("shape", [(64, 48), (8, 32, 32)])
def test_noise_that_is_not_white_is_whitened(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Its residual has the power of white noise at low and at high frequencies, and the misfit of the truth is 1."""
    noise = Noise(0.05, spectrum=stationary(shape))
    truth = torch.rand(8, 1, *shape, generator=generator, dtype=torch.float64)
    blur = MotionBlur(2.0)
    y = noise.draw(blur(truth), seeds(8))
    plain, term = DataTerm(y, blur, Noise(0.05)), DataTerm(y, blur, noise)
    axes = tuple(range(-len(shape), 0))
    spectrum = noise.spectrum
    assert spectrum is not None
    low = spectrum > 1
    for each, expected in ((plain, float(spectrum[low].mean())), (term, 1.0)):
        power = torch.fft.fftn(each.whitened(truth), dim=axes, norm="ortho").abs().square().mean((0, 1))
        assert float(power[low].mean()) == pytest.approx(expected, rel=0.1)
    torch.testing.assert_close(term.misfit(truth), torch.ones(8, dtype=torch.float64), rtol=0.05, atol=0)
    assert_jacobian_products(term.operator, truth, generator)


def test_white_noise_changes_no_bit(generator: torch.Generator) -> None:
    x = image(generator)
    y = SCANNER(x) + 0.1
    term = DataTerm(y, SCANNER, NOISE)
    assert term.operator is SCANNER
    assert torch.equal(term.whitened(x), (y - SCANNER(x)) / 0.02)


def test_weights_leave_out_what_they_are_0_for(generator: torch.Generator) -> None:
    x = image(generator)
    weights = (torch.rand(3, 6, 5, generator=generator) > 0.4).double()
    y = SCANNER(x) + 0.1
    spoilt = torch.where(weights > 0, y, torch.full_like(y, 7.0))
    term, other = DataTerm(y, SCANNER, NOISE, weights=weights), DataTerm(spoilt, SCANNER, NOISE, weights=weights)
    torch.testing.assert_close(other.whitened(x), term.whitened(x))
    torch.testing.assert_close(term.misfit(x), torch.full((2,), 5.0, dtype=torch.float64))
    torch.testing.assert_close(term.excess(x), torch.full((2,), (0.1**2 - 0.02**2) ** 0.5, dtype=torch.float64))
    torch.testing.assert_close(term.per_slice(x), torch.full((2, 3), 5.0, dtype=torch.float64))


def test_slices_have_a_misfit_each(generator: torch.Generator) -> None:
    x = image(generator)
    y = SCANNER(x)
    y[0, :, 1] += 0.06
    weights = torch.ones(3, 6, 5)
    weights[2] = 0
    found = DataTerm(y, SCANNER, NOISE, weights=weights).per_slice(x)
    expected = torch.tensor([[0, 3.0, torch.nan], [0, 0, torch.nan]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, equal_nan=True, atol=1e-9, rtol=1e-6)


def test_a_chosen_image_keeps_its_own_measurement_weights_and_draw(generator: torch.Generator) -> None:
    x = image(generator)
    scanner = LowField(gamma=torch.tensor([0.6, 0.9]), in_plane_factor=2.0)
    weights = torch.rand(2, 1, 5, 6, 5, generator=generator)
    term = DataTerm(scanner(x) + 0.1, scanner, 0.02, weights=weights)
    term = term.perturbed(torch.randn(term.target.shape, generator=generator, dtype=torch.float64))
    for order in ([0], [1], [1, 0]):
        index = torch.tensor(order)
        torch.testing.assert_close(term.select(index).whitened(x[index]), term.whitened(x)[index])


def test_joined_terms_have_all_residuals(generator: torch.Generator) -> None:
    x = image(generator)
    first = DataTerm(SCANNER(x) + 0.1, SCANNER, NOISE)
    second = DataTerm(MotionBlur(2.0)(x) - 0.2, MotionBlur(2.0), Noise(0.05))
    both = join([first, second])
    assert join([first]) is first
    parts = [term.whitened(x).flatten(1) for term in (first, second)]
    torch.testing.assert_close(both.whitened(x), torch.cat(parts, 1))
    torch.testing.assert_close(both.misfit(x), torch.cat(parts, 1).square().mean(1).sqrt())
    assert_jacobian_products(both.operator, x, generator)
    torch.testing.assert_close(both.select(torch.tensor([1])).whitened(x[1:]), both.whitened(x)[1:])
    with pytest.raises(ValueError, match="no data term"):
        join([])
    with input_error("shapes of its measurements"):
        DataTerm(both.measurement, Stack((SCANNER, MotionBlur(2.0))), NOISE).misfit(x)


def test_one_contrast_keeps_its_curve_and_several_have_a_straight_one(generator: torch.Generator) -> None:
    x, p = image(generator), 0.1 * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    bent = Contrast(PowerLaw(0.7))
    one, two = Stack((SCANNER, MotionBlur(2.0) @ bent)), Stack((SCANNER, Contrast(PowerLaw(0.5))))
    step = torch.full((2, 1, 1, 1, 1), 0.5, dtype=torch.float64)
    torch.testing.assert_close(one.search_curve(x, p)(step)[0], bent.search_curve(x, p)(step)[0])
    torch.testing.assert_close(two.search_curve(x, p)(step)[0], x + 0.5 * p)
    assert one.is_straight_along_search
    assert not two.is_straight_along_search


def test_linear_solvers_see_the_contrast_undone_under_weights(generator: torch.Generator) -> None:
    """As without weights where they are 1, and nothing where they are 0; an image of the right intensities explains it."""
    x = 0.2 + 0.6 * torch.ones(SHAPE, dtype=torch.float64)
    weights = (torch.rand(3, 6, 5, generator=generator) > 0.4).double()
    plain = DataTerm(SCANNER(x), SCANNER, NOISE).linear_problem(SHAPE)
    weighted = DataTerm(SCANNER(x), SCANNER, NOISE, weights=weights).linear_problem(SHAPE)
    torch.testing.assert_close(weighted.measurement, weights * plain.measurement)
    torch.testing.assert_close(weighted.model(x), weights * plain.model(x))
    assert weighted.warnings == plain.warnings
    assert_adjoint(weighted.model.forward, weighted.model.adjoint, SHAPE, generator)
    torch.testing.assert_close(weighted.model(x), weighted.measurement, atol=1e-4, rtol=0)


def test_the_pooled_excess_of_an_image_depends_on_no_other_image(generator: torch.Generator) -> None:
    """Also where each image has a mask of its own, and measurements of different noise."""
    x = torch.rand(3, 1, 12, 12, generator=generator)
    weights = (torch.rand(3, 1, 12, 12, generator=generator) > torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1)).float()
    quiet = DataTerm(x + 0.1 * torch.rand(x.shape, generator=generator), MotionBlur(3.0), Noise(0.01))
    loud = DataTerm(x + 0.2 * torch.rand(x.shape, generator=generator), MotionBlur(5.0), Noise(0.05), weights)

    def excess(index: list[int]) -> Tensor:
        chosen = torch.tensor(index)
        residual, noise = pooled_residual([quiet.select(chosen), loud.select(chosen)], x[chosen])
        return excess_misfit(residual, noise)

    together = excess([0, 1, 2])
    torch.testing.assert_close(together, torch.cat([excess([k]) for k in range(3)]))
    # By hand: mean squares beyond each term's noise, weighted by how much was measured.
    counts = [144.0, weights[1].sum().item()]
    squares = [t.select(torch.tensor([1])).excess(x[1:2]).square().item() for t in (quiet, loud)]
    expected = (sum(n * s for n, s in zip(counts, squares, strict=True)) / sum(counts)) ** 0.5
    assert together[1].item() == pytest.approx(expected, rel=1e-4)
