"""One of each operator, and compositions of them, with the shape of images that it is tried on."""

from typing import NamedTuple

import torch
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
    uniform_mask,
    variable_density_mask,
)
from dynamicdps.operators.contrast import MonotoneCurve, PowerLaw
from dynamicdps.operators.contrast_operator import Contrast

FLAT, DEEP = (2, 1, 12, 10), (2, 1, 7, 12, 10)


class Case(NamedTuple):
    operator: Operator
    shape: tuple[int, ...]
    separate: tuple[Operator, ...] = ()
    """The operators of the images, where parameters differ per image."""

    def image(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self.shape, generator=generator, dtype=torch.float64)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(*shape: int, seed: int = 0) -> Tensor:
    return random(*shape, seed=seed) > -0.5


def turned(angle: float, shift: tuple[float, float, float]) -> Tensor:
    """SwapSliceAxis about z and tilted a little, with larger voxels."""
    cos, sin = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.tensor([[1.5 * cos, -sin, 0.05], [1.5 * sin, cos, 0.1], [-0.03, 0.02, 1.3]])
    matrix[:3, 3] = torch.tensor(shift)
    return matrix


def in_plane(angle: float) -> Tensor:
    matrix = turned(angle, (2.3, -1.4, 0.0))
    matrix[2] = torch.tensor([0.0, 0, 1, 0])
    matrix[:2, 2] = 0
    return matrix


G = torch.Generator().manual_seed(4)
UNIFORM = uniform_mask(FLAT[-2:], 2, generator=G, centre=0.2)
DENSE = variable_density_mask(FLAT[-2:], 2, generator=G, centre=0.2)
COILS = torch.complex(random(3, 12, 10, seed=1), random(3, 12, 10, seed=2))
COMPLEX = (2, 2, 12, 10)

