"""How reliable each structure is: what was measured of a model in images of heads whose structures are known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Mean Dice coefficient on held-out heads from which a structure is reported without reserve.
LEAST_DICE = 0.7


def structure_dice(card: Mapping[str, Any], edge_mm: float) -> dict[str, float]:
    """Mean Dice coefficients of a model by name of structure or tissue, at the measured resolution that is nearest; empty if none is known.

    Args:
        card: of the model: `structure_dice` holds them by the longest edge of a voxel in mm.
        edge_mm: the longest edge of the scan's voxels.
    """
    return _nearest(card, "structure_dice", edge_mm)


@dataclass(frozen=True)
class VolumeErrors:
    """How far a model's volumes were from the true ones.

    Attributes:
        relative: root mean square of ``truth / volume - 1`` by name of structure or tissue; empty if none is known.
        heads: of how many it is.
    """

    relative: Mapping[str, float] = field(default_factory=dict)
    heads: int = 1


def volume_errors(card: Mapping[str, Any], edge_mm: float) -> VolumeErrors:
    """Errors of a model's volumes at the measured resolution that is nearest.

    Args:
        card: of the model: `volume_error` holds them by the longest edge of a voxel in mm, `volume_error_maps` the number of heads.
        edge_mm: the longest edge of the scan's voxels.
    """
    return VolumeErrors(_nearest(card, "volume_error", edge_mm), int(card.get("volume_error_maps", 1)))


def _nearest(card: Mapping[str, Any], name: str, edge_mm: float) -> dict[str, float]:
    measured: dict[str, dict[str, float]] = card.get(name, {})
    return measured[min(measured, key=lambda edge: abs(math.log(float(edge) / edge_mm)))] if measured else {}


def is_reliable(dice: float) -> bool:
    """Whether a structure may be reported without reserve; where nothing was measured (NaN) nothing is known against it."""
    return not dice < LEAST_DICE
