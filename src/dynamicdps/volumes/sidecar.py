"""Acquisition facts of a file: its header and the BIDS sidecar beside it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation

from dynamicdps.errors import InputError
from dynamicdps.json_file import read_json
from dynamicdps.volumes.acquisition import Acquisition, across_slices, check_number
from dynamicdps.volumes.volume import is_affine, open_image

# BIDS 1.10, MRI metadata: its name, ours, and the factor from its unit to ours.
BIDS = {
    "MagneticFieldStrength": ("field_strength_t", 1.0),
    "EchoTime": ("echo_time_ms", 1000.0),
    "RepetitionTime": ("repetition_time_ms", 1000.0),
    "InversionTime": ("inversion_time_ms", 1000.0),
    "FlipAngle": ("flip_angle_deg", 1.0),
    "SliceThickness": ("slice_thickness_mm", 1.0),
    "SpacingBetweenSlices": ("slice_spacing_mm", 1.0),
}
# A sequence's name is short; whatever else stands there is not carried on.
MAX_WORDS = 64


def read_acquisition(path: str | Path) -> Acquisition:
    """What the header of an image and the JSON file of the same stem beside it say.

    The distance of slices is that of the header, on whose grid the image lies; a sidecar that disagrees gives a warning.

    Raises:
        InputError: the image or the sidecar cannot be read, or the sidecar holds a value that cannot be.
    """
    path = Path(path)
    image = open_image(path)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not is_affine(affine):
        raise InputError(f"{path} has a singular affine; expected an invertible 4 x 4 matrix; mend the header")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    dim_info = getattr(image.header, "get_dim_info", lambda: (None, None, None))()
    axis = across_slices(spacing) if dim_info[2] is None else int(dim_info[2])
    found = _sidecar(path)
    if axis is None:
        return found
    distance = float(spacing[axis])
    warnings = found.warnings
    given = found.slice_spacing_mm
    if given is not None and abs(given - distance) > 0.05 * distance:
        warnings += (f"the sidecar says that slices are {given:g} mm apart, the header {distance:g} mm; the header's was taken",)
    check_number("slice_spacing_mm", distance, f"the header of {path}")
    return replace(found, slice_spacing_mm=distance, slice_axis=int(io_orientation(affine)[axis, 0]), warnings=warnings)


def _sidecar(image: Path) -> Acquisition:
    name = image.name.removesuffix(".gz")
    path = image.with_name(f"{name.rpartition('.')[0] or name}.json")
    if not path.is_file():
        return Acquisition()
    try:
        content: Any = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; expected the JSON sidecar of {image.name}; mend or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a JSON object, as BIDS defines it; mend or remove it")
    numbers: dict[str, Any] = {}
    for key, (name, factor) in BIDS.items():
        value = content.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            # Words are not repeated: sidecars may hold names.
            raise InputError(f"{key} in {path} is a {type(value).__name__}; expected one number; mend the sidecar")
        hint = f"{path} (BIDS times are in seconds)" if factor != 1 else str(path)
        numbers[name] = check_number(name, _times(value, factor), hint)
    sequence = content.get("ScanningSequence") or content.get("PulseSequenceType")
    return Acquisition(sequence=sequence[:MAX_WORDS] if isinstance(sequence, str) else None, **numbers)


def _times(value: float, factor: float) -> float:
    try:
        return value * factor
    except OverflowError:  # integers of JSON have no largest one
        return math.inf
