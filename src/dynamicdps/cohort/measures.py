"""The numbers of an enhanced scan that a study's table holds."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dynamicdps.errors import InputError
from dynamicdps.evaluation import TISSUES, segment, tissue_intervals, tissue_volumes
from dynamicdps.output_names import ENHANCED, ENHANCED_BRAIN, SAMPLES
from dynamicdps.report.thumbnail import thumbnail
from dynamicdps.volumes import Volume, brain_mask, load


def brain_of(made: Path) -> Volume:
    """The enhanced brain without the head around it."""
    brain = made / ENHANCED_BRAIN
    return load(brain if brain.is_file() else made / ENHANCED)


def volumes_of(values: Mapping[str, float | None]) -> dict[str, Any]:
    """What a sidecar says of volumes, from the values of a row."""
    volumes = {tissue: values[tissue] for tissue in TISSUES if values.get(tissue) is not None}
    ends = {tissue: [values.get(f"{tissue}_{end}") for end in ("low", "high")] for tissue in volumes}
    return {"volumes_mm3": volumes, "volumes_interval_mm3": {tissue: both for tissue, both in ends.items() if None not in both}}


def measure(made: Path, facts: Mapping[str, Any]) -> tuple[dict[str, float | None], list[str], bytes]:
    """Tissue volumes (mm3) with intervals, data misfit and start level; doubts about them; and a thumbnail.

    Args:
        made: the enhancer's folder: ``enhanced.nii.gz``, and where there is one ``enhanced_brain.nii.gz``. Where the facts have no
            volumes they are measured here (not where they are empty: it was in vain); posterior samples as ``samples.nii.gz``,
            ``(x, y, z, sample)`` on the grid of the brain, then give intervals.
        facts: of the enhancer: ``data_misfit``, ``start_sigma``, ``volumes_mm3`` and ``volumes_interval_mm3`` by tissue, where known.

    Returns:
        Values by column, `None` where unknown; sentences; JPEG.
    """
    values: dict[str, float | None] = dict.fromkeys([*TISSUES, *(f"{tissue}_{end}" for tissue in TISSUES for end in ("low", "high"))])
    doubts = []
    brain = brain_of(made)
    try:
        volumes, intervals = dict(facts.get("volumes_mm3") or {}), dict(facts.get("volumes_interval_mm3") or {})
        if facts.get("volumes_mm3") is None:
            mask = brain_mask(brain)
            volumes = tissue_volumes(segment(brain.data, mask), brain.spacing)
            if (made / SAMPLES).is_file():
                stack = np.asarray(nib.load(made / SAMPLES).dataobj, dtype=np.float32)
                drawn = list(np.moveaxis(stack, -1, 0))
                intervals = tissue_intervals(drawn, mask, brain.spacing, pairs=True, estimate=volumes).interval_mm3
        values |= {tissue: round(mm3, 1) for tissue, mm3 in volumes.items() if mm3 is not None}
        values |= {
            f"{tissue}_{end}": round(mm3, 1) for tissue, ends in intervals.items() for end, mm3 in zip(("low", "high"), ends, strict=True)
        }
    except InputError as error:
        doubts.append(f"the tissue volumes are unknown: {error}")
    for name in ("data_misfit", "start_sigma"):
        number = facts.get(name)
        values[name] = round(float(number), 6) if isinstance(number, int | float) and math.isfinite(number) else None
    return values, doubts, thumbnail(brain)
