"""The numbers of an enhanced scan that a study's table holds."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamicdps.evaluation import TISSUES
from dynamicdps.output_names import ENHANCED, ENHANCED_BRAIN
from dynamicdps.report.thumbnail import thumbnail
from dynamicdps.volumes import Volume, load


def brain_of(made: Path) -> Volume:
    """The enhanced brain without the head around it."""
    brain = made / ENHANCED_BRAIN
    return load(brain if brain.is_file() else made / ENHANCED)


def volumes_of(values: Mapping[str, float | None]) -> dict[str, Any]:
    """What a sidecar says of volumes, from the values of a row."""
    volumes = {tissue: values[tissue] for tissue in TISSUES if values.get(tissue) is not None}
    ends = {tissue: [values.get(f"{tissue}_{end}") for end in ("low", "high")] for tissue in volumes}
    return {"volumes_mm3": volumes, "volumes_interval_mm3": {tissue: both for tissue, both in ends.items() if None not in both}}


def measure(made: Path, facts: Mapping[str, Any]) -> tuple[dict[str, float | None], bytes]:
    """Tissue volumes (mm3) with intervals, data misfit and start level; and a thumbnail.

    Args:
        made: the enhancer's folder: ``enhanced.nii.gz``, and where there is one ``enhanced_brain.nii.gz``.
        facts: of the enhancer: ``volumes_mm3`` and ``volumes_interval_mm3`` by tissue, ``data_misfit`` and ``start_sigma``, where known.

    Returns:
        Values by column, `None` where unknown; JPEG.
    """
    values: dict[str, float | None] = dict.fromkeys([*TISSUES, *(f"{tissue}_{end}" for tissue in TISSUES for end in ("low", "high"))])
    values |= {tissue: round(mm3, 1) for tissue, mm3 in (facts.get("volumes_mm3") or {}).items() if mm3 is not None}
    for tissue, ends in (facts.get("volumes_interval_mm3") or {}).items():
        values |= {f"{tissue}_{end}": round(mm3, 1) for end, mm3 in zip(("low", "high"), ends, strict=True)}
    for name in ("data_misfit", "start_sigma"):
        number = facts.get(name)
        values[name] = round(float(number), 6) if isinstance(number, int | float) and math.isfinite(number) else None
    return values, thumbnail(brain_of(made))
