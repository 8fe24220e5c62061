"""The numbers of one stage of a reconstruction."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.data_term import DataTerm, scan_term
from dynamicdps.errors import InputError
from dynamicdps.evaluation.fidelity import SSIM_WINDOW, nrmse, psnr, ssim
from dynamicdps.evaluation.tissue import segment, tissue_volumes, volume_errors
from dynamicdps.operators import ScanOperator
from dynamicdps.volumes import IntensityScale, Volume, brain_mask, from_slices, to_slices
from dynamicdps.volumes.grids import native_grid

MIN_BRAIN_SHARE = 0.05
# Names in metrics.json.
VOLUME_KEYS = {"volume_error": "volume_error", "volumes_mm3": "volume_mm3"}
SOLVER_FIELDS = ("nfe", "nbackward", "start_sigma", "seconds")


@dataclass(frozen=True)
class StageMetrics:
    """What is known of one stage (the measurement, the conditional model's image, a solver's); `None` where it is not.

    Attributes:
        psnr: dB, mean over the slices that hold brain.
        ssim: likewise.
        nrmse: likewise.
        data_misfit: root mean square of ``(y - A(x)) / noise_std``; about 1 where the image explains the measurement.
        volume_error: share of the truth's volume, by ``csf``, ``gm``, ``wm``; empty without a truth.
        volume_mm3: volumes, likewise.
        nfe: the denoiser's forward passes an image.
        nbackward: backward passes an image.
        start_sigma: median noise level at the start.
        seconds: duration.
    """

    psnr: float | None = None
    ssim: float | None = None
    nrmse: float | None = None
    data_misfit: float | None = None
    volume_error: dict[str, float] = field(default_factory=dict)
    volume_mm3: dict[str, float] = field(default_factory=dict)
    nfe: float | None = None
    nbackward: float | None = None
    start_sigma: float | None = None
    seconds: float | None = None

    @property
    def truth_mm3(self) -> dict[str, float]:
        """The truth's tissue volumes in mm3, as volume and error imply them; only where they do."""
        errors = {tissue: self.volume_error.get(tissue, math.nan) for tissue in self.volume_mm3}
        return {tissue: v / (1 + errors[tissue]) for tissue, v in self.volume_mm3.items() if errors[tissue] > -1}

    def to_json(self) -> dict[str, Any]:
        """The object of one stage in ``metrics.json``.

        Measures of the image are always there, null where unknown or not finite; those of a solver only where known.
        """
        values: dict[str, Any] = {name: _plain(getattr(self, name)) for name in ("psnr", "ssim", "nrmse", "data_misfit")}
        for key, name in VOLUME_KEYS.items():
            values[key] = {tissue: _plain(value) for tissue, value in getattr(self, name).items()}
        return values | {name: _plain(getattr(self, name)) for name in SOLVER_FIELDS if getattr(self, name) is not None}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "StageMetrics":
        """The inverse of `to_json`, as far as JSON holds the numbers; unknown keys are left out."""
        names = ("psnr", "ssim", "nrmse", "data_misfit", *SOLVER_FIELDS)
        known: dict[str, Any] = {name: None if values[name] is None else float(values[name]) for name in names if name in values}
        for key, name in VOLUME_KEYS.items():
            known[name] = {tissue: math.nan if v is None else float(v) for tissue, v in (values.get(key) or {}).items()}
        return cls(**known)


def _plain(value: float | None) -> float | None:
    """JSON knows neither infinity nor NaN."""
    return value if value is not None and math.isfinite(value) else None


