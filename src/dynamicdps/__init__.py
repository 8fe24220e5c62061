"""DynamicDPS: enhance poor MRI scans without inventing anatomy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dynamicdps import report, solvers
    from dynamicdps.calibration import fit_operator
    from dynamicdps.conditional import load_conditional, load_unet
    from dynamicdps.data_term import DataTerm
    from dynamicdps.errors import InputError
    from dynamicdps.models import demo_scan
    from dynamicdps.operators import LowField, Noise, ScanOperator, preset, read_operator, simulate
    from dynamicdps.pipeline import Audit, AuditOptions, Enhanced, EnhanceOptions, Segmented, SegmentOptions, audit, enhance, segment
    from dynamicdps.priors import load_prior
    from dynamicdps.solvers import DynamicDPSConfig, solve
    from dynamicdps.solvers.initial import initial_from_model, initial_from_volume
    from dynamicdps.volumes import Volume, load

# Imported on first use: the command line's help must not wait for torch.
_HOMES = {
    "enhance": "pipeline",
    "Enhanced": "pipeline",
    "EnhanceOptions": "pipeline",
    "audit": "pipeline",
    "Audit": "pipeline",
    "AuditOptions": "pipeline",
    "segment": "pipeline",
    "Segmented": "pipeline",
    "SegmentOptions": "pipeline",
    "load": "volumes",
    "Volume": "volumes",
    "InputError": "errors",
    "demo_scan": "models",
    "DataTerm": "data_term",
    "LowField": "operators",
    "Noise": "operators",
    "ScanOperator": "operators",
    "fit_operator": "calibration",
    "preset": "operators",
    "read_operator": "operators",
    "simulate": "operators",
    "load_prior": "priors",
    "load_conditional": "conditional",
    "load_unet": "conditional",
    "initial_from_model": "solvers.initial",
    "initial_from_volume": "solvers.initial",
    "solve": "solvers",
    "DynamicDPSConfig": "solvers",
}

__all__ = [
    "Audit",
    "AuditOptions",
    "DataTerm",
    "DynamicDPSConfig",
    "EnhanceOptions",
    "Enhanced",
    "InputError",
    "LowField",
    "Noise",
    "ScanOperator",
    "SegmentOptions",
    "Segmented",
    "Volume",
    "audit",
    "demo_scan",
    "enhance",
    "fit_operator",
    "initial_from_model",
    "initial_from_volume",
    "load",
    "load_conditional",
    "load_prior",
    "load_unet",
    "preset",
    "read_operator",
    "report",
    "segment",
    "simulate",
    "solve",
    "solvers",
]


def __getattr__(name: str) -> Any:
    if name in {"report", "solvers"}:
        return import_module(f"dynamicdps.{name}")
    if name in _HOMES:
        return getattr(import_module(f"dynamicdps.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dynamicdps' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
