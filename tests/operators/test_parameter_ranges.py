"""Every operator takes the parameters that its documentation allows, ends included, and no others."""

from collections.abc import Callable

import pytest
import torch

from dynamicdps.operators import (
    AnisotropicBlur,
    BiasField,
    InPlaneResolution,
    LowField,
    MotionBlur,
    Noise,
    SliceMotion,
    SliceProfile,
    Weighting,
    centre_mask,
    partial_fourier_mask,
    uniform_mask,
    variable_density_mask,
)
from tests.properties import input_error

SIZE = (8, 8)
# How to make it from one number, the number's name, its smallest and its largest value.
RANGES: list[tuple[Callable[[float], object], str, float, float]] = [
    (lambda v: AnisotropicBlur(std_x=v), "std_x", 0, 20),
    (lambda v: AnisotropicBlur(std_y=v), "std_y", 0, 20),
    (lambda v: AnisotropicBlur(std_z=v), "std_z", 0, 20),
    (lambda v: AnisotropicBlur(angle=v), "angle", -360, 360),
    (lambda v: MotionBlur(v), "length", 0, 64),
    (lambda v: MotionBlur(2.0, angle=v), "angle", -360, 360),
    (lambda v: BiasField(torch.tensor([[[v]]])), "coefficients", -10, 10),
    (lambda v: InPlaneResolution(v), "factor", 1, 32),
    (lambda v: SliceMotion(torch.tensor([v]), torch.zeros(1, 2)), "angles", -360, 360),
    (lambda v: SliceMotion(torch.zeros(1), torch.tensor([[v, 0.0]])), "shifts", -1000, 1000),
    (lambda v: SliceProfile(v), "thickness", 0.1, 50),
    (lambda v: SliceProfile(2.0, v), "spacing", 0.1, 50),
    (lambda v: SliceProfile(2.0, image_spacing=v), "image_spacing", 0.1, 20),
    (lambda v: Weighting(torch.tensor([[1.0, v]])), "weights", 0, 1),
    (lambda v: LowField(gamma=v), "gamma", 0.05, 5),
    (lambda v: LowField(in_plane_factor=v), "in_plane_factor", 1, 32),
    (lambda v: LowField(blur=v), "blur", 0, 20),
    (lambda v: LowField(image_spacing=v), "image_spacing", 0.1, 20),
    (lambda v: LowField(slice_thickness=v), "slice_thickness", 0.1, 50),
    (lambda v: LowField(slice_thickness=2.0, slice_spacing=v), "slice_spacing", 0.1, 50),
    (lambda v: Noise(v), "noise_std", 1e-6, 1),
    (lambda v: uniform_mask(SIZE, v, generator=torch.Generator(), centre=0.0), "acceleration", 1, 64),
    (lambda v: uniform_mask(SIZE, 1.0, generator=torch.Generator(), centre=v), "centre", 0, 1),
    (lambda v: variable_density_mask(SIZE, 2.0, generator=torch.Generator(), power=v), "power", 0, 10),
    (lambda v: partial_fourier_mask(SIZE, v), "fraction", 0.5, 1),
    (lambda v: centre_mask(SIZE, v), "fraction", 0.001, 1),
]


@pytest.mark.parametrize(("make", "name", "low", "high"), RANGES)
def test_a_parameter_ends_where_it_says(make: Callable[[float], object], name: str, low: float, high: float) -> None:
    for value in (float(low), float(high)):
        make(value)
    for value in (low - 0.01 * (abs(low) or 1), high + 0.01 * high):
        with input_error(f"^{name} is "):
            make(value)
