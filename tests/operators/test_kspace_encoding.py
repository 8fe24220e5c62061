"""The encoding is a linear map with its adjoint that never enlarges, and where all is sampled it changes nothing but the coordinates."""

import pytest
import torch

from dynamicdps.data_term import DataTerm, data_step
from dynamicdps.operators import LowField, Weighting
from dynamicdps.operators.image_grid import voxel_factors
from dynamicdps.operators.kspace_encoding import EncodedOperator, Encoding
from tests.operators.raw_scans import maps_of
from tests.properties import assert_adjoint, assert_jacobian_products, input_error, measured_shape

# The file's x runs to the front, its y to the left: slices of 12 x 10 voxels are 10 x 12 in the file.
TURNED = ((1, 1), (0, -1), (2, 1))


def encoding(coils: int = 1, share: float = 1.0, turned: bool = True, boxed: bool = False) -> Encoding:
    shape = (4, 10, 12) if turned else (4, 12, 10)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < share
    box, corner = ((8, 9, 3), (1, 2, 1)) if boxed else (None, (0, 0, 0))
    maps = torch.from_numpy(maps_of(coils, shape))
    return Encoding(mask, maps, TURNED if turned else ((0, 1), (1, 1), (2, 1)), box, corner)


@pytest.mark.parametrize("coils", [1, 3])
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize(("turned", "boxed"), [(False, False), (True, False), (True, True)])
def test_adjoint(coils: int, share: float, turned: bool, boxed: bool, generator: torch.Generator) -> None:
    q = encoding(coils, share, turned, boxed)
    sizes = q.box or q.grid
    shape = (2, 1, *reversed(sizes))
    assert_adjoint(q.to_kspace, q.to_image, shape, generator)
    u = torch.randn(shape, generator=generator, dtype=torch.float64)
    assert q.to_kspace(u).shape == (2, 2 * coils, *q.mask.shape)
    assert (q.to_kspace(u).norm() <= u.norm() * (1 + 1e-12)).all()
    if share == 1.0:
        torch.testing.assert_close(q.to_image(q.to_kspace(u)), u)
    else:
        assert not (q.to_kspace(u) * ~q.mask).any()


def test_white_noise_stays_white(generator: torch.Generator) -> None:
    """Of white noise in all samples each voxel of the image has one part, as large and independent of its neighbours."""
    noise = torch.randn(200, 6, 4, 10, 12, generator=generator)
    image = encoding(coils=3).to_image(noise)
    assert float(image.std()) == pytest.approx(1.0, abs=0.01)
    near = (image[..., 1:] * image[..., :-1]).mean()
    assert abs(float(near)) < 0.01


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        encoding().to_kspace(torch.zeros(1, 1, 4, 10, 12))


OPERATORS = {
    "linear": LowField(in_plane_factor=1.5, blur=0.5, slice_thickness=2.0),
    "contrast": LowField(gamma=0.6, in_plane_factor=1.5, slice_thickness=2.0),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str, generator: torch.Generator) -> None:
    operator = EncodedOperator(OPERATORS[name], encoding(2, 0.7), 0.4)
    x = 0.1 + torch.rand(2, 1, 8, 18, 15, generator=generator, dtype=torch.float64)
    y = operator(x)
    assert y.shape == (2, 4, 4, 10, 12)
    assert_jacobian_products(operator, x, generator)
    assert operator.is_linear == (name == "linear")
    assert operator.couples_slices
    torch.testing.assert_close(operator.measured_fraction(y), torch.full((2,), 0.4, dtype=torch.float64))
    assert measured_shape(operator, (15, 18, 8)) == (10, 12, 4)
    assert operator.covered_shape((10, 12, 4)) == (15, 18, 8)
    assert voxel_factors(operator) == (1.5, 1.5, 2.0)
    assert operator.typical_value(0.5) == pytest.approx(OPERATORS[name].typical_value(0.5))
    with input_error("no file"):
        operator.to_json()


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("weighted", [False, True])
def test_where_all_is_sampled_the_data_step_is_that_of_the_image(name: str, weighted: bool, generator: torch.Generator) -> None:
    """``|Q W (v - B x)| = |W (v - B x)|``: a unitary transform changes no data term."""
    inner = OPERATORS[name] if not weighted else Weighting((torch.rand(4, 12, 10, generator=generator) > 0.3).double()) @ OPERATORS[name]
    q = encoding(3)
    x = 0.1 + 0.8 * torch.rand(1, 1, 8, 18, 15, generator=generator, dtype=torch.float64)
    centre = (x + 0.05 * torch.randn(x.shape, generator=generator, dtype=x.dtype)).clamp_min(0)
    image = inner(x) + 0.01 * torch.randn(1, 1, 4, 12, 10, generator=generator, dtype=x.dtype)
    image = image * (inner.operators[0].weights if weighted else 1.0)  # type: ignore[attr-defined]
    spread = torch.tensor([0.05])
    inside = data_step(DataTerm(q.to_kspace(image), EncodedOperator(inner, q), 0.01), centre, spread, cg_tolerance=1e-9, cg_iterations=300)
    outside = data_step(DataTerm(image, inner, 0.01), centre, spread, cg_tolerance=1e-9, cg_iterations=300)
    torch.testing.assert_close(inside.x, outside.x, atol=1e-4, rtol=0)


def test_preconditioner_is_the_inverse_where_it_is_known(generator: torch.Generator) -> None:
    """Linear, without a mask, all sampled: ``r^2 J J^T + n^2`` is inverted exactly."""
    operator = EncodedOperator(OPERATORS["linear"], encoding(2))
    shape, r = (1, 1, 8, 18, 15), torch.tensor(0.3, dtype=torch.float64)
    w = torch.randn(1, 4, 4, 10, 12, generator=generator, dtype=torch.float64)
    near = operator.linearise(torch.zeros(shape, dtype=torch.float64))
    spectrum = operator.data_spectrum(shape, w)
    assert spectrum is not None
    product = r**2 * near.jvp(near.vjp(w)) + 0.1**2 * w
    torch.testing.assert_close(spectrum.preconditioner(w, r, 0.1)(product), w, rtol=1e-6, atol=1e-6)


def test_preconditioner_is_positive_where_it_is_not(generator: torch.Generator) -> None:
    operator = EncodedOperator(OPERATORS["contrast"], encoding(2, 0.5))
    w = torch.randn(8, 4, 4, 10, 12, generator=generator, dtype=torch.float64)
    v = torch.randn(8, 4, 4, 10, 12, generator=generator, dtype=torch.float64)
    spectrum = operator.data_spectrum((8, 1, 8, 18, 15), w)
    assert spectrum is not None
    apply = spectrum.preconditioner(w, torch.tensor(0.3, dtype=torch.float64), 0.1)
    assert ((w * apply(w)).flatten(1).sum(1) > 0).all()
    torch.testing.assert_close((v * apply(w)).sum(), (w * apply(v)).sum())


def test_parameters_out_of_range() -> None:
    with input_error("share"):
        EncodedOperator(OPERATORS["linear"], encoding(), 0.0)
