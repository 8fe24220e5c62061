"""Models by name: those of the package, and those that a user has added."""

import os
from collections.abc import Iterable, Sequence
from os.path import isfile
from pathlib import Path

from dynamicdps.errors import InputError
from dynamicdps.json_file import read_json
from dynamicdps.models import FOLDER

KINDS = ("prior", "unet", "volume-unet", "esrgan", "segmenter", "layout")
CONDITIONAL_KINDS = ("unet", "esrgan", "volume-unet")
VARIABLE = "DYNAMICDPS_MODELS"


def bundled_folder() -> Path:
    return FOLDER


def user_folder() -> Path:
    """Where `dynamicdps models add` puts models: ``$DYNAMICDPS_MODELS``, or ``~/.local/share/dynamicdps/models``."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).expanduser()
    share = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(share).expanduser() / "dynamicdps" / "models"


def bundled(kind: str) -> dict[str, Path]:
    """Models that come with the package, by name; `kind` is ``"prior"``, ``"unet"`` or ``"esrgan"``."""
    return _models(bundled_folder(), (kind,))


def known_models(kinds: Iterable[str] = KINDS) -> dict[str, Path]:
    """Weights of all models by name; what a user has added never replaces what comes with the package."""
    wanted = tuple(kinds)
    return _models(user_folder(), wanted) | _models(bundled_folder(), wanted)


def model_path(name: str | Path, kinds: Sequence[str]) -> Path:
    """The weights of a model by its name, bundled or added, or by its file.

    Args:
        name: of a model, or a path that ends in ``.safetensors``.
        kinds: that the names may be of.

    Raises:
        InputError: there is no such model.
    """
    names = known_models(kinds)
    path = names.get(str(name), Path(name))
    if not isfile(path):
        known = ", ".join(names) or "none"
        raise InputError(
            f"there is no {' or '.join(kinds)} model {str(name)!r}; expected a name ({known}) or a .safetensors file; check it"
        )
    return path


def _models(folder: Path, kinds: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for card in sorted(folder.glob("[!.]*.json")):
        weights = card.with_suffix(".safetensors")
        if weights.is_file() and _kind(card) in kinds:
            found[card.stem] = weights
    return found


def _kind(card: Path) -> str:
    """A damaged card of a user's must not take the other models away."""
    try:
        values = read_json(card)
    except (OSError, ValueError):
        return ""
    return str(values.get("kind", "")) if isinstance(values, dict) else ""
