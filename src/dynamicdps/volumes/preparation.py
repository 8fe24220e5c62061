"""What was done to a scan before its reconstruction, step by step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dynamicdps.volumes.acquired_matrix import acquired_matrix
from dynamicdps.volumes.brain_scan import BrainScan
from dynamicdps.volumes.volume import Volume


@dataclass(frozen=True)
class Step:
    """One step of the preparation.

    Attributes:
        name: ``orientation``, ``brain``, ``contrast``, ``shading`` or ``intensity``.
        parameters: what was asked for.
        found: what came out, by name; the unit is in the name where there is one.
        warnings: what to check, one sentence each.
    """

    name: str
    parameters: dict[str, Any]
    found: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def orientation_step(scan: Volume) -> Step:
    """Where the axes of the file grew to, what the voxels are in RAS order, and how many were acquired of a zero-filled scan."""
    spacing = [round(s, 4) for s in scan.spacing]
    found: dict[str, Any] = {"file": scan.orientation, "voxels": list(scan.shape), "spacing_mm": spacing}
    acquired = acquired_matrix(scan)
    return Step("orientation", {}, found if acquired == scan.shape else found | {"acquired_voxels": list(acquired)})


def brain_step(scan: BrainScan, mask: str) -> Step:
    """Which method found the brain, and how large it is.

    Args:
        scan: of `open_brain`.
        mask: what was asked for.
    """
    millilitres = round(scan.mask.millilitres(scan.whole), 1)
    return Step("brain", {"mask": mask}, {"method": scan.mask.method, "brain_ml": millilitres}, list(scan.mask.warnings))


def intensity_step(scale: float) -> Step:
    """Scanner units of one unit of image intensity."""
    return Step("intensity", {}, {"scanner_units": float(f"{scale:.6g}")})


def in_words(step: Mapping[str, Any]) -> str:
    """A step as JSON on one line: its name and what came out; lists of lists, such as coefficients, are left out."""
    shown = {name: value for name, value in step["found"].items() if not _nested(value)}
    return f"{step['name']}: " + ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in shown.items())


def _nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, list) for each in value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " / ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
