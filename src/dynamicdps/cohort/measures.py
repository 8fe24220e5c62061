"""The numbers of an enhanced scan that a study's table holds."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dynamicdps.errors import InputError
from dynamicdps.evaluation import TISSUES, segment, tissue_intervals, tissue_volumes
from dynamicdps.report.thumbnail import thumbnail
from dynamicdps.volumes import Volume, brain_mask, load

SAMPLES = "samples.nii.gz"


def brain_of(made: Path) -> Volume:
    """The enhanced brain without the head around it."""
    brain = made / "enhanced_brain.nii.gz"
    return load(brain if brain.is_file() else made / "enhanced.nii.gz")


def measure(made: Path, facts: Mapping[str, Any]) -> tuple[dict[str, float | None], list[str], bytes]:
    """Tissue volumes (mm3) with intervals, data misfit and start level; doubts about them; and a thumbnail.

    Args:
        made: the enhancer's folder: ``enhanced.nii.gz``, and where there is one ``enhanced_brain.nii.gz``. Posterior samples as
            ``samples.nii.gz``, ``(x, y, z, sample)`` on the grid of the brain, give intervals; without them there are none.
        facts: of the enhancer: ``data_misfit`` and ``start_sigma``, where known.

    Returns:
        Values by column, `None` where unknown; sentences; JPEG.
    """
    values: dict[str, float | None] = dict.fromkeys([*TISSUES, *(f"{tissue}_{end}" for tissue in TISSUES for end in ("low", "high"))])
    doubts = []
    brain = brain_of(made)
    try:
        mask = brain_mask(brain)
        values |= {name: round(mm3, 1) for name, mm3 in tissue_volumes(segment(brain.data, mask), brain.spacing).items()}
        if (made / SAMPLES).is_file():
            stack = np.asarray(nib.load(made / SAMPLES).dataobj, dtype=np.float32)
            found = tissue_intervals(list(np.moveaxis(stack, -1, 0)), mask, brain.spacing).interval_mm3
            values |= {
                f"{tissue}_{end}": round(mm3, 1) for tissue in TISSUES for end, mm3 in zip(("low", "high"), found[tissue], strict=True)
            }
    except InputError as error:
        doubts.append(f"the tissue volumes are unknown: {error}")
    for name in ("data_misfit", "start_sigma"):
        number = facts.get(name)
        values[name] = round(float(number), 6) if isinstance(number, int | float) and math.isfinite(number) else None
    return values, doubts, thumbnail(brain)
