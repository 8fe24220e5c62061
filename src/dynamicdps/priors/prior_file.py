"""A prior from its model file, with the domain that its card describes."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dynamicdps.errors import InputError, reason_of
from dynamicdps.models.model_cache import held
from dynamicdps.models.model_file import ModelFile, read_model
from dynamicdps.networks import NeighbourUNet, SliceUNet
from dynamicdps.priors.denoiser import NetworkDenoiser
from dynamicdps.priors.prior import AXES, Domain, NeighbourPrior, Prior, SlicePrior
from dynamicdps.volumes.contrast import CONTRASTS


@held
def load_prior(
    name: str | Path = "brain", device: str = "cpu", precision: torch.dtype = torch.float32, contrast: str | None = None
) -> Prior:
    """The prior by its name or file, ready to denoise; its domain is what the model card says of the contrast.

    Args:
        name: of a bundled or added prior, or its file.
        device: where it computes.
        precision: type in which its network computes.
        contrast: BIDS suffix of the images, or ``"unknown"``; by default the one that the card names first.

    Raises:
        InputError: as `read_model`; the card's numbers are damaged; or the prior was not trained on the contrast.
    """
    model = read_model(name, "prior")
    domain = _domain(model, contrast)
    try:
        data_mean, data_std = float(model.card["data_mean"]), float(model.card["data_std"])
        if not (math.isfinite(data_mean) and 0 < data_std < math.inf):
            raise ValueError(f"data_mean {data_mean}, data_std {data_std}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"the model card of {model.path} is not a prior's; expected that of its training; copy both again") from error
    values = model.card.get("network")
    if isinstance(values, dict) and "slices_in" in values:
        windows = model.build(NeighbourUNet.from_json).to(device)
        return NeighbourPrior(windows, data_mean, data_std, domain, precision)
    slices = NetworkDenoiser(model.build(SliceUNet.from_json), data_mean, data_std, precision, domain.errors).to(device).eval()
    return SlicePrior(slices, domain)


def known_contrasts(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Contrasts that a model was trained on, by its card, the usual one first; empty where the card says that it knows any, or nothing."""
    words = str(card.get("contrast", ""))
    if re.search(r"\bany\b", words, re.IGNORECASE):
        return ()
    own = card.get("contrasts", {})
    named = [name for name in CONTRASTS[1:] if re.search(rf"\b{name}\b", words, re.IGNORECASE)]
    names = [str(card["suffix"])] if "suffix" in card else named
    return tuple(name for name in dict.fromkeys([*names, *(own if isinstance(own, dict) else ())]) if name != "unknown")


def _domain(model: ModelFile, contrast: str | None = None) -> Domain:
    """Where a prior holds, by its card; what an older card does not say is that of a T1w brain.

    Raises:
        InputError: a number is damaged, or the prior does not know the contrast.
    """
    known = known_contrasts(model.card)
    suffix = str(model.card.get("suffix", known[0] if known else "T1w")) if contrast is None else contrast
    if suffix != "unknown" and known and suffix not in known:
        raise InputError(
            f"the prior {model.name} was trained on {' and '.join(known)} scans, not on {suffix}; expected a prior of the scan's contrast; "
            "train or add one, or give --contrast if the scan's is another"
        )
    # What a card says of a contrast goes before what it says of the usual one.
    others = model.card.get("contrasts", {})
    own = others.get(suffix, {}) if isinstance(others, dict) else None
    if not isinstance(own, dict):
        raise InputError(f"the model card of {model.path} is damaged (contrasts); expected that of its training; copy both again")
    card = model.card | own
    model = replace(model, card=card)
    errors = _denoising_errors(model)
    try:
        spacing = tuple(float(s) for s in card.get("spacing_mm", (1.0, 1.0, 1.0)))
        alike = tuple(float(c) for c in card.get("error_correlation", (1.0,)))
        start, start_of_slices = (dict(card.get(name, {})) for name in ("start_level", "start_level_of_slices"))
        planes = tuple(str(p) for p in card.get("planes", ("axial",)))
        if not planes or not set(planes) <= set(AXES):
            raise ValueError(f"planes {planes}")
        if len(spacing) != 3 or not 0 < min(spacing) <= max(spacing) < math.inf:
            raise ValueError(f"spacing_mm {spacing}")
        if not alike or alike[0] != 1 or not -1 <= min(alike) <= max(alike) <= 1:
            raise ValueError(f"error_correlation {alike}")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the model card of {model.path} is damaged ({reason_of(error)}); expected that of its training; copy both again"
        ) from error
    return Domain(
        contrast=str(card.get("contrast", "")),
        suffix=suffix,
        spacing=(spacing[0], spacing[1], spacing[2]),
        planes=planes,
        errors=errors,
        error_correlation=alike,
        start_level=start,
        start_level_of_slices=start_of_slices,
    )


def _denoising_errors(model: ModelFile) -> dict[float, float]:
    """The card's error at each noise level; none where it has no table.

    Raises:
        InputError: a level or an error is no positive finite number, or a level is there twice.
    """
    table = model.card.get("denoising_rmse", {})
    try:
        errors = {float(level): float(error) for level, error in table.items()}
        if len(errors) < len(table) or any(isinstance(error, bool | str) for error in table.values()):
            raise ValueError("a level twice, or an error that is no number")
        if not all(0 < number < math.inf for pair in errors.items() for number in pair):
            raise ValueError("a number that is not positive")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"denoising_rmse in the model card {model.path.with_suffix('.json')} is {repr(table)[:100]}; expected a positive error at each "
            "positive noise level; copy both again"
        ) from error
    return errors