def evaluate_volume(
    reconstruction: Volume,
    truth: Volume,
    scale: IntensityScale,
    measurement: Volume | None = None,
    operator: ScanOperator | None = None,
    *,
    truth_labels: NDArray[np.uint8] | None = None,
) -> StageMetrics:
    """Compare a volume with the truth, and with the measurement where there is one.

    Args:
        reconstruction: scanner units, on the truth's grid.
        truth: skull-stripped, scanner units; its brain mask serves both.
        scale: the truth's.
        measurement: scanner units, on the scanner's grid.
        operator: how the measurement came about; with it or not at all.
        truth_labels: `segment` of the truth inside its brain mask, where already known; saves half of the time.

    Raises:
        InputError: the grids differ, the measurement and the operator do not fit, values are not finite, or the truth shows no
            brain.
    """
    _check_grids(reconstruction, truth)
    if (measurement is None) != (operator is None):
        given, missing = ("an operator", "measurement") if measurement is None else ("a measurement", "operator")
        raise InputError(f"{given} is given without its {missing}; expected both for the data misfit; give the {missing} too or neither")
    mask = brain_mask(truth)
    brain = torch.from_numpy(mask.mean((0, 1)) >= MIN_BRAIN_SHARE)
    if not bool(brain.any()):
        raise InputError(f"no slice of the truth is {MIN_BRAIN_SHARE:.0%} brain; expected a skull-stripped brain; check the truth")
    x, t = to_slices(scale.apply(reconstruction).data)[brain], to_slices(scale.apply(truth).data)[brain]
    known = segment(truth.data, mask) if truth_labels is None else truth_labels
    volumes = tissue_volumes(segment(reconstruction.data, mask), truth.spacing)
    return StageMetrics(
        psnr=float(psnr(x, t).mean()),
        ssim=float(ssim(x, t).mean()),
        nrmse=float(nrmse(x, t).mean()),
        data_misfit=None if measurement is None or operator is None else data_misfit(reconstruction, measurement, operator, scale),
        volume_error=volume_errors(volumes, tissue_volumes(known, truth.spacing)),
        volume_mm3=volumes,
    )


@torch.inference_mode()
def data_misfit(reconstruction: Volume, measurement: Volume, operator: ScanOperator, scale: IntensityScale) -> float:
    """Root mean square of the residual over what counts, 1 where only noise is left; arguments and errors as `residual_map`."""
    term, x = _term(reconstruction, measurement, operator, scale)
    square = term.misfit(x).double().square() * term.measured_fraction
    return math.sqrt(float(square.mean() / term.measured_fraction.mean()))


@torch.inference_mode()
def residual_map(reconstruction: Volume, measurement: Volume, operator: ScanOperator, scale: IntensityScale) -> Volume:
    """``(y - A(x)) / noise_std`` on the scanner's grid; exactly 0 where a weight of 0 leaves a voxel out.

    Args:
        reconstruction: scanner units, image grid.
        measurement: scanner units, scanner's grid.
        operator: how it came about.
        scale: to image intensities, for both, where the operator records none.

    Raises:
        InputError: the operator measures the reconstruction's grid on another grid than the measurement's.
    """
    term, x = _term(reconstruction, measurement, operator, scale)
    residual = term.whitened(x)
    if operator.kspace is not None:
        return measurement.with_data(operator.kspace.residual_image(residual))
    return measurement.with_data(from_slices(residual))


def _term(reconstruction: Volume, measurement: Volume, operator: ScanOperator, scale: IntensityScale) -> tuple[DataTerm, Tensor]:
    """The measurement and the image, in image intensities."""
    expected = operator.operator.grid(native_grid(reconstruction)).shape
    if expected != measurement.shape:
        raise InputError(
            f"the measurement has shape {measurement.shape}; expected {expected} for this operator and an image of shape "
            f"{reconstruction.shape}; use the operator and the reconstruction of this scan"
        )
    used = scale if operator.intensity_scale is None else IntensityScale(operator.intensity_scale)
    x = to_slices(used.apply(reconstruction).data)
    return scan_term(measurement, operator, used.scale), x.movedim(0, 1)[None] if operator.couples_slices else x


def _check_grids(reconstruction: Volume, truth: Volume) -> None:
    if reconstruction.shape != truth.shape:
        raise InputError(
            f"the reconstruction has shape {reconstruction.shape}; expected the truth's, {truth.shape}; resample it to that grid"
        )
    apart = float(np.abs(reconstruction.affine - truth.affine).max())
    if apart > 1e-2:
        raise InputError(f"the affines of reconstruction and truth differ by up to {apart:.3g}; expected one grid; resample to the truth's")
    if min(truth.shape[:2]) < SSIM_WINDOW:
        size = " x ".join(str(n) for n in truth.shape[:2])
        raise InputError(f"the slices have {size} voxels; expected at least {SSIM_WINDOW} x {SSIM_WINDOW}; check the orientation")
    for name, volume in (("reconstruction", reconstruction), ("truth", truth)):
        if not np.isfinite(volume.data).all():
            raise InputError(f"the {name} holds values that are not finite; expected numbers everywhere; replace NaN and infinity first")
