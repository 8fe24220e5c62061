"""What is reconstructed from what: conditional models on degradations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from dynamicdps.conditional import CONDITIONAL_KINDS, load_conditional
from dynamicdps.errors import InputError
from dynamicdps.models.model_file import read_model
from dynamicdps.operators import LowField, Operator, ScanOperator, to_image_grid
from dynamicdps.operators.presets import choose_degradation

SHORT_NAMES = {"unet": "unet-iqt-in", "esrgan": "esrgan-iqt-in"}
IDENTITY = "identity"
# Of `LowField`, what a range of training degradations leaves at its default.
_FIXED = {"slice_spacing": None, "slice_profile": "gaussian", "noise": "gaussian"}


class InitialModel(Protocol):
    """What gives the initial image of a measurement; see `dynamicdps.conditional.InitialModel.enhance`."""

    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int]) -> Tensor: ...


class Interpolation:
    """No model: the measurement interpolated on the image grid, its contrast not undone."""

    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int]) -> Tensor:
        """``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``, not below 0."""
        return to_image_grid(y, operator, shape).clamp_min(0)


@dataclass(frozen=True)
class Condition:
    """A conditional model on a degradation.

    Attributes:
        name: ``MODEL/DEGRADATION``.
        model: gives the initial image.
        scanner: the degradation.
        training: whether the model was trained for it: ``in``, ``out``, ``in range`` (of many degradations drawn at random),
            ``untrained`` (no model) or ``unknown``.
        model_hash: SHA-256 of the model's weights; empty where there are none.
    """

    name: str
    model: InitialModel
    scanner: ScanOperator
    training: str = "unknown"
    model_hash: str = ""

    def to_json(self) -> dict[str, Any]:
        """All that makes it this condition."""
        return {"training": self.training, "model": self.model_hash, "operator": self.scanner.to_json()}


def find_condition(name: str, degradations: Mapping[str, ScanOperator]) -> Condition:
    """A condition by its name.

    Args:
        name: ``MODEL/DEGRADATION``; MODEL is a bundled conditional model, ``unet`` or ``esrgan`` for those trained for iqt-in, a file that
            ends in ``.safetensors``, or ``identity`` for the interpolated measurement.
        degradations: scanners by name.

    Raises:
        InputError: the name is not of that form, or its model or degradation does not exist.
    """
    model, slash, degradation = name.rpartition("/")
    if not slash or not model:
        raise InputError(f"the condition {name!r} has no model; expected MODEL/DEGRADATION such as unet/iqt-out; change --conditions")
    scanner = choose_degradation(degradation, degradations)
    if model == IDENTITY:
        return Condition(name, Interpolation(), scanner, "untrained")
    chosen = SHORT_NAMES.get(model, model)
    card = read_model(chosen, CONDITIONAL_KINDS).card
    return Condition(name, load_conditional(chosen), scanner, training_match(card, scanner), str(card["sha256"]))


def training_match(card: Mapping[str, Any], scanner: ScanOperator) -> str:
    """Whether a conditional model was trained for a degradation, by its model card: ``in``, ``out``, ``in range`` or ``unknown``."""
    trained = card.get("degradation_parameters")
    if not isinstance(trained, Mapping):
        return "unknown"
    try:
        if "type" in trained:
            return "in" if ScanOperator.from_json(trained).to_json() == scanner.to_json() else "out"
        return "in range" if isinstance(scanner.operator, LowField) and _inside(scanner.to_json(), trained) else "out"
    except (InputError, TypeError, ValueError):
        return "unknown"


def _inside(values: Mapping[str, Any], limits: Mapping[str, Sequence[float]]) -> bool:
    """Whether each parameter of a `LowField` and its noise is between the smallest and the largest value that training drew."""
    if any(values[name] != value for name, value in _FIXED.items()):
        return False
    # A range draws slices of one voxel's thickness in place of none.
    own = {**values, "slice_thickness": values["slice_thickness"] or values["image_spacing"]}
    return all(min(limits[name]) <= own[name] <= max(limits[name]) for name in limits)
