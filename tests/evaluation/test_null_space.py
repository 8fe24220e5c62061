import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from dynamicdps.evaluation import null_space_split, unsupported_map
from dynamicdps.evaluation.null_space import unsupported_by_all
from dynamicdps.operators import (
    AnisotropicBlur,
    BiasField,
    Composition,
    Contrast,
    Identity,
    Inpainting,
    InPlaneResolution,
    KSpace,
    LowField,
    Operator,
    PowerLaw,
    SameGrid,
    ScanOperator,
    SliceProfile,
    SwapSliceAxis,
    to_image_grid,
    uniform_mask,
)
from dynamicdps.volumes import IntensityScale, Volume, to_slices
from tests.conftest import make_phantom
from tests.properties import assert_batch_independent, input_error

NOISE = 0.01
SHAPE = (2, 1, 24, 20)
CHECKERS = ((torch.arange(24)[:, None] + torch.arange(20)) % 2).double()[None, None] - 0.5
KNOWN: list[Operator] = [
    LowField(gamma=0.4, in_plane_factor=2.0, blur=0.6),
    LowField(gamma=0.8, in_plane_factor=4.0, blur=1.0),
    LowField(gamma=torch.tensor([0.5, 0.9]), blur=torch.tensor([0.5, 1.5])),
    InPlaneResolution(3.0),
    Inpainting(torch.rand(24, 20, generator=torch.Generator().manual_seed(1)) > 0.3),
]
EXACT = pytest.mark.parametrize("operator", KNOWN, ids=str)


