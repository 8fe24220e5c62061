"""DynamicDPS and its peers: from a measurement and an initial image to a reconstruction."""

# Each file registers its solver.
from dynamicdps.solvers import (  # noqa: F401
    ablation,
    ccdf,
    conditional,
    daps,
    ddnm,
    ddrm,
    dds,
    diffpir,
    dps,
    dps_plus,
    dynamicdps_paper,
    mcg,
    pigdm,
    projection,
    red_diff,
    total_variation,
)
from dynamicdps.solvers.composite_loss import composite_loss
from dynamicdps.solvers.dynamicdps import DynamicDPSConfig, solve_dynamicdps
from dynamicdps.solvers.reconstruction import Reconstruction, TraceStep
from dynamicdps.solvers.registry import available, register
from dynamicdps.solvers.result import Result
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, run_samples, sampler
from dynamicdps.solvers.settings import make_config
from dynamicdps.solvers.solve import solve, solve_tensors
from dynamicdps.solvers.start_level import BankRule, StartLevelRule, fit_start_level, read_start_level, start_rule_of

__all__ = [
    "BankRule",
    "DynamicDPSConfig",
    "Reconstruction",
    "Result",
    "Run",
    "Sample",
    "SamplerConfig",
    "StartLevelRule",
    "Task",
    "TraceStep",
    "available",
    "composite_loss",
    "fit_start_level",
    "make_config",
    "read_start_level",
    "register",
    "run_samples",
    "sampler",
    "solve",
    "solve_dynamicdps",
    "solve_tensors",
    "start_rule_of",
]
