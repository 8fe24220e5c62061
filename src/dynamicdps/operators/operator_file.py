"""Operators on disk: JSON with the type, its parameters and the grids they refer to."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import read_json, write_json
from dynamicdps.operators.kspace_measurement import KSpaceMeasurement
from dynamicdps.operators.operator import Operator
from dynamicdps.operators.presets import PRESETS
from dynamicdps.operators.registry import operator_from_json
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import Grid


@dataclass(frozen=True)
class ScanOperator:
    """An operator with what ties it to one scan.

    Attributes:
        operator: the forward model on image intensities.
        image_shape: image grid ``(x, y, z)``, where known.
        image_affine: its affine in mm.
        intensity_scale: scanner units of one image-intensity unit, where known.
        weights: how much each measured voxel counts, 0 to 1, on the scan's grid ``(x, y, z)``; `None` is 1 everywhere. No file has it.
        kspace: what the scan's k-space leaves to explain, where that is the measurement. No file has it.
    """

    operator: Operator
    image_shape: tuple[int, int, int] | None = None
    image_affine: NDArray[np.float64] | None = None
    intensity_scale: float | None = None
    weights: NDArray[np.float32] | None = None
    kspace: KSpaceMeasurement | None = None

    def grid_for(self, measurement: Volume) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
        """Image grid of a measurement: the recorded one, or the largest that the measurement covers, on the same centre.

        Raises:
            InputError: the recorded grid is not measured on a grid of the measurement's shape.
        """
        if self.image_shape is not None and self.image_affine is not None:
            expected = self.operator.grid(Grid(self.image_shape, self.image_affine)).shape
            if expected != measurement.shape:
                raise InputError(
                    f"the measurement has shape {measurement.shape}; expected {expected} for this operator; use the operator of this scan"
                )
            return self.image_shape, self.image_affine
        shape = self.operator.covered_shape(measurement.shape)
        place = self.operator.grid(Grid(shape, np.eye(4))).affine
        return shape, measurement.affine @ np.linalg.inv(place)

    @property
    def couples_slices(self) -> bool:
        """Whether the scan's slices are one image."""
        return self.operator.couples_slices or self.kspace is not None or (self.weights is not None and self.weights.shape[2] > 1)

    def weighted(self, weights: NDArray[Any]) -> "ScanOperator":
        """The operator with a weight for each measured voxel, 0 to 1, on the scan's grid ``(x, y, z)``."""
        return replace(self, weights=np.asarray(weights, dtype=np.float32))

    def to_json(self) -> dict[str, Any]:
        values = self.operator.to_json()
        if self.image_shape is not None and self.image_affine is not None:
            values |= {"image_shape": list(self.image_shape), "image_affine": self.image_affine.tolist()}
        if self.intensity_scale is not None:
            values["intensity_scale"] = self.intensity_scale
        return values

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())


def read_operator(name: str | Path) -> ScanOperator:
    """An operator by the name of a degradation or by its JSON file.

    Raises:
        InputError: there is no such degradation or file, or the file does not describe an operator.
    """
    if str(name) in PRESETS:
        return ScanOperator(PRESETS[str(name)])
    path = Path(name)
    if not path.is_file():
        raise InputError(f"there is no operator {str(name)!r}; expected one of {', '.join(PRESETS)} or a JSON file; check the name")
    try:
        values = read_json(path)
        operator = operator_from_json(values, str(path))
        shape = values.get("image_shape")
        affine = values.get("image_affine")
        scale = values.get("intensity_scale")
        if shape is not None:
            x, y, z = (int(n) for n in shape)
            if min(x, y, z) < 1 or max(x, y, z) > 4096:
                raise ValueError(f"image_shape {shape}")
            shape = (x, y, z)
        if affine is not None:
            affine = np.asarray(affine, dtype=np.float64)
            if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
                raise ValueError("image_affine")
        if scale is not None and not (np.isfinite(float(scale)) and float(scale) > 0):
            raise ValueError(f"intensity_scale {scale}")
        return ScanOperator(operator, shape, affine, None if scale is None else float(scale))
    except InputError as error:
        if str(path) in str(error):
            raise
        # A parameter out of its range does not know where it comes from.
        raise InputError(f"{path}: {error}") from error
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path} cannot be read as an operator ({reason_of(error)}); expected JSON as `simulate` writes it; see docs/operators.md"
        ) from error
