"""Whether a model was made for a scan, by its model card."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from dynamicdps.diffusion import ModelFile
from dynamicdps.errors import InputError
from dynamicdps.volumes import IntensityScale, Volume

# Suffixes of BIDS 1.10 that name a contrast.
CONTRASTS = ("T1w", "T2w", "PDw", "FLAIR", "T2starw", "PDT2", "inplaneT2", "bold", "dwi", "T1map", "T2map", "angio", "swi")
SUFFIX = re.compile(rf"_({'|'.join(CONTRASTS)})$", re.IGNORECASE)
MOST_SPACING = 0.3
MOST_NEGATIVE = 0.05


def contrast_of(scan: Path) -> str | None:
    """The contrast in a file's BIDS name, ``sub-01_T2w.nii.gz``; `None` where it names none."""
    found = SUFFIX.search(scan.name.removesuffix(".gz").rpartition(".")[0] or scan.name)
    return next((name for name in CONTRASTS if found and name.lower() == found[1].lower()), None)


def check_contrast(scan: Path, model: ModelFile) -> None:
    """Refuse a model of another contrast than the scan's name says.

    Raises:
        InputError: the card names a contrast, the file another.
    """
    named = contrast_of(scan)
    made_for = {name for name in CONTRASTS if re.search(rf"\b{name}\b", str(model.card.get("contrast", "")), re.IGNORECASE)}
    if named is not None and made_for and named not in made_for:
        raise InputError(
            f"{scan.name} is a {named} scan by its name, the model {model.name} was trained on {' and '.join(sorted(made_for))}; expected "
            "a model of the scan's contrast; train or add one, or rename the scan if its name is wrong"
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
