"""Data terms: a measurement, its scanner, its noise and its weights, and the step that makes an image explain them."""

from dynamicdps.data_term.data_step import DataStep, data_step
from dynamicdps.data_term.data_term import DataTerm, excess_misfit, join, pooled_residual
from dynamicdps.data_term.error_correlation import ErrorCorrelation
from dynamicdps.data_term.line_search import LineSearch, Outcome, armijo, strong_wolfe
from dynamicdps.data_term.scan_term import scan_term

__all__ = [
    "DataStep",
    "DataTerm",
    "ErrorCorrelation",
    "LineSearch",
    "Outcome",
    "armijo",
    "data_step",
    "excess_misfit",
    "join",
    "pooled_residual",
    "scan_term",
    "strong_wolfe",
]