def random(generator: torch.Generator, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


@EXACT
@pytest.mark.parametrize("signal", [0.1, math.inf])
def test_both_parts_are_orthogonal_projections(operator: Operator, signal: float, generator: torch.Generator) -> None:
    error = random(generator)
    split = null_space_split(operator, error, signal=signal, noise_std=NOISE)
    torch.testing.assert_close(split.measurement + split.null, error)
    # To float32's precision: operators hold their bases in it.
    assert (inner(split.measurement, split.null).abs() < 1e-5 * inner(error, error)).all()
    again = null_space_split(operator, split.measurement, signal=signal, noise_std=NOISE)
    torch.testing.assert_close(again.measurement, split.measurement, rtol=0, atol=1e-5)
    assert (null_space_split(operator, split.null, signal=signal, noise_std=NOISE).measurement.abs() < 1e-5).all()


@EXACT
def test_the_null_part_leaves_nothing_above_the_noise(operator: Operator, generator: torch.Generator) -> None:
    error = random(generator)
    linear = operator.linear
    exact, practical = (null_space_split(operator, error, signal=signal, noise_std=NOISE).null for signal in (math.inf, 0.1))
    assert (linear(exact).flatten(1).norm(dim=1) < 3e-4 * error.flatten(1).norm(dim=1)).all()
    # Each coefficient of amplitude 0.1 stays below one standard deviation of the noise.
    limit = NOISE / 0.1 * practical.flatten(1).norm(dim=1)
    assert (linear(practical).flatten(1).norm(dim=1) <= limit * (1 + 1e-5) + 1e-9).all()


def test_equals_the_pseudo_inverse_of_the_matrix(generator: torch.Generator) -> None:
    operator = LowField(in_plane_factor=2.5, blur=0.4)
    basis = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    matrix = operator(basis).flatten(1).T
    error = random(generator, (3, 1, 8, 8))
    expected = (torch.linalg.pinv(matrix, rtol=1e-4) @ matrix @ error.flatten(1).T).T.view(error.shape)
    torch.testing.assert_close(null_space_split(operator, error, signal=math.inf, noise_std=NOISE).measurement, expected, rtol=0, atol=1e-4)


def test_the_contrast_changes_nothing(generator: torch.Generator) -> None:
    error = random(generator)
    plain, curved = (null_space_split(LowField(gamma=g, in_plane_factor=2.0), error, noise_std=NOISE) for g in (1.0, 0.4))
    torch.testing.assert_close(plain.null, curved.null)
    composed = null_space_split(InPlaneResolution(2.0) @ Contrast(PowerLaw(0.4)), error, noise_std=NOISE)
    torch.testing.assert_close(plain.null, composed.null, rtol=0, atol=1e-2)
    assert (null_space_split(Contrast(PowerLaw(0.4)), error, noise_std=NOISE).null == 0).all()


def test_iterative_and_spectral_models_agree(generator: torch.Generator) -> None:
    """A composition has no known basis."""
    single = InPlaneResolution(2.0)
    assert isinstance(Identity() @ single, Composition)
    error = random(generator)
    for signal in (0.1, math.inf):
        exact, iterative = (null_space_split(a, error, signal=signal, noise_std=NOISE) for a in (single, Identity() @ single))
        torch.testing.assert_close(iterative.null, exact.null, rtol=0, atol=1e-2 if signal < 1 else 1e-4)


@pytest.mark.parametrize(
    "operator",
    [
        KSpace(uniform_mask((16, 12), 3, generator=torch.Generator().manual_seed(0))),
        BiasField(torch.full((1, 2, 2), 0.1)),
        AnisotropicBlur(1.0, 2.0, angle=30.0),
        InPlaneResolution(1.5) @ AnisotropicBlur(0.7, 0.5) @ LowField(gamma=0.6),
    ],
    ids=str,
)
def test_operators_without_a_basis_split_too(operator: Operator, generator: torch.Generator) -> None:
    error = random(generator, (1, 1, 16, 12))
    split = null_space_split(operator, error, noise_std=NOISE)
    torch.testing.assert_close(split.measurement + split.null, error)
    assert (inner(split.measurement, split.null).abs() < 0.05 * inner(error, error)).all()
    null = split.null.flatten(1).norm(dim=1)
    assert (operator.linear(split.null).flatten(1).norm(dim=1) <= 2 * NOISE / 0.1 * null + 1e-9).all()


@pytest.mark.parametrize("gain", [0.03, 0.1, 0.3])
def test_without_a_basis_a_gain_is_filtered_by_its_square(gain: float, generator: torch.Generator) -> None:
    """One gain for all voxels, against a cut-off of 0.01 / 0.1."""
    operator = Identity() @ BiasField(torch.full((1, 1, 1), math.log(gain)))
    error = random(generator)
    t = gain**2 / (gain**2 + 0.1**2)
    torch.testing.assert_close(
        null_space_split(operator, error, noise_std=NOISE).measurement, (3 * t**2 - 2 * t**3) * error, rtol=1e-3, atol=1e-4
    )


def test_a_volume_loses_what_thick_slices_average(generator: torch.Generator) -> None:
    operator = SliceProfile(4.0)
    error = torch.zeros(1, 1, 16, 8, 8, dtype=torch.float64)
    error[:, :, ::2], error[:, :, 1::2] = 0.1, -0.1
    assert float(null_space_split(operator, error, noise_std=NOISE).null_share) > 0.95
    assert float(null_space_split(operator, torch.ones_like(error), noise_std=NOISE).null_share) < 0.02


def test_painted_detail_is_null_and_painted_shade_is_not() -> None:
    operator = LowField(gamma=0.6, in_plane_factor=4.0, blur=1.0)
    truth = torch.full((1, 1, 24, 20), 0.5)
    fine, broad = truth.clone(), truth.clone()
    fine[..., 8:16, 6:14] += 0.2 * CHECKERS[..., 8:16, 6:14].float()
    rows, columns = (torch.linspace(-1, 1, n) for n in (24, 20))
    broad += 0.2 * torch.exp(-4 * (rows[:, None].square() + columns.square()))
    shares = [float(null_space_split(operator, image, truth, noise_std=NOISE).null_share) for image in (fine, broad)]
    assert shares[0] > 0.98
    assert shares[1] < 0.05
    more = truth + 2 * (fine - truth)
    rms = [float(null_space_split(operator, image, truth, noise_std=NOISE).null_rms) for image in (truth, fine, more)]
    assert rms[0] == 0
    assert rms[2] == pytest.approx(2 * rms[1], rel=1e-5)


def test_of_several_scans_only_what_none_could_show_is_unsupported() -> None:
    """Thick slices across z hide detail along z, unless a second scan has its slices across another axis."""
    thick = LowField(slice_thickness=5.0)
    axial, sagittal = ScanOperator(thick, NOISE), ScanOperator(SwapSliceAxis(thick, 0), NOISE)
    image = make_phantom((20, 22, 20))
    scale = IntensityScale(1.0)
    z = np.cos(np.pi * np.arange(20))[None, None, :]
    detail = image.with_data((np.where(image.data > 0, 0.1 * z, 0) * np.ones(image.shape)).astype(np.float32))
    one = unsupported_by_all(detail, [axial], scale).data
    both = unsupported_by_all(detail, [axial, sagittal], scale).data
    energy = float(np.square(detail.data).sum())
    assert float(np.square(one).sum()) > 0.8 * energy
    assert float(np.square(both).sum()) < 0.2 * energy


@pytest.mark.parametrize("noise", [0.01, 0.06, 0.3])
def test_a_constant_is_shown_by_several_scans_of_any_noise(noise: float) -> None:
    thick = LowField(slice_thickness=5.0)
    scans = [ScanOperator(thick, noise), ScanOperator(SwapSliceAxis(thick, 0), noise)]
    constant = Volume(np.ones((20, 22, 20), np.float32), np.eye(4))
    assert float(np.abs(unsupported_by_all(constant, scans, IntensityScale(1.0)).data).max()) < 1e-5


def test_more_noise_hides_more(generator: torch.Generator) -> None:
    error = random(generator)
    shares = [null_space_split(LowField(blur=1.2), error, noise_std=noise).null_share for noise in (1e-4, 1e-2, 5e-2)]
    assert (shares[0] < shares[1]).all()
    assert (shares[1] < shares[2]).all()


@pytest.mark.parametrize("operator", [KNOWN[0], Identity() @ InPlaneResolution(2.0)], ids=str)
def test_an_image_does_not_depend_on_its_batch_mates(operator: Operator, generator: torch.Generator) -> None:
    assert_batch_independent(
        lambda e: null_space_split(operator, e, noise_std=NOISE).null, random(generator, (3, 1, 24, 20)), rtol=0, atol=1e-9
    )


def test_operators_that_are_not_linear_are_named() -> None:
    class Squared(SameGrid):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square()

    with input_error("Squared is not linear"):
        null_space_split(Squared(), torch.zeros(1, 1, 8, 8), noise_std=NOISE)
    with input_error("Composition is not linear"):
        null_space_split(LowField() @ Squared(), torch.zeros(1, 1, 8, 8), noise_std=NOISE)
    with input_error("the signal is 0"):
        null_space_split(LowField(), torch.zeros(1, 1, 8, 8), signal=0, noise_std=NOISE)
    with pytest.raises(ValueError, match="expected the same"):
        null_space_split(LowField(), torch.zeros(1, 1, 8, 8), torch.zeros(2, 1, 8, 8), noise_std=NOISE)
    blur = AnisotropicBlur(1.0, 1.0)
    assert blur.linear is blur


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_the_unsupported_map_leaves_no_trace_in_the_measurement(axis: int | None) -> None:
    """Whatever the direction of the slices, and whether the scan is weighed or shaded."""
    image = make_phantom((40, 44, 12) if axis is None else (12, 40, 44) if axis == 0 else (40, 12, 44))
    scale = IntensityScale.robust(image.data)
    upright = LowField(gamma=0.7, in_plane_factor=2.0, slice_thickness=3.0)
    operator = upright if axis is None else SwapSliceAxis(upright, axis)
    found = unsupported_map(image, ScanOperator(BiasField(0.1 * torch.ones(1, 1, 2)) @ operator, NOISE), scale, signal=math.inf)
    assert found is not None
    linear = upright.linear if axis is None else SwapSliceAxis(upright.linear, axis)
    null, whole = (linear(to_slices(v.data / scale.scale).movedim(0, 1)[None]) for v in (found, image))
    assert null.abs().max() < 1e-3 * whole.abs().max()
    assert np.abs(found.data).max() > 0.1 * scale.scale
    alone = unsupported_map(image, ScanOperator(operator, NOISE), scale, signal=math.inf)
    assert alone is not None
    np.testing.assert_array_equal(found.data, alone.data)


def test_no_map_without_singular_values() -> None:
    image = make_phantom((20, 24, 6))
    operator = ScanOperator(SliceProfile(3.0) @ AnisotropicBlur(1.0, 0.5), NOISE)
    assert unsupported_map(image, operator, IntensityScale.robust(image.data)) is None


@pytest.mark.parametrize("thickness", [2.0, 5.0])
def test_what_is_even_is_not_invented(thickness: float) -> None:
    """Where slices have gaps a constant is not in their span, yet they show all that there is of it: no stripes."""
    operator = LowField(in_plane_factor=2.0, slice_thickness=thickness, slice_spacing=5.0)
    even = Volume(np.full((24, 28, 40), 70.0, np.float32), np.eye(4))
    found = unsupported_map(even, ScanOperator(operator, NOISE), IntensityScale(100.0))
    assert found is not None
    np.testing.assert_allclose(found.data, 0, atol=0.1)
    # A slope along the slices' normal is shown as well, away from the edges.
    slope = even.with_data(np.broadcast_to(np.linspace(40, 90, 40, dtype=np.float32), even.shape).copy())
    sloped = unsupported_map(slope, ScanOperator(operator, NOISE), IntensityScale(100.0))
    assert sloped is not None
    np.testing.assert_allclose(sloped.data[..., 6:-6], 0, atol=0.5)


def test_the_map_lies_where_the_error_lies() -> None:
    """Structure between the slices that the interpolation gets wrong is in the map; its energy follows that of the error."""
    rng = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(rng.normal(size=(24, 28, 40)), 1.0).astype(np.float32)
    truth = Volume(50 + 100 * truth, np.eye(4))
    operator = LowField(slice_thickness=5.0, slice_profile="box")
    found = unsupported_map(truth, ScanOperator(operator, NOISE), IntensityScale(100.0), signal=math.inf)
    assert found is not None
    y = operator(to_slices(truth.data).movedim(0, 1)[None])
    error = truth.data - to_image_grid(y, operator, (1, 1, 40, 28, 24))[0, 0].numpy().transpose(2, 1, 0)
    energies = [ndimage.gaussian_filter(part**2, 2).ravel() for part in (found.data, error)]
    assert np.corrcoef(energies)[0, 1] > 0.9
