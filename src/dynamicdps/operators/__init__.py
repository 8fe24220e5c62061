"""Forward models of scanners, their noise, and their files."""

from dynamicdps.operators.contrast import inverse_power_law, power_law, power_law_slope
from dynamicdps.operators.linear import IterativeModel, LinearModel, SpectralModel, conjugate_gradients, spectral
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.noise import add_noise
from dynamicdps.operators.operator import Linearisation, LinearProblem, Operator
from dynamicdps.operators.operator_file import ScanOperator, read_operator
from dynamicdps.operators.presets import PRESETS, preset
from dynamicdps.operators.sampling import interpolate
from dynamicdps.operators.simulate import simulate

__all__ = [
    "PRESETS",
    "IterativeModel",
    "LinearModel",
    "LinearProblem",
    "Linearisation",
    "LowField",
    "Operator",
    "ScanOperator",
    "SpectralModel",
    "add_noise",
    "conjugate_gradients",
    "interpolate",
    "inverse_power_law",
    "power_law",
    "power_law_slope",
    "preset",
    "read_operator",
    "simulate",
    "spectral",
]
