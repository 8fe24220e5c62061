"""An operator with its noise and its scan, and its file: JSON with the type, its parameters, the noise and the grids they refer to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import write_json
from dynamicdps.operators.kspace_measurement import KSpaceMeasurement
from dynamicdps.operators.noise import Noise
from dynamicdps.operators.operator import Operator
from dynamicdps.operators.registry import operator_from_json
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import Grid

# Standard deviation of the noise where a file says none, by the innermost operator.
UNSTATED, OTHERS_UNSTATED = {"LowField": 0.001, "Contrast": 0.001}, 0.01


@dataclass(frozen=True)
class ScanOperator:
    """An operator with its noise and with what ties it to one scan.

    Attributes:
        operator: the forward model on image intensities.
        noise: of the measurement; a number is the standard deviation of white Gaussian noise.
        image_shape: image grid ``(x, y, z)``, where known.
        image_affine: its affine in mm.
        intensity_scale: scanner units of one image-intensity unit, where known.
        weights: how much each measured voxel counts, 0 to 1, on the scan's grid ``(x, y, z)``; `None` is 1 everywhere. No file has it.
        kspace: what the scan's k-space leaves to explain, where that is the measurement. No file has it.
    """

    operator: Operator
    noise: Noise
    image_shape: tuple[int, int, int] | None = None
    image_affine: NDArray[np.float64] | None = None
    intensity_scale: float | None = None
    weights: NDArray[np.float32] | None = None
    kspace: KSpaceMeasurement | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", Noise.of(self.noise))

    def __str__(self) -> str:
        return f"{self.operator}, noise_std={self.noise.std:g}, noise={self.noise.kind}"

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
        return covered_grid(self.operator, measurement)

    @property
    def couples_slices(self) -> bool:
        """Whether the scan's slices are one image."""
        return self.operator.couples_slices or self.kspace is not None or (self.weights is not None and self.weights.shape[2] > 1)

    def weighted(self, weights: NDArray[Any]) -> "ScanOperator":
        """The operator with a weight for each measured voxel, 0 to 1, on the scan's grid ``(x, y, z)``."""
        return replace(self, weights=np.asarray(weights, dtype=np.float32))

    def to_json(self) -> dict[str, Any]:
        """Type and parameters of the operator, ``noise_std`` and ``noise``, and what ties it to its scan.

        Raises:
            InputError: the noise has a spectrum.
        """
        if self.noise.spectrum is not None:
            raise InputError("the noise has a spectrum, which no file holds; expected white noise; write the operator with that")
        values = self.operator.to_json() | {"noise_std": self.noise.std, "noise": self.noise.kind}
        if self.image_shape is not None and self.image_affine is not None:
            values |= {"image_shape": list(self.image_shape), "image_affine": self.image_affine.tolist()}
        if self.intensity_scale is not None:
            values["intensity_scale"] = self.intensity_scale
        return values

    @classmethod
    def from_json(cls, values: Any, source: str = "the JSON") -> "ScanOperator":
        """Inverse of `to_json`; arguments and errors as `operator_from_json`."""
        operator = operator_from_json(values, source)
        shape, affine, scale = (values.get(name) for name in ("image_shape", "image_affine", "intensity_scale"))
        try:
            noise = _noise_from_json(values)
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
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(
                f"{source} cannot be read as an operator ({reason_of(error)}); expected JSON as `simulate` writes it; see docs/operators.md"
            ) from error
        return cls(operator, noise, shape, affine, None if scale is None else float(scale))

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())


def require_noise(given: object) -> None:
    """Refuse an operator alone where a `ScanOperator` is expected.

    Raises:
        InputError: it is one.
    """
    if isinstance(given, Operator):
        raise InputError(
            f"{type(given).__name__} comes without its noise; expected ScanOperator(operator, noise), the noise's standard deviation as "
            "a share of the intensity range; give both"
        )


def covered_grid(operator: Operator, measurement: Volume) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """The largest image grid that a measurement covers, on the same centre: its shape ``(x, y, z)`` and affine."""
    shape = operator.covered_shape(measurement.shape)
    place = operator.grid(Grid(shape, np.eye(4))).affine
    return shape, measurement.affine @ np.linalg.inv(place)


def _noise_from_json(values: Mapping[str, Any]) -> Noise:
    """The noise that a file says: beside the operator, or, in files of earlier versions, in its parts.

    The noise comes last, in the scanner's receiver: of parts the outermost one that has a standard deviation says it. It is Rician where
    any part says so.
    """
    parts = list(_with_parts(values))
    std = next((part["noise_std"] for part in parts if part.get("noise_std") is not None), None)
    if std is None:
        std = UNSTATED.get(str(parts[-1].get("type")), OTHERS_UNSTATED)
    if isinstance(std, bool) or not isinstance(std, int | float):
        raise InputError(f"noise_std is {std!r}; expected a number from 1e-06 to 1")
    kinds = [part["noise"] for part in parts if "noise" in part]
    return Noise(float(std), "rician" if "rician" in kinds else kinds[0] if kinds else "gaussian")


def _with_parts(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """An operator's JSON and that of its parts, the outermost first."""
    yield values
    for part in (*values.get("operators", ()), *([values["inner"]] if "inner" in values else ())):
        yield from _with_parts(part)
