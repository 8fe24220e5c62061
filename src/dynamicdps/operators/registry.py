"""Operators by the name of their type, as files have them."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from dynamicdps.errors import InputError, reason_of
from dynamicdps.operators.bias_field import BiasField
from dynamicdps.operators.blur import AnisotropicBlur, MotionBlur
from dynamicdps.operators.contrast_operator import Contrast
from dynamicdps.operators.identity import Identity
from dynamicdps.operators.inpainting import Inpainting
from dynamicdps.operators.kspace import KSpace
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.operator import Composition, Operator
from dynamicdps.operators.resample import AffineResample, InPlaneResolution
from dynamicdps.operators.slice_motion import SliceMotion
from dynamicdps.operators.slice_profile import SliceProfile
from dynamicdps.operators.swap_slice_axis import SwapSliceAxis
from dynamicdps.operators.weighting import Weighting

# What files hold beside an operator's parameters: a remark, the noise, what ties it to a scan, and what a fit says of it.
NOISE = {"noise_std", "noise"}
BESIDE = NOISE | {"about", "image_shape", "image_affine", "intensity_scale", "intervals", "warnings", "known", "correlations"}

_OPERATORS: dict[str, type[Operator]] = {
    kind.__name__: kind
    for kind in (
        AffineResample,
        AnisotropicBlur,
        BiasField,
        Composition,
        Contrast,
        Identity,
        InPlaneResolution,
        Inpainting,
        KSpace,
        LowField,
        MotionBlur,
        SliceMotion,
        SliceProfile,
        SwapSliceAxis,
        Weighting,
    )
}


# Names that files of earlier versions have.
_FORMER = {"Turned": "SwapSliceAxis"}


def register_operator(kind: type[Operator]) -> type[Operator]:
    """Make a type of operator known to files under its name; usable as a decorator above ``@dataclass``.

    Raises:
        ValueError: the name is taken.
    """
    if kind.__name__ in _OPERATORS:
        raise ValueError(f"there is an operator {kind.__name__!r} already; expected a new name")
    _OPERATORS[kind.__name__] = kind
    return kind


def operator_types() -> list[str]:
    """Names of all types."""
    return sorted(_OPERATORS)


def operator_from_json(values: Any, source: str = "the JSON") -> Operator:
    """An operator from what its `to_json` gives.

    Args:
        values: an object with ``"type"`` and the parameters; of other entries only those of `BESIDE`: a misspelt parameter would be
            another scanner.
        source: where it comes from, for messages.

    Raises:
        InputError: it does not describe an operator, or a parameter is wrong.
    """
    kind = values.get("type") if isinstance(values, Mapping) else None
    kind = _FORMER.get(kind, kind) if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in _OPERATORS:
        raise InputError(
            f'{source} does not describe an operator; expected a JSON object with "type": "LowField" or another of '
            f"{', '.join(operator_types())}; see docs/operators.md"
        )
    try:
        if kind == "Composition":
            parts = values["operators"]
            if not isinstance(parts, list):
                raise TypeError("operators is not a list")
            found: Operator = Composition(tuple(operator_from_json(part, source) for part in parts))
        elif kind == "SwapSliceAxis":
            found = SwapSliceAxis(operator_from_json(values["inner"], source), int(values["axis"]))
        else:
            found = _OPERATORS[kind].from_json(values)
        known = sorted((set(found.to_json()) | NOISE) - {"type"})
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise InputError(
            f"{source} cannot be read as an operator ({reason_of(error)}); expected JSON as `simulate` writes it; see docs/operators.md"
        ) from error
    unknown = sorted(set(values) - {"type", *known} - BESIDE)
    if unknown:
        near = get_close_matches(unknown[0], known, 1)
        raise InputError(
            f"{source} has {', '.join(map(repr, unknown))}; expected of {kind} only {', '.join(known)}; "
            + (f"did you mean {near[0]!r}?" if near else "correct it")
        )
    return found
