"""Models that a user adds: checked, copied, and known by their name from then on."""

import re
import shutil
from pathlib import Path

from dynamicdps.atomic_file import atomic_write
from dynamicdps.errors import InputError
from dynamicdps.json_file import write_json
from dynamicdps.models.model_file import ModelFile, check_size, file_hash, read_model
from dynamicdps.models.names import KINDS, bundled_folder, user_folder
from dynamicdps.paths import check_exists

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_model(path: Path, sha256: str | None = None) -> ModelFile:
    """Read a model that may come from anywhere.

    Args:
        path: weights that end in ``.safetensors``, their card of the same name beside them.
        sha256: what the weights' hash must be beside the card's, hexadecimal.

    Raises:
        InputError: the file has another ending (pickles can run programs), is larger than 2 GB, has another hash than the card's or the one
            given, has a name that is none, or is no model of this package.
    """
    if path.suffix != ".safetensors":
        raise InputError(
            f"{path} is no .safetensors file; expected weights that cannot run programs, as pickles (.pt, .ckpt) can; convert it"
        )
    check_exists(path, "a .safetensors file")
    if not NAME.fullmatch(path.stem):
        raise InputError(
            f"{path.stem!r} cannot be a model's name; expected letters, digits, dots, hyphens and underscores; rename the file"
        )
    check_size(path)
    found = file_hash(path)
    if sha256 is not None and found != sha256.strip().lower():
        raise InputError(f"{path} has the SHA-256 {found}; expected {sha256[:80]}; copy it again from its source")
    return read_model(path, KINDS)


def add_model(model: ModelFile) -> Path:
    """Copy a model and its card into the user's folder.

    Returns:
        The copied weights.

    Raises:
        InputError: the name is taken by a bundled model or by other weights, or the folder cannot be written.
    """
    folder = user_folder()
    place = folder / model.path.name
    if (bundled_folder() / model.path.name).exists():
        raise InputError(f"{model.name!r} is the name of a bundled model; expected another name; rename the file and its card")
    try:
        if place.is_file() and file_hash(place) != model.card["sha256"]:
            raise InputError(f"there is another model {model.name!r} in {folder}; expected a new name; rename the file or remove that one")
        with atomic_write(place) as partial:
            shutil.copyfile(model.path, partial)
            if file_hash(partial) != model.card["sha256"]:
                raise InputError(f"{model.path} changed while it was copied; expected a file at rest; add it again")
        # The card last: without it there is no model.
        write_json(place.with_suffix(".json"), model.card)
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); expected a folder of yours; set DYNAMICDPS_MODELS") from error
    return place
