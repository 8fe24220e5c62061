"""Forward models of scanners, their noise, and their files."""

from dynamicdps.operators.bias_field import BiasField
from dynamicdps.operators.blur import AnisotropicBlur, MotionBlur
from dynamicdps.operators.contrast import (
    Curve,
    HermiteCurve,
    MonotoneCurve,
    PowerLaw,
    inverse_power_law,
    power_law,
    power_law_slope,
    tissue_curve,
)
from dynamicdps.operators.contrast_operator import Contrast
from dynamicdps.operators.field_strength import MPRAGE_3T, Mprage, SpinEcho, SpoiledGradientEcho, contrast_between
from dynamicdps.operators.identity import Identity
from dynamicdps.operators.image_grid import to_image_grid
from dynamicdps.operators.inpainting import Inpainting
from dynamicdps.operators.kspace import KSpace
from dynamicdps.operators.kspace_masks import centre_mask, partial_fourier_mask, uniform_mask, variable_density_mask
from dynamicdps.operators.linear import IterativeModel, LinearModel, SpectralModel, conjugate_gradients, spectral
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.noise import Noise, add_noise
from dynamicdps.operators.operator import (
    CentredGrid,
    Composition,
    Linearisation,
    LinearOperator,
    LinearProblem,
    Operator,
    SameGrid,
    Scanner,
    Sum,
)
from dynamicdps.operators.presets import PRESETS, preset, read_operator
from dynamicdps.operators.registry import operator_from_json, operator_types, register_operator
from dynamicdps.operators.resample import AffineResample, InPlaneResolution
from dynamicdps.operators.scan_operator import ScanOperator
from dynamicdps.operators.simulate import simulate
from dynamicdps.operators.slice_motion import SliceMotion
from dynamicdps.operators.slice_profile import SliceProfile
from dynamicdps.operators.stack import Stack
from dynamicdps.operators.swap_slice_axis import SwapSliceAxis
from dynamicdps.operators.weighting import Weighting

__all__ = [
    "MPRAGE_3T",
    "PRESETS",
    "AffineResample",
    "AnisotropicBlur",
    "BiasField",
    "CentredGrid",
    "Composition",
    "Contrast",
    "Curve",
    "HermiteCurve",
    "Identity",
    "InPlaneResolution",
    "Inpainting",
    "IterativeModel",
    "KSpace",
    "LinearModel",
    "LinearOperator",
    "LinearProblem",
    "Linearisation",
    "LowField",
    "MonotoneCurve",
    "MotionBlur",
    "Mprage",
    "Noise",
    "Operator",
    "PowerLaw",
    "SameGrid",
    "ScanOperator",
    "Scanner",
    "SliceMotion",
    "SliceProfile",
    "SpectralModel",
    "SpinEcho",
    "SpoiledGradientEcho",
    "Stack",
    "Sum",
    "SwapSliceAxis",
    "Weighting",
    "add_noise",
    "centre_mask",
    "conjugate_gradients",
    "contrast_between",
    "inverse_power_law",
    "operator_from_json",
    "operator_types",
    "partial_fourier_mask",
    "power_law",
    "power_law_slope",
    "preset",
    "read_operator",
    "register_operator",
    "simulate",
    "spectral",
    "tissue_curve",
    "to_image_grid",
    "uniform_mask",
    "variable_density_mask",
]
