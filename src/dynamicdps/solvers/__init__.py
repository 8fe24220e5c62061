"""DynamicDPS and its peers: from a measurement and an initial image to a reconstruction."""

from dynamicdps.solvers.data_fidelity import DataStep, data_misfit, data_step
from dynamicdps.solvers.dynamicdps import DynamicDPSConfig, solve_dynamicdps
from dynamicdps.solvers.line_search import LineSearch, Outcome, strong_wolfe
from dynamicdps.solvers.reconstruction import Reconstruction, TraceStep
from dynamicdps.solvers.solve import Result, available, register, solve, solve_tensors
from dynamicdps.solvers.start_level import StartLevelRule, excess_misfit, fit_start_level, read_start_level

__all__ = [
    "DataStep",
    "DynamicDPSConfig",
    "LineSearch",
    "Outcome",
    "Reconstruction",
    "Result",
    "StartLevelRule",
    "TraceStep",
    "available",
    "data_misfit",
    "data_step",
    "excess_misfit",
    "fit_start_level",
    "read_start_level",
    "register",
    "solve",
    "solve_dynamicdps",
    "solve_tensors",
    "strong_wolfe",
]
