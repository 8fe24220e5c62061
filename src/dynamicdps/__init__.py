"""DynamicDPS: enhance poor MRI scans without inventing anatomy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dynamicdps import solvers
    from dynamicdps.conditional import load_unet
    from dynamicdps.diffusion import load_denoiser
    from dynamicdps.errors import InputError
    from dynamicdps.operators import LowField, preset, read_operator, simulate
    from dynamicdps.solvers import DynamicDPSConfig, solve
    from dynamicdps.solvers.initial import initial_from_model, initial_from_volume
    from dynamicdps.volumes import Volume, load

# Imported on first use: the command line's help must not wait for torch.
_HOMES = {
    "load": "volumes",
    "Volume": "volumes",
    "InputError": "errors",
    "LowField": "operators",
    "preset": "operators",
    "read_operator": "operators",
    "simulate": "operators",
    "load_denoiser": "diffusion",
    "load_unet": "conditional",
    "initial_from_model": "solvers.initial",
    "initial_from_volume": "solvers.initial",
    "solve": "solvers",
    "DynamicDPSConfig": "solvers",
}

__all__ = [
    "DynamicDPSConfig",
    "InputError",
    "LowField",
    "Volume",
    "initial_from_model",
    "initial_from_volume",
    "load",
    "load_denoiser",
    "load_unet",
    "preset",
    "read_operator",
    "simulate",
    "solve",
    "solvers",
]


def __getattr__(name: str) -> Any:
    if name == "solvers":
        return import_module("dynamicdps.solvers")
    if name in _HOMES:
        return getattr(import_module(f"dynamicdps.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dynamicdps' has no attribute {name!r}")
