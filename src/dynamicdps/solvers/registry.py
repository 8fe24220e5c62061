"""Solvers by their names."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.errors import InputError
from dynamicdps.solvers.reconstruction import PlainConfig, Progress, Reconstruction


class Solver(Protocol):
    """A solver on tensors; see `dynamicdps.solvers.dynamicdps.solve_dynamicdps` for what the arguments are.

    Its configuration is a frozen dataclass, the default of the argument `config`.
    """

    def __call__(
        self,
        terms: Sequence[DataTerm],
        prior: Any,
        initial: Tensor,
        *,
        generator: torch.Generator,
        config: Any = ...,
        progress: Progress | None = None,
    ) -> Reconstruction: ...


Function = TypeVar("Function", bound=Solver)
_SOLVERS: dict[str, tuple[Solver, type]] = {}


def register(name: str, *, config: type = PlainConfig) -> Callable[[Function], Function]:
    """Make a solver available under a name; a decorator of its function.

    Args:
        name: a new one.
        config: its configuration, a frozen dataclass whose defaults are the solver's.

    Raises:
        ValueError: from the decorator: the name is taken.
    """

    def add(solver: Function) -> Function:
        if name in _SOLVERS:
            raise ValueError(f"there is a solver {name!r} already; expected a new name")
        _SOLVERS[name] = solver, config
        return solver

    return add


def available() -> list[str]:
    """Names of all solvers."""
    return sorted(_SOLVERS)


def find_solver(name: str) -> tuple[Solver, type]:
    """A solver and its configuration by name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _SOLVERS:
        raise InputError(f"there is no solver {name!r}; expected one of {', '.join(available())}; choose one")
    return _SOLVERS[name]
