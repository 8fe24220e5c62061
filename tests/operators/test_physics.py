"""Operators against the physics they stand for, and against numpy and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from dynamicdps.operators import (
    AffineResample,
    AnisotropicBlur,
    BiasField,
    Identity,
    Inpainting,
    InPlaneResolution,
    KSpace,
    LowField,
    MotionBlur,
    Operator,
    SliceMotion,
    SliceProfile,
    SwapSliceAxis,
    Weighting,
    centre_mask,
    partial_fourier_mask,
    uniform_mask,
    variable_density_mask,
)
from dynamicdps.operators.image_grid import voxel_factors
from tests.operators.every_operator import in_plane, numbers, random, turned
from tests.properties import input_error, measured_shape, placed


def point(*shape: int) -> Tensor:
    """1 in the middle voxel of a slice or a volume."""
    x = torch.zeros(1, 1, *shape, dtype=torch.float64)
    x[(0, 0, *(n // 2 for n in shape))] = 1
    return x


def covariance(y: Tensor) -> Tensor:
    """Of a slice as a density over x, y."""
    height, width = y.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    weights = y.flatten() / y.sum()
    places = torch.stack([columns.flatten(), rows.flatten()])
    centred = places - (places * weights).sum(1, keepdim=True)
    return (centred * weights) @ centred.T


def half_width(line: Tensor) -> float:
    """Full width at half maximum, by linear interpolation."""
    line = line / line.max()
    inside = (line >= 0.5).nonzero()[:, 0]
    first, last = int(inside[0]), int(inside[-1])
    left = first - (line[first] - 0.5) / (line[first] - line[first - 1])
    right = last + (line[last] - 0.5) / (line[last] - line[last + 1])
    return float(right - left)


@pytest.mark.parametrize("profile", ["gaussian", "box", "sinc"])
@pytest.mark.parametrize("thickness", [3.0, 5.0])
def test_slice_profile_has_its_thickness_at_half_maximum(profile: str, thickness: float) -> None:
    spots = torch.eye(241, dtype=torch.float64).view(241, 1, 241, 1, 1)
    weights = SliceProfile(thickness, 0.1, profile, image_spacing=0.1)(spots)[:, 0, 120, 0, 0]
    assert half_width(weights) * 0.1 == pytest.approx(thickness, rel=0.04 if profile == "box" else 0.005)
    assert float(weights.sum()) == pytest.approx(1)
    assert bool((weights < -1e-3 * weights.max()).any()) == (profile == "sinc"), "only a sinc has negative side lobes"
    torch.testing.assert_close(weights, weights.flip(0), atol=1e-9, rtol=1e-6)


def test_turned_blur_spreads_a_point_as_its_covariance_says() -> None:
    angle = 30.0
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    axes = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    found = covariance(AnisotropicBlur(3.0, 1.0, 0.0, angle)(point(61, 61)))
    torch.testing.assert_close(found, axes @ torch.diag(numbers(9.0, 1.0)) @ axes.T, atol=1e-3, rtol=1e-3)


def test_blur_without_direction_is_the_low_field_blur() -> None:
    x = random(1, 1, 14, 17).abs()
    torch.testing.assert_close(AnisotropicBlur(1.3, 1.3, 0.0, 40.0)(x), LowField(blur=1.3)(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(AnisotropicBlur(0.0, 1.3)(x)[..., 3], AnisotropicBlur(0.0, 1.3)(x[..., 3:4])[..., 0], atol=3e-2, rtol=0)


def test_blur_across_slices_leaves_the_plane_alone() -> None:
    y = AnisotropicBlur(std_z=2.0)(point(31, 5, 5))[0, 0]
    weights = torch.exp(-0.5 * ((torch.arange(31) - 15) / 2.0) ** 2).double()
    torch.testing.assert_close(y[:, 2, 2], weights / weights.sum(), atol=1e-6, rtol=1e-4)
    assert float(y.sum()) == pytest.approx(float(y[:, 2, 2].sum()))


def test_motion_leaves_an_even_trace() -> None:
    y = MotionBlur(8.0)(point(21, 21))[0, 0]
    expected = torch.zeros(21, dtype=torch.float64)
    expected[6:15] = 1 / 8
    expected[[6, 14]] = 1 / 16
    torch.testing.assert_close(y[10], expected, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(MotionBlur(8.0, 90.0)(point(21, 21))[0, 0], y.T, atol=1e-9, rtol=1e-9)
    found = covariance(MotionBlur(12.0, 45.0)(point(31, 31)))
    # Along and across the path; sharing a point between voxels adds up to a quarter of a voxel.
    along, across = found[0, 0] + found[0, 1], found[0, 0] - found[0, 1]
    assert 12 <= float(along) <= 12.3
    assert 0 <= float(across) <= 0.3


STEADY: dict[str, Operator] = {
    "blur": AnisotropicBlur(2.0, 0.6, 1.0, 25.0),
    "wide-blur": AnisotropicBlur(15.0, 15.0, 9.0),
    "motion": MotionBlur(9.0, -40.0),
    "resolution": InPlaneResolution(2.7),
    "profile-gaussian": SliceProfile(3.0),
    "profile-box": SliceProfile(4.0, 2.0, "box"),
    "profile-sinc": SliceProfile(4.0, 3.0, "sinc"),
    "low-field-sinc": LowField(in_plane_factor=1.5, slice_thickness=4.0, slice_profile="sinc"),
}


@pytest.mark.parametrize("operator", STEADY.values(), ids=STEADY)
def test_constants_stay_constant(operator: Operator) -> None:
    y = operator(torch.full((1, 1, 9, 14, 11), 0.37, dtype=torch.float64))
    torch.testing.assert_close(y, torch.full_like(y, 0.37), atol=1e-6, rtol=0)


def test_parts_are_those_of_the_low_field_scanner() -> None:
    x = random(2, 1, 11, 14, 13).abs()
    parts = SliceProfile(3.0, 4.0, "box") @ InPlaneResolution(1.5)
    whole = LowField(in_plane_factor=1.5, slice_thickness=3.0, slice_spacing=4.0, slice_profile="box")
    torch.testing.assert_close(parts(x), whole(x), atol=1e-6, rtol=1e-6)
    assert voxel_factors(parts) == voxel_factors(whole)
    shapes = (13, 14, 11), measured_shape(parts, (13, 14, 11))
    np.testing.assert_allclose(placed(parts, shapes[0]), placed(whole, shapes[0]), atol=1e-12)


@pytest.mark.parametrize("contents", ["constant", "ramp", "noise"])
def test_affine_resampling_is_scipy_s(contents: str) -> None:
    depth, height, width = 9, 14, 11
    z, y, x = torch.meshgrid(*[torch.arange(n).double() for n in (depth, height, width)], indexing="ij")
    image = {"constant": 0.37 + 0 * z, "ramp": 0.1 * x - 0.2 * y + 0.3 * z, "noise": random(depth, height, width)}[contents]
    matrix, measured = turned(0.3, (1.2, -0.4, 0.6)), (6, 9, 5)
    found = AffineResample(matrix, measured)(image[None, None])[0, 0].numpy()
    swapped = matrix.numpy()[:3, :3][::-1, ::-1]
    expected = ndimage.affine_transform(image.numpy(), swapped, matrix.numpy()[:3, 3][::-1], measured[::-1], order=1, cval=np.nan)
    inside = np.isfinite(expected)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-12)


def test_affine_identity_and_outside() -> None:
    x = random(1, 1, 4, 5, 6)
    torch.testing.assert_close(AffineResample(torch.eye(4), (6, 5, 4))(x), x)
    far = torch.eye(4)
    far[0, 3] = 100
    assert torch.equal(AffineResample(far, (6, 5, 4))(x), torch.zeros_like(x))


@pytest.mark.parametrize(
    "operator",
    [
        InPlaneResolution(1.5),
        SliceProfile(2.0),
        AffineResample(turned(0.2, (2.0, 0.5, 1.0)), (20, 28, 20)),
        SliceProfile(2.0) @ InPlaneResolution(2.0),
        InPlaneResolution(1.5) @ AffineResample(turned(0.2, (2.0, 0.5, 1.0)), (20, 28, 20)) @ AnisotropicBlur(1.0, 1.0),
    ],
    ids=str,
)
def test_the_grid_says_where_a_spot_is_measured(operator: Operator) -> None:
    shape, spot = (32, 36, 30), np.array([15.3, 19.6, 14.2])
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    image = torch.from_numpy(np.exp(-((index - spot) ** 2).sum(-1) / (2 * 2.5**2)))
    y = operator(image.permute(2, 1, 0)[None, None])[0, 0].permute(2, 1, 0).numpy()
    places = np.stack(np.meshgrid(*[np.arange(n) for n in y.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    centre = (y.reshape(-1) / y.sum()) @ places
    np.testing.assert_allclose((placed(operator, shape) @ [*centre, 1])[:3], spot, atol=0.1)


def all_of(height: int, width: int) -> Tensor:
    return torch.ones(height, width)


@pytest.mark.parametrize("size", [(8, 10), (9, 7), (1, 6)], ids=str)
def test_kspace_is_numpy_s_centred_orthonormal_transform(size: tuple[int, int]) -> None:
    x = random(2, 2, *size)
    y = KSpace(all_of(*size))(x)
    z = x[:, 0].numpy() + 1j * x[:, 1].numpy()
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(z, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
    np.testing.assert_allclose(y.numpy(), np.stack([expected.real, expected.imag], 1), atol=1e-12)
    torch.testing.assert_close(y.square().sum(), x.square().sum(), msg="energy is kept")
    torch.testing.assert_close(KSpace(all_of(*size)).adjoint(y, x.shape), x, atol=1e-12, rtol=1e-12)


def test_kspace_of_a_constant_is_at_the_centre() -> None:
    y = KSpace(all_of(8, 6))(torch.ones(1, 1, 8, 6))
    assert float(y[0, 0, 4, 3]) == pytest.approx(math.sqrt(48))
    assert float(y.abs().sum()) == pytest.approx(math.sqrt(48), rel=1e-5)


def test_real_images_have_no_imaginary_part() -> None:
    x = random(2, 1, 6, 8)
    both = torch.cat([x, torch.zeros_like(x)], 1)
    torch.testing.assert_close(KSpace(all_of(6, 8))(x), KSpace(all_of(6, 8))(both))


def test_coils_weight_the_image_by_their_power() -> None:
    x = random(2, 1, 3, 6, 8)
    coils = torch.complex(random(4, 6, 8, seed=1), random(4, 6, 8, seed=2))
    operator = KSpace(all_of(6, 8), coils, phase=random(6, 8, seed=3))
    y = operator(x)
    assert y.shape == (2, 8, 3, 6, 8)
    torch.testing.assert_close(operator.adjoint(y, x.shape), x * coils.abs().square().sum(0))
    one = KSpace(all_of(6, 8), coils[2:3], phase=random(6, 8, seed=3))
    torch.testing.assert_close(y[:, 4:6], one(x))


def test_a_linear_phase_moves_kspace() -> None:
    x = random(1, 2, 6, 8)
    columns = torch.arange(8, dtype=torch.float64) - 4
    ramp = (2 * math.pi * 3 * columns / 8).expand(6, 8)
    torch.testing.assert_close(KSpace(all_of(6, 8), phase=ramp)(x), KSpace(all_of(6, 8))(x).roll(3, -1), atol=1e-10, rtol=1e-10)


def test_nothing_is_measured_where_the_mask_is_0(generator: torch.Generator) -> None:
    mask = uniform_mask((12, 10), 3, generator=generator)
    assert torch.equal(KSpace(mask)(random(1, 2, 12, 10)) != 0, mask.expand(1, 2, 12, 10))
    x = random(1, 1, 12, 10)
    assert torch.equal(Inpainting(mask)(x), torch.where(mask, x, 0.0))


@pytest.mark.parametrize("height", [64, 81])
@pytest.mark.parametrize("acceleration", [1, 2, 4, 5.5])
def test_masks_have_their_acceleration_and_their_centre(height: int, acceleration: float) -> None:
    for builder in (uniform_mask, variable_density_mask):
        mask = builder((height, 20), acceleration, generator=torch.Generator().manual_seed(1), centre=0.1)
        again = builder((height, 20), acceleration, generator=torch.Generator().manual_seed(1), centre=0.1)
        other = builder((height, 20), acceleration, generator=torch.Generator().manual_seed(7), centre=0.1)
        assert mask.dtype == torch.bool
        assert mask.shape == (height, 20)
        assert torch.equal(mask, again)
        lines = mask[:, 0]
        assert torch.equal(mask, lines[:, None].expand(-1, 20)), "whole lines"
        assert int(lines.sum()) == round(height / acceleration)
        inside = round(0.1 * height)
        assert bool(lines[height // 2 - inside // 2 :][:inside].all())
        assert torch.equal(mask, other) == (acceleration == 1)


def test_uniform_lines_have_equal_distances_and_dense_ones_crowd_at_the_centre() -> None:
    def lines(builder: object, seed: int) -> Tensor:
        mask: Tensor = builder((256, 2), 4, generator=torch.Generator().manual_seed(seed), centre=0.0)  # type: ignore[operator]
        return mask[:, 0].nonzero()[:, 0]

    gaps = lines(uniform_mask, 0).diff()
    assert int(gaps.max()) <= 6
    distance = {b: torch.cat([(lines(b, s) - 128).abs().double() for s in range(20)]).mean() for b in (uniform_mask, variable_density_mask)}
    assert distance[variable_density_mask] < 0.75 * distance[uniform_mask]


def test_partial_fourier_and_centre_masks() -> None:
    mask = partial_fourier_mask((64, 4), 0.625)
    assert int(mask[:, 0].sum()) == 40
    assert bool(mask[:33].all())
    assert bool(mask[32].all()), "the centre"
    sides = {bool(partial_fourier_mask((64, 4), 0.625, generator=torch.Generator().manual_seed(s))[0, 0]) for s in range(20)}
    assert sides == {True, False}
    centre = centre_mask((64, 48), 0.25)
    assert int(centre.sum()) == 16 * 12
    assert bool(centre[24:40, 18:30].all())
    assert bool(centre_mask((5, 7), 1.0).all())


def test_masks_out_of_range_are_refused(generator: torch.Generator) -> None:
    with input_error("acceleration is 0.5"):
        uniform_mask((8, 8), 0.5, generator=generator)
    with input_error("the centre has 4 of 8 lines"):
        variable_density_mask((8, 8), 4, generator=generator, centre=0.5)
    with input_error("fraction is 0.3"):
        partial_fourier_mask((8, 8), 0.3)
    with input_error("fraction is 0"):
        centre_mask((8, 8), 0)
    with input_error("the mask's shape"):
        centre_mask((0, 8), 0.5)


def test_bias_field_is_a_polynomial() -> None:
    ones = torch.ones(1, 1, 5, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(BiasField(numbers(0.3).view(1, 1, 1))(ones), ones * math.exp(0.3))
    c = torch.zeros(2, 3, 2, dtype=torch.float64)
    c[0, 0, 1], c[0, 2, 0], c[1, 0, 0] = 0.2, 0.1, -0.3
    log = BiasField(c)(ones)[0, 0].log()
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in (5, 7, 9)], indexing="ij")
    torch.testing.assert_close(log, 0.2 * x + 0.1 * (1.5 * y**2 - 0.5) - 0.3 * z)
    torch.testing.assert_close(BiasField(c)(ones[:, :, 2]).log()[0, 0], log[2])


@pytest.mark.parametrize("sign", [-1, 1])
def test_shading_has_bounds(sign: int) -> None:
    assert BiasField(torch.full((1, 1, 1), 10.0 * sign)).coefficients.abs().max() == 10
    with input_error("coefficients"):
        BiasField(torch.full((1, 1, 1), 10.5 * sign))


@pytest.mark.parametrize("along", [0, 1])
def test_blur_along_one_axis_alone(along: int) -> None:
    point = torch.zeros(1, 1, 15, 13, dtype=torch.float64)
    point[..., 7, 6] = 1
    blurred = AnisotropicBlur(*((1.2, 0.0) if along == 0 else (0.0, 1.2)))(point)
    spread = [float(blurred.sum(axis).square().sum()) for axis in (-2, -1)]
    assert spread[along] < 0.5
    assert spread[1 - along] > 0.95


def test_motion_may_be_none_and_not_less() -> None:
    x = torch.rand(1, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(MotionBlur(0.0)(x), x)
    with input_error("length"):
        MotionBlur(-0.1)


def test_slices_turn_and_shift() -> None:
    x = torch.zeros(1, 1, 3, 11, 11, dtype=torch.float64)
    x[0, 0, :, 5, 8] = 1  # right of the centre
    operator = SliceMotion(numbers(0.0, 90.0, 0.0), torch.tensor([[0.0, 0.0], [0.0, 0.0], [-2.0, 1.0]]))
    y = operator(x)[0, 0]
    torch.testing.assert_close(y[0], x[0, 0, 0])
    for k, place in ((1, (8, 5)), (2, (6, 6))):
        assert float(y[k][place]) == pytest.approx(1)
        assert float(y[k].sum()) == pytest.approx(1)
    half = SliceMotion(numbers(0.0), numbers(0.5, 0.0).view(1, 2))(x[:, :, 0])
    torch.testing.assert_close(half[0, 0, 5, 8:10], numbers(0.5, 0.5))


def test_parameters_take_gradients() -> None:
    x = random(1, 1, 3, 8, 7)
    angles, shifts, c = numbers(3.3, -7.1, 1.9), 0.3 * random(3, 2), 0.2 * random(2, 2, 2)
    assert torch.autograd.gradcheck(lambda a, s: SliceMotion(a, s)(x).sum((0, 1)), (angles.requires_grad_(), shifts.requires_grad_()))
    assert torch.autograd.gradcheck(lambda v: BiasField(v)(x)[0, 0, :, ::3], c.requires_grad_())
    std = [numbers(v).requires_grad_() for v in (1.2, 0.7, 0.9, 20.0)]
    assert torch.autograd.gradcheck(lambda *v: AnisotropicBlur(*v)(x)[0, 0, :, ::3], std)
    thickness = numbers(2.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: SliceProfile(t, 2.0)(x)[0, 0, :, ::3], thickness)


def test_maps_of_another_size_are_refused() -> None:
    for operator in (Inpainting(torch.ones(3, 4)), KSpace(torch.ones(3, 4)), KSpace(torch.ones(5, 4), torch.ones(2, 3, 4))):
        with pytest.raises(ValueError, match="expected one that fits images"):
            operator(torch.zeros(1, 1, 5, 4))
    with pytest.raises(ValueError, match="3 channels"):
        KSpace(torch.ones(5, 4))(torch.zeros(1, 3, 5, 4))
    with pytest.raises(ValueError, match="expected 2, one for each angle"):
        SliceMotion(torch.zeros(2), torch.zeros(2, 2))(torch.zeros(1, 1, 3, 5, 4))
    with pytest.raises(ValueError, match="expected a volume"):
        AffineResample(torch.eye(4), (4, 4, 4))(torch.zeros(1, 1, 5, 4))


def test_which_operators_need_whole_volumes() -> None:
    coupled = [
        AnisotropicBlur(std_z=1.0),
        AffineResample(turned(0.3, (1.2, -0.4, 0.6)), (6, 9, 5)),
        # Solvers hand single slices to what does not couple them, and several slices are no measurement of one.
        AffineResample(in_plane(0.2), (6, 9, 7)),
        SliceProfile(3.0),
        SliceMotion(torch.zeros(4), torch.zeros(4, 2)),
        BiasField(torch.zeros(2, 1, 1)),
        Inpainting(torch.ones(4, 1, 1)),
        KSpace(torch.ones(4, 5, 6)),
        Weighting(torch.ones(4, 5, 6)),
        SwapSliceAxis(LowField(), 0),
        InPlaneResolution(2.0) @ SliceProfile(3.0),
    ]
    single = [
        AnisotropicBlur(1.0, 2.0),
        AffineResample(in_plane(0.2), (6, 9, 1)),
        MotionBlur(3.0),
        Weighting(torch.ones(1, 5, 6)),
        Weighting(torch.ones(5, 6)),
        BiasField(torch.zeros(1, 3, 3)),
        Inpainting(torch.ones(5, 6)),
        KSpace(torch.ones(2, 1, 5, 6)),
        InPlaneResolution(2.0) @ MotionBlur(2.0),
    ]
    assert all(operator.couples_slices for operator in coupled)
    assert not any(operator.couples_slices for operator in single)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_a_blur_narrower_than_a_voxel_is_as_wide_as_one(angle: float) -> None:
    x = random(1, 1, 15, 13)
    torch.testing.assert_close(AnisotropicBlur(1.2, 0.0, angle=angle)(x), AnisotropicBlur(1.2, 0.29, angle=angle)(x))
    torch.testing.assert_close(AnisotropicBlur(0.0, 0.1, angle=angle)(x), AnisotropicBlur(0.29, 0.29, angle=angle)(x))
    torch.testing.assert_close(AnisotropicBlur(numbers(0.0), numbers(0.0), angle=angle)(x), x)


def test_turned_slices_are_of_the_whole_volume() -> None:
    assert SwapSliceAxis(Identity(), 0).couples_slices is True
    assert SwapSliceAxis(Identity(), 0).is_straight_along_search is True


def test_what_is_linear_needs_no_search_along_curves() -> None:
    assert Identity().is_straight_along_search is True
    assert MotionBlur(2.0).is_straight_along_search is True


def test_masks_without_wishes_hold_the_middle_eight_percent_and_thin_out_by_the_square() -> None:
    for builder in (uniform_mask, variable_density_mask):
        lines = [builder((100, 2), 4, generator=torch.Generator().manual_seed(s))[:, 0] for s in range(200)]
        assert bool(torch.stack(lines)[:, 46:54].all())
        assert not bool(torch.stack(lines)[:, 45].all())
        assert not bool(torch.stack(lines)[:, 54].all())
    seeds = [torch.Generator().manual_seed(3) for _ in range(3)]
    usual, squared, even = (
        variable_density_mask((200, 2), 5, generator=g, **p) for g, p in zip(seeds, ({}, {"power": 2.0}, {"power": 0.0}), strict=True)
    )
    assert torch.equal(usual, squared)
    assert not torch.equal(usual, even)


def test_a_turned_contrast_is_the_contrast() -> None:
    inner = LowField(gamma=0.5)
    for axis in (0, 1):
        assert SwapSliceAxis(inner, axis).typical_value(0.25) == pytest.approx(0.5, abs=0.01)
        assert SwapSliceAxis(inner, axis).is_linear is False
