"""How a scan was acquired: what a forward model needs to know beside the image."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dynamicdps.errors import InputError

# Smallest and largest value that a brain scan can have, by field.
RANGES: dict[str, tuple[float, float]] = {
    "field_strength_t": (0.001, 25.0),
    "echo_time_ms": (0.01, 2000.0),
    "repetition_time_ms": (0.5, 60000.0),
    "inversion_time_ms": (1.0, 20000.0),
    "flip_angle_deg": (0.1, 360.0),
    "slice_thickness_mm": (0.05, 50.0),
    "slice_spacing_mm": (0.05, 50.0),
}
# A grid whose longest edge is not this much longer than the others is taken as isotropic: no axis is across slices.
THICK = 1.3


@dataclass(frozen=True)
class Acquisition:
    """Facts of the acquisition, `None` where nobody says. Nothing in it names a person, a place or a date.

    Attributes:
        field_strength_t: tesla.
        sequence: what the scanner calls it, such as ``GR``; several joined by a backslash.
        echo_time_ms: milliseconds, as the three that follow it but the angle.
        repetition_time_ms: from excitation to excitation.
        inversion_time_ms: from inversion to excitation.
        flip_angle_deg: degrees.
        slice_thickness_mm: what a slice averages over.
        slice_spacing_mm: distance of slice centres.
        slice_axis: axis of the RAS volume that runs across the slices, 0 to 2.
        warnings: what was found but cannot be true, one sentence each.

    Raises:
        InputError: a number lies outside `RANGES`.
    """

    field_strength_t: float | None = None
    sequence: str | None = None
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    slice_thickness_mm: float | None = None
    slice_spacing_mm: float | None = None
    slice_axis: int | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in RANGES:
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)
        if self.slice_axis not in (None, 0, 1, 2):
            raise InputError(f"the slice axis is {self.slice_axis!r}; expected 0, 1 or 2")

    @property
    def slice_gap_mm(self) -> float | None:
        """Distance between the faces of neighbouring slices; less than 0 where they overlap."""
        if self.slice_spacing_mm is None or self.slice_thickness_mm is None:
            return None
        return self.slice_spacing_mm - self.slice_thickness_mm

    def to_json(self) -> dict[str, Any]:
        """What is known, by name."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}


def check_number(name: str, value: Any, where: str = "the header or the sidecar") -> float:
    """The value of a field as a number within its range.

    Raises:
        InputError: it is none, or outside.
    """
    words, unit = name.rsplit("_", 1)
    low, high = RANGES[name]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        label = words.replace("_", " ")
        unit = {"t": "T"}.get(unit, unit)
        raise InputError(f"the {label} is {str(value)[:40]} {unit}; expected {low:g} to {high:g} {unit}; check {where}")
    return number


def plausible(values: dict[str, Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    """The numbers that can be true, and a sentence for each that cannot: headers of scanners hold both.

    Args:
        values: by the names of `RANGES`; `None` and 0 mean unknown.
    """
    kept, warnings = {}, []
    for name, value in values.items():
        if value in (None, "", 0):
            continue
        try:
            kept[name] = check_number(name, value)
        except InputError as error:
            warnings.append(f"{str(error).split(';')[0]}, which cannot be; it was left out")
    return kept, tuple(warnings)


def across_slices(spacing: ArrayLike) -> int | None:
    """The axis of the longest voxel edge, if it is clearly longer than the others."""
    lengths = np.asarray(spacing, dtype=float)
    axis = int(lengths.argmax())
    return axis if lengths[axis] > THICK * np.delete(lengths, axis).max() else None
