"""Conditional models of every kind by name or file."""

from collections.abc import Callable
from pathlib import Path

from dynamicdps.conditional.esrgan import esrgan_of
from dynamicdps.conditional.model import InitialModel
from dynamicdps.conditional.unet import unet_of
from dynamicdps.conditional.volume_model import volume_unet_of
from dynamicdps.models.model_cache import held
from dynamicdps.models.model_file import ModelFile, read_model
from dynamicdps.models.names import CONDITIONAL_KINDS

_BUILDERS: dict[str, Callable[[ModelFile, str], InitialModel]] = {"unet": unet_of, "esrgan": esrgan_of, "volume-unet": volume_unet_of}


@held
def load_conditional(name: str | Path, device: str = "cpu") -> InitialModel:
    """A conditional model by its bundled name or file, ready for inference; its model card says of which kind it is.

    Raises:
        InputError: as `dynamicdps.models.model_file.read_model`.
    """
    model = read_model(name, CONDITIONAL_KINDS)
    return _BUILDERS[model.card["kind"]](model, device)