CASES: dict[str, Case] = {
    "low-field": Case(LowField(in_plane_factor=2.0, blur=0.6, slice_thickness=3.0), DEEP),
    "low-field-sinc": Case(LowField(in_plane_factor=1.5, slice_thickness=3.0, slice_profile="sinc"), DEEP),
    "low-field-contrast": Case(LowField(gamma=0.6, in_plane_factor=2.5), FLAT),
    "low-field-per-image": Case(
        LowField(gamma=numbers(0.5, 1.3), blur=numbers(0.4, 1.2)), FLAT, (LowField(gamma=0.5, blur=0.4), LowField(gamma=1.3, blur=1.2))
    ),
    "identity": Case(Identity(), FLAT),
    "identity-volume": Case(Identity(), DEEP),
    "inpainting": Case(Inpainting(some(12, 10)), FLAT),
    "inpainting-shared": Case(Inpainting(some(12, 10)), DEEP),
    "inpainting-volume": Case(Inpainting(some(7, 12, 10)), DEEP),
    "inpainting-slices": Case(Inpainting((torch.arange(7) % 2 == 0).view(7, 1, 1)), DEEP),
    "inpainting-per-image": Case(
        Inpainting(some(2, 1, 12, 10)), FLAT, (Inpainting(some(2, 1, 12, 10)[0, 0]), Inpainting(some(2, 1, 12, 10)[1, 0]))
    ),
    "weighting": Case(Weighting(random(12, 10).sigmoid()), FLAT),
    "weighting-volume": Case(Weighting(random(7, 12, 10).sigmoid()), DEEP),
    "weighted-low-field": Case(Weighting(random(4, 6, 5).sigmoid()) @ LowField(gamma=0.6, in_plane_factor=2.0, slice_thickness=2.0), DEEP),
    "turned-coronal": Case(SwapSliceAxis(LowField(gamma=0.7, in_plane_factor=1.5, blur=0.4, slice_thickness=2.5), 1), DEEP),
    "turned-sagittal": Case(SwapSliceAxis(SliceProfile(3.0) @ AnisotropicBlur(0.6, 0.3), 0), DEEP),
    "turned-per-image": Case(
        SwapSliceAxis(LowField(gamma=numbers(0.5, 1.3), slice_thickness=3.0), 1),
        DEEP,
        (SwapSliceAxis(LowField(gamma=0.5, slice_thickness=3.0), 1), SwapSliceAxis(LowField(gamma=1.3, slice_thickness=3.0), 1)),
    ),
    "blur": Case(AnisotropicBlur(1.4, 0.5, 0.0, 30.0), FLAT),
    "blur-volume": Case(AnisotropicBlur(0.6, 1.1, 0.8, -70.0), DEEP),
    "blur-across": Case(AnisotropicBlur(std_z=1.2), DEEP),
    "blur-line": Case(AnisotropicBlur(2.0, 0.0, 0.0, 20.0), FLAT),
    "blur-wide": Case(AnisotropicBlur(9.0, 7.0), FLAT),
    "blur-per-image": Case(
        AnisotropicBlur(numbers(0.0, 1.3), 0.0, numbers(0.7, 1.0), numbers(10.0, 50.0)),
        DEEP,
        (AnisotropicBlur(0.0, 0.0, 0.7, 10.0), AnisotropicBlur(1.3, 0.0, 1.0, 50.0)),
    ),
    "motion": Case(MotionBlur(3.5, 25.0), FLAT),
    "motion-volume": Case(MotionBlur(2.0, 90.0), DEEP),
    "motion-long": Case(MotionBlur(40.0, 100.0), FLAT),
    "motion-per-image": Case(MotionBlur(numbers(1.0, 5.0), numbers(0.0, 60.0)), FLAT, (MotionBlur(1.0, 0.0), MotionBlur(5.0, 60.0))),
    "affine": Case(AffineResample(turned(0.3, (1.2, -0.4, 0.6)), (6, 9, 5)), DEEP),
    "affine-flat": Case(AffineResample(in_plane(0.2), (6, 9, 1)), FLAT),
    "affine-per-image": Case(
        AffineResample(torch.stack([in_plane(0.2), in_plane(-0.4)]), (6, 9, 1)),
        FLAT,
        (AffineResample(in_plane(0.2), (6, 9, 1)), AffineResample(in_plane(-0.4), (6, 9, 1))),
    ),
    "resolution": Case(InPlaneResolution(2.5), FLAT),
    "resolution-volume": Case(InPlaneResolution(2), DEEP),
    "profile-gaussian": Case(SliceProfile(3.0), DEEP),
    "profile-box": Case(SliceProfile(2.0, 3.0, "box", 0.8), DEEP),
    "profile-sinc": Case(SliceProfile(3.0, 2.0, "sinc"), DEEP),
    "profile-flat": Case(SliceProfile(3.0), FLAT),
    "profile-per-image": Case(SliceProfile(numbers(2.0, 4.0), 2.5), DEEP, (SliceProfile(2.0, 2.5), SliceProfile(4.0, 2.5))),
    "bias": Case(BiasField(0.3 * random(1, 3, 2)), FLAT),
    "bias-volume": Case(BiasField(0.3 * random(4, 1, 3)), DEEP),
    "bias-per-image": Case(
        BiasField(0.3 * random(2, 2, 2, 3)), DEEP, (BiasField(0.3 * random(2, 2, 2, 3)[0]), BiasField(0.3 * random(2, 2, 2, 3)[1]))
    ),
    "slice-motion": Case(SliceMotion(10 * random(7), 2 * random(7, 2)), DEEP),
    "slice-motion-flat": Case(SliceMotion(numbers(15.0), numbers(1.3, -0.4).view(1, 2)), FLAT),
    "slice-motion-per-image": Case(
        SliceMotion(10 * random(2, 7), 2 * random(2, 7, 2)),
        DEEP,
        tuple(SliceMotion(10 * random(2, 7)[i], 2 * random(2, 7, 2)[i]) for i in range(2)),
    ),
    "kspace": Case(KSpace(DENSE), FLAT),
    "kspace-complex": Case(KSpace(UNIFORM), COMPLEX),
    "kspace-volume": Case(KSpace(torch.stack([UNIFORM, DENSE, DENSE])), (2, 2, 3, 12, 10)),
    "kspace-phase": Case(KSpace(DENSE, phase=random(12, 10)), COMPLEX),
    "kspace-coils": Case(KSpace(UNIFORM, COILS), FLAT),
    "kspace-coils-volume": Case(KSpace(UNIFORM, COILS, random(3, 12, 10)), (2, 2, 3, 12, 10)),
    "kspace-per-image": Case(
        KSpace(torch.stack([UNIFORM, DENSE])[:, None], torch.stack([COILS, COILS.conj()]), random(2, 1, 12, 10)),
        COMPLEX,
        (KSpace(UNIFORM, COILS, random(2, 1, 12, 10)[0, 0]), KSpace(DENSE, COILS.conj(), random(2, 1, 12, 10)[1, 0])),
    ),
    "composition": Case(SliceProfile(3.0) @ InPlaneResolution(1.5) @ AnisotropicBlur(0.8, 0.4, 0.0, 20.0), DEEP),
    "contrast": Case(Contrast(PowerLaw(1.4)), DEEP),
    "contrast-knots": Case(Contrast(MonotoneCurve(numbers(0.0, 0.4, 1.0), numbers(0.0, 0.6, 1.0))), FLAT),
    "contrast-per-image": Case(Contrast(PowerLaw(numbers(0.6, 1.4))), FLAT, (Contrast(PowerLaw(0.6)), Contrast(PowerLaw(1.4)))),
    "composition-contrast": Case(InPlaneResolution(2.0) @ Contrast(PowerLaw(0.6)), FLAT),
    "composition-outer-contrast": Case(LowField(gamma=0.6) @ (MotionBlur(2.0) @ BiasField(0.2 * random(1, 2, 2))), FLAT),
    "composition-affine": Case(Inpainting(some(9, 6)) @ AffineResample(in_plane(0.2), (6, 9, 1)) @ AnisotropicBlur(0.5, 0.5), FLAT),
    "composition-kspace": Case(KSpace(UNIFORM, COILS) @ BiasField(0.2 * random(1, 2, 2)), FLAT),
    "composition-per-image": Case(
        MotionBlur(numbers(1.0, 3.0)) @ LowField(gamma=numbers(0.5, 0.9)),
        FLAT,
        (MotionBlur(1.0) @ LowField(gamma=0.5), MotionBlur(3.0) @ LowField(gamma=0.9)),
    ),
}
LINEAR = {name: case for name, case in CASES.items() if case.operator.is_linear}
SHARED = {name: case for name, case in CASES.items() if not case.separate}
PER_IMAGE = {name: case for name, case in CASES.items() if case.separate}
