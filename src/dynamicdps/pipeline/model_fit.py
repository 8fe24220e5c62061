"""Whether a model was made for a scan, by its model card."""

from typing import Any

import numpy as np

from dynamicdps.errors import InputError
from dynamicdps.models.model_file import ModelFile
from dynamicdps.priors import known_contrasts
from dynamicdps.volumes import IntensityScale, Volume

MOST_SPACING = 0.3
MOST_NEGATIVE = 0.05


def check_contrast(contrast: str, model: ModelFile) -> None:
    """Refuse a model of another contrast than the scan's; a scan of which nothing is known is never refused.

    Raises:
        InputError: the card names contrasts, and the scan's is not among them.
    """
    made_for = known_contrasts(model.card)
    if contrast != "unknown" and made_for and contrast not in made_for:
        raise InputError(
            f"the scan is {contrast}, the model {model.name} was trained on {' and '.join(made_for)}; expected a model of the scan's "
            "contrast; train or add one, or give --contrast if the scan's is another"
        )


def card_warnings(model: ModelFile, image_spacing: tuple[float, float, float], scan: Volume, scale: IntensityScale) -> list[str]:
    """What of a model's card does not fit, a sentence each: voxels of the slices, and the range of intensities.

    Args:
        model: a prior or a conditional model.
        image_spacing: of the image grid, mm.
        scan: the measurement.
        scale: its intensities.
    """
    return [*_spacing(model.card, model.name, image_spacing), *_range(model.name, scan, scale)]


def _spacing(card: Any, name: str, image_spacing: tuple[float, float, float]) -> list[str]:
    try:
        own = np.array(card["spacing_mm"], dtype=float)[:2]
    except (KeyError, TypeError, ValueError):
        return []
    # Networks see axial slices, whatever those of the scan are.
    here = np.array(image_spacing[:2])
    if own.shape != (2,) or not (own > 0).all() or np.abs(here / own - 1).max() <= MOST_SPACING:
        return []
    sizes, known = (" x ".join(f"{s:.3g}" for s in pair) for pair in (here, own))
    return [f"the image has voxels of {sizes} mm in the plane, and the model {name} knows {known} mm: its anatomy has another size there"]


def _range(name: str, scan: Volume, scale: IntensityScale) -> list[str]:
    share = float((scan.data < -MOST_NEGATIVE * scale.scale).mean())
    if share <= MOST_NEGATIVE:
        return []
    return [f"{100 * share:.0f} % of the scan lie below 0, and the model {name} knows intensities from 0 up: it may be no magnitude image"]
