"""Options of commands that enhance or fit a scan, refused before the work at whose end they are needed."""

from pathlib import Path

from dynamicdps.conditional import load_conditional
from dynamicdps.errors import InputError
from dynamicdps.volumes import deepbet, load
from dynamicdps.volumes.brain_extraction import METHODS


def check_mask(mask: str) -> None:
    """Refuse a mask that no scan can have.

    Raises:
        InputError: there is no such method or file, or it cannot be used.
    """
    if mask == "deepbet" and deepbet.weights() is None:
        raise InputError("deepbet is not installed; expected its weights for this mask; run: pip install --no-deps deepbet")
    if mask in METHODS:
        return
    if not Path(mask).exists():
        raise InputError(f"there is no mask {mask!r}; expected {', '.join(METHODS)} or an image file; change --mask")
    load(mask)


def check_initial(initial: Path | None, conditional: str) -> None:
    """Refuse an initial image, or without one a conditional model, that cannot be used.

    Raises:
        InputError: as `load` and `load_conditional`.
    """
    if initial is None:
        load_conditional(conditional)
    else:
        load(initial)
