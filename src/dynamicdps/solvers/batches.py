"""Batches of one scan as one reconstruction."""

from dataclasses import fields, replace

import torch
from torch import Tensor

from dynamicdps.solvers.reconstruction import Reconstruction, TraceStep


def concatenate(parts: list[Reconstruction]) -> Reconstruction:
    """Batches of one scan as one reconstruction."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    trace = [
        TraceStep(steps[0].step, *(torch.cat([getattr(s, f.name) for s in steps]) for f in fields(TraceStep)[1:]))
        for steps in _aligned([part.trace for part in parts])
    ]
    return replace(
        parts[0],
        image=joined("image"),
        misfit=joined("misfit"),
        nfe=joined("nfe"),
        nbackward=joined("nbackward"),
        start_sigma=joined("start_sigma"),
        uncertainty=None if parts[0].uncertainty is None else joined("uncertainty"),
        outside_calibration=None if parts[0].outside_calibration is None else joined("outside_calibration"),
        samples=None if parts[0].samples is None else joined("samples"),
        operator_calls=max(part.operator_calls for part in parts),
        trace=trace,
        warnings=list(dict.fromkeys(w for part in parts for w in part.warnings)),
    )


def _aligned(traces: list[list[TraceStep]]) -> list[list[TraceStep]]:
    """Steps of several batches side by side; a batch that ended earlier keeps its last step."""
    most = max(map(len, traces))
    return [[replace(t[min(i, len(t) - 1)], step=i) for t in traces] for i in range(most)] if all(traces) else []
