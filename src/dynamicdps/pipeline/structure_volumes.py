"""Structures of a head with their volumes, and the files that hold them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynamicdps.evaluation.tissue_intervals import prediction_intervals
from dynamicdps.output_names import SEGMENTATION, SEGMENTATION_TABLE
from dynamicdps.report.trace import write_rows
from dynamicdps.segmentation import ClassChances, Midplane
from dynamicdps.segmentation.classes import Structure, structures
from dynamicdps.segmentation.reliability import VolumeErrors, is_reliable
from dynamicdps.volumes import Volume

MISSING = "n/a"


@dataclass(frozen=True)
class StructureVolume:
    """A structure or tissue that was measured.

    Attributes:
        structure: which one.
        mm3: its volume: the sum of the chances of its class over voxels, times the volume of one.
        interval: 95 %, mm3; `None` where nothing tells it.
        confidence: mean chance of its class inside it, 0 to 1; NaN where it is nowhere the likeliest.
        dice: mean Dice coefficient of the model on held-out heads of such a resolution; NaN where it was not measured.
    """

    structure: Structure
    mm3: float
    interval: tuple[float, float] | None
    confidence: float
    dice: float = float("nan")

    @property
    def reliable(self) -> bool:
        """Whether it may be reported without reserve."""
        return is_reliable(self.dice)


def structure_volumes(
    chances: ClassChances, plane: Midplane | None, intervals: Mapping[Structure, tuple[float, float]], dice: Mapping[str, float]
) -> tuple[StructureVolume, ...]:
    """All structures with their volumes, in the order of the classes, and tissues.

    Args:
        chances: of the head.
        plane: as in `ClassChances.volumes`.
        intervals: of the volumes.
        dice: of the model by name, as `dynamicdps.segmentation.reliability.structure_dice` tells it.
    """
    sure = chances.confidences(plane)
    volumes = chances.volumes(plane).items()
    return tuple(StructureVolume(s, float(slices.sum()), intervals.get(s), sure[s], dice.get(s.name, math.nan)) for s, slices in volumes)


def volume_intervals(
    volumes: Mapping[Structure, float], drawn: Sequence[Mapping[Structure, float]], errors: VolumeErrors, coverage: float
) -> dict[Structure, tuple[float, float]]:
    """Where true volumes lie with the coverage, from what chance does to one scan and from the errors that its model had in other heads.

    Both are taken as independent: the half width is the root of the sum of the squares of that of the draws, as
    `dynamicdps.evaluation.tissue_intervals.prediction_intervals` tells it, and of the model's root mean square error times the volume and
    Student's t for as many heads.

    Args:
        volumes: of the scan, mm3, that the intervals are around.
        drawn: volumes of draws, mm3; without any there are no intervals.
        errors: of the model at such a resolution.
        coverage: of the intervals, between 0 and 1.
    """
    from scipy.special import stdtrit

    factor = float(stdtrit(errors.heads, (1 + coverage) / 2))
    found = {}
    for structure, (_, high) in prediction_intervals(drawn, coverage, 0.0, volumes).items():
        mm3 = volumes[structure]
        half = math.hypot(high - mm3, factor * errors.relative.get(structure.name, 0.0) * mm3)
        found[structure] = (max(0.0, mm3 - half), mm3 + half)
    return found


def write_volumes(path: Path, measured: Sequence[StructureVolume]) -> None:
    """A TSV file with the columns structure, side, mm3, low, high, confidence, dice and reliable; without structures it is removed."""
    rows = [
        {
            "structure": each.structure.name,
            "side": each.structure.side or MISSING,
            "mm3": f"{each.mm3:.1f}",
            "low": MISSING if each.interval is None else f"{each.interval[0]:.1f}",
            "high": MISSING if each.interval is None else f"{each.interval[1]:.1f}",
            "confidence": f"{each.confidence:.3f}" if np.isfinite(each.confidence) else MISSING,
            "dice": f"{each.dice:.2f}" if np.isfinite(each.dice) else MISSING,
            "reliable": "yes" if each.reliable else "no",
        }
        for each in measured
    ]
    write_rows(path, rows)


def write_labels(folder: Path, labels: Volume | None, *, sided: bool) -> None:
    """dseg.nii.gz and dseg.tsv, which says what its numbers mean, as BIDS has them; without labels both are removed.

    Args:
        folder: their place.
        labels: numbers of FreeSurfer's table.
        sided: whether left and right are told apart.
    """
    rows = [
        {"index": str(s.label), "name": s.full_name, "abbreviation": s.abbreviation, "color": s.colour} for s in structures(sided=sided)
    ]
    write_rows(folder / SEGMENTATION_TABLE, [] if labels is None else rows)
    if labels is None:
        (folder / SEGMENTATION).unlink(missing_ok=True)
    else:
        labels.save(folder / SEGMENTATION, dtype=np.uint8)
