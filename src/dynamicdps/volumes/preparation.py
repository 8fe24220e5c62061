"""From a scan to what a reconstruction needs: brain, shading, intensity scale and place, each found without touching the scan."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.alignment import align_to_template
from dynamicdps.volumes.bias_estimate import BiasEstimate, estimate_bias
from dynamicdps.volumes.brain_extraction import BrainMask, extract_brain
from dynamicdps.volumes.intensity import PERCENTILE_VALUE, IntensityScale
from dynamicdps.volumes.volume import Volume


@dataclass(frozen=True)
class PreparationConfig:
    """What to do.

    Attributes:
        mask: ``"auto"``, ``"deepbet"``, ``"classical"``, ``"none"`` (skull-stripped) or a mask file; see `extract_brain`.
        mask_edge_mm: over how many mm outside the brain the mask falls to 0, 0 to 50.
        bias: estimate the shading.
        bias_order: total degree of its polynomial, 1 to 6.
        intensity_value: image intensity of the brain's 99th percentile, more than 0; for a measurement what the contrast makes of 0.95.
        align: find the rigid movement to the template.

    Raises:
        InputError: a number is out of its range.
    """

    mask: str = "auto"
    mask_edge_mm: float = 4.0
    bias: bool = True
    bias_order: int = 3
    intensity_value: float = PERCENTILE_VALUE
    align: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.mask_edge_mm <= 50:
            raise InputError(f"the mask's edge is {self.mask_edge_mm!r} mm; expected 0 to 50 mm; change it")
        if not 1 <= self.bias_order <= 6:
            raise InputError(f"the order of the bias field is {self.bias_order!r}; expected 1 to 6; change it")
        if not 0 < self.intensity_value <= 10:
            raise InputError(f"the intensity value is {self.intensity_value!r}; expected more than 0 and at most 10; change it")


@dataclass(frozen=True)
class Step:
    """One step of the preparation.

    Attributes:
        name: ``mask``, ``bias``, ``intensity`` or ``align``.
        parameters: what was asked for.
        found: what came out.
        warnings: what to check, one sentence each.
    """

    name: str
    parameters: dict[str, Any]
    found: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Prepared:
    """A scan and what was found out about it.

    Attributes:
        volume: the measurement as it was read, on its own grid.
        mask: brain, 0 to 1, on that grid.
        bias: shading, or `None`; a factor of the forward model, or what the scan is divided by.
        scale: to image intensities, from the brain without its shading.
        scan_to_template: ``(4, 4)`` in mm, or `None`; see `align_to_template`.
        log: the steps in their order.
    """

    volume: Volume
    mask: Volume
    bias: BiasEstimate | None
    scale: IntensityScale
    scan_to_template: NDArray[np.float64] | None
    log: list[Step]

    @property
    def corrected(self) -> Volume:
        """The scan divided by its shading."""
        return self.volume if self.bias is None else self.bias.correct(self.volume)

    @property
    def warnings(self) -> list[str]:
        return [warning for step in self.log for warning in step.warnings]


def prepare(volume: Volume, config: PreparationConfig | None = None) -> Prepared:
    """Find brain, shading, intensity scale and place, in this order, each from what the steps before it found.

    Args:
        volume: the scan.
        config: what to do; by default all but the alignment.

    Raises:
        InputError: as the steps; their messages say which option leaves the step out.
    """
    config = config or PreparationConfig()
    log = []
    brain = extract_brain(volume, config.mask)
    log.append(_mask_step(brain, volume, config))
    mask = brain.soft(volume, config.mask_edge_mm)
    bias = None
    if config.bias:
        bias = estimate_bias(volume, brain.inside, config.bias_order)
        log.append(_bias_step(bias, config))
    corrected = volume if bias is None else bias.correct(volume)
    scale = IntensityScale.robust(corrected.data, mask.data, config.intensity_value)
    log.append(Step("intensity", {"percentile_value": config.intensity_value}, {"scale": scale.scale}))
    movement = None
    if config.align:
        movement = align_to_template(corrected, mask)
        log.append(_align_step(movement))
    return Prepared(volume, mask, bias, scale, movement, log)


def _mask_step(brain: BrainMask, volume: Volume, config: PreparationConfig) -> Step:
    found = {"method": brain.method, "brain_ml": round(brain.millilitres(volume), 1)}
    return Step("mask", {"mask": config.mask, "edge_mm": config.mask_edge_mm}, found, brain.warnings)


def _bias_step(bias: BiasEstimate, config: PreparationConfig) -> Step:
    found = {
        "method": "polynomial",
        "range": [round(v, 4) for v in bias.range],
        "iterations": bias.iterations,
        "coefficients": np.round(bias.coefficients, 6).tolist(),
    }
    low, high = bias.range
    warnings = [f"the shading spans {low:.2f} to {high:.2f}; look at it before you trust it"] if high > 3 * low else []
    return Step("bias", {"order": config.bias_order}, found, warnings)


def _align_step(movement: NDArray[np.float64]) -> Step:
    turn = float(np.degrees(np.arccos(np.clip((np.trace(movement[:3, :3]) - 1) / 2, -1, 1))))
    found = {"rotation_deg": round(turn, 2), "scan_to_template": np.round(movement, 6).tolist()}
    return Step("align", {"template": "ICBM 152, 2009a nonlinear symmetric"}, found)
