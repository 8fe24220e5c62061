"""Conditional models of every kind by name or file."""

from collections.abc import Callable
from pathlib import Path

import torch

from dynamicdps.conditional.esrgan import esrgan_of
from dynamicdps.conditional.model import InitialModel
from dynamicdps.conditional.unet import unet_of
from dynamicdps.conditional.volume_model import volume_unet_of
from dynamicdps.models.model_cache import held
from dynamicdps.models.model_file import ModelFile, read_model
from dynamicdps.models.names import CONDITIONAL_KINDS

_BUILDERS: dict[str, Callable[[ModelFile, str], InitialModel]] = {"unet": unet_of, "esrgan": esrgan_of}


@held
def load_conditional(name: str | Path, device: str = "cpu", precision: torch.dtype = torch.float32) -> InitialModel:
    """A conditional model by its bundled name or file, ready for inference; its model card says of which kind it is.

    Args:
        name: bundled or added model, or a .safetensors file.
        device: where it computes.
        precision: type in which a network of volumes computes; those of slices, which take little time, always take float32.

    Raises:
        InputError: as `dynamicdps.models.model_file.read_model`.
    """
    model = read_model(name, CONDITIONAL_KINDS)
    kind = model.card["kind"]
    return volume_unet_of(model, device, precision) if kind == "volume-unet" else _BUILDERS[kind](model, device)
