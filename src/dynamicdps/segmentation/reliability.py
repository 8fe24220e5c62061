"""How reliable each structure is: what was measured of a model on heads that it was not trained on."""

import math
from collections.abc import Mapping
from typing import Any

# Mean Dice coefficient on held-out heads from which a structure is reported without reserve.
LEAST_DICE = 0.7


def structure_dice(card: Mapping[str, Any], edge_mm: float) -> dict[str, float]:
    """Mean Dice coefficients of a model by name of structure or tissue, at the measured resolution that is nearest; empty if none is known.

    Args:
        card: of the model: `structure_dice` holds them by the longest edge of a voxel in mm.
        edge_mm: the longest edge of the scan's voxels.
    """
    measured: dict[str, dict[str, float]] = card.get("structure_dice", {})
    if not measured:
        return {}
    return measured[min(measured, key=lambda edge: abs(math.log(float(edge) / edge_mm)))]


def is_reliable(dice: float) -> bool:
    """Whether a structure may be reported without reserve; where nothing was measured (NaN) nothing is known against it."""
    return not dice < LEAST_DICE
