"""DynamicDPS and its peers: from a measurement and an initial image to a reconstruction."""

from dynamicdps.solvers.composite_loss import composite_loss
from dynamicdps.solvers.data_fidelity import DataStep, data_misfit, data_step
from dynamicdps.solvers.dynamicdps import DynamicDPSConfig, solve_dynamicdps
from dynamicdps.solvers.line_search import LineSearch, Outcome, armijo, strong_wolfe
from dynamicdps.solvers.reconstruction import Reconstruction, TraceStep
from dynamicdps.solvers.sampler import Run, SamplerConfig, run_samples
from dynamicdps.solvers.solve import Result, available, make_config, register, solve, solve_tensors
from dynamicdps.solvers.start_level import BankRule, StartLevelRule, excess_misfit, fit_start_level, read_start_level, start_rule_of

__all__ = [
    "BankRule",
    "DataStep",
    "DynamicDPSConfig",
    "LineSearch",
    "Outcome",
    "Reconstruction",
    "Result",
    "Run",
    "SamplerConfig",
    "StartLevelRule",
    "TraceStep",
    "armijo",
    "available",
    "composite_loss",
    "data_misfit",
    "data_step",
    "excess_misfit",
    "fit_start_level",
    "make_config",
    "read_start_level",
    "register",
    "run_samples",
    "solve",
    "solve_dynamicdps",
    "solve_tensors",
    "start_rule_of",
    "strong_wolfe",
]
