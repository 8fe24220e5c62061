"""Parameters of a scanner from the statistics of its scan: what a small network learned on simulated scans of other heads.

A forward model fitted to a conditional model's image inherits that image's errors: it is smoother than the truth, so that the
blur that explains the scan comes out too small, or the slice too thin. The statistics of the scan itself do not depend on any
reconstruction. What they say about the parameters is learned from scans simulated over ranges of parameters (simulation-based
inference with summary statistics; Cranmer, Brehmer and Louppe, PNAS 2020), with intervals made to hold on subjects that were held
out (split conformal prediction; Papadopoulos et al. 2002).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dynamicdps.calibration.scan_statistics import COUNT, ScanStatistics
from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import read_json
from dynamicdps.models import FOLDER

NAMES = ("gamma", "blur", "slice_thickness", "top")
KIND = "operator-fit"
HIDDEN = 96
LOG_STD = (-4.0, 2.0)
MAX_MEMBERS = 64
_CLIP = 6.0  # standard deviations beyond which an input says no more
_UNUSUAL = 5.0  # rms of standardised inputs of a scan of the range is about 1


@dataclass(frozen=True)
class ParameterEstimate:
    """What the statistics say.

    Attributes:
        mean: by name: `gamma`; `blur` in mm; `slice_thickness` in mm; `top`, the image intensity that the contrast sends to the
            measurement's 99th percentile, as measurement in units of the image range.
        std: standard deviations; of `gamma` and `top` of their logarithms.
        intervals: 95 %, by name.
        unusual: rms of the standardised statistics; about 1 for scans like those of the training.
    """

    mean: dict[str, float]
    std: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    unusual: float

    @property
    def is_unusual(self) -> bool:
        """Whether the scan is unlike those that the estimator was trained on."""
        return self.unusual > _UNUSUAL


class EstimatorNetwork(nn.Module):
    """A few small perceptrons, each with a mean and a logarithm of the standard deviation for every parameter."""

    def __init__(self, members: int = 3) -> None:
        super().__init__()
        self.members = nn.ModuleList(_perceptron() for _ in range(members))
        for name, size in (("centre", COUNT), ("spread", COUNT), ("target_centre", len(NAMES)), ("target_spread", len(NAMES))):
            self.register_buffer(name, torch.zeros(size) if "centre" in name else torch.ones(size))

    centre: Tensor
    spread: Tensor
    target_centre: Tensor
    target_spread: Tensor

    def inputs(self, statistics: Tensor) -> Tensor:
        """``(batch, COUNT)`` to ``(batch, 2 COUNT)``: standardised, 0 and a flag where not a number."""
        missing = torch.isnan(statistics)
        standard = ((statistics - self.centre) / self.spread).nan_to_num(0.0).clamp(-_CLIP, _CLIP)
        return torch.cat([standard, missing.to(standard)], 1)

    def forward(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each target, ``(batch, 4)``, over the mixture of the members."""
        outputs = torch.stack([member(self.inputs(statistics)) for member in self.members])
        mean, log_std = outputs.chunk(2, -1)
        variance = (2 * log_std.clamp(*LOG_STD)).exp().mean(0) + mean.var(0, correction=0)
        return self.target_centre + self.target_spread * mean.mean(0), self.target_spread * variance.sqrt()


def _perceptron() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * COUNT, HIDDEN),
        nn.SiLU(),
        nn.Dropout(0.1),
        nn.Linear(HIDDEN, HIDDEN),
        nn.SiLU(),
        nn.Dropout(0.1),
        nn.Linear(HIDDEN, 2 * len(NAMES)),
    )


@dataclass(frozen=True)
class ContrastWeight:
    """How an exponent that least squares found on an initial image is weighed against the statistics' one.

    ``log gamma = (1 - weight) * statistics + weight * least squares + offset``: the combination of lowest variance on held-out heads.

    Attributes:
        weight: of least squares.
        offset: what both have in common.
        std: standard deviation of the least squares' error in ``log gamma``.
        stretch: factor on the combined standard deviation that makes a 95 % interval.
    """

    weight: float = 0.0
    offset: float = 0.0
    std: float = 1.0
    stretch: float = 2.0


@dataclass(frozen=True, eq=False)
class ParameterEstimator:
    """The network with its intervals and its ranges.

    Attributes:
        network: in evaluation mode.
        stretch: factor on each standard deviation that makes a 95 % interval, by name.
        noise_ratio: 95 % of measured noise levels are that much of the true one: lowest and highest ratio.
        contrast: what an initial image adds.
        ranges: what the training covered, by parameter.
        card: all of the model card.
    """

    network: EstimatorNetwork
    stretch: Mapping[str, float]
    noise_ratio: tuple[float, float]
    contrast: ContrastWeight
    ranges: Mapping[str, Sequence[float]]
    card: Mapping[str, Any]

    @torch.inference_mode()
    def __call__(self, statistics: ScanStatistics) -> ParameterEstimate:
        """Estimate the parameters of a scan."""
        values = torch.from_numpy(statistics.values).float()[None]
        mean, std = (t[0].tolist() for t in self.network(values))
        standard = self.network.inputs(values)[0, :COUNT]
        present = ~torch.isnan(values[0])
        found, intervals = {}, {}
        for name, m, s in zip(NAMES, mean, std, strict=True):
            low, high = m - self.stretch[name] * s, m + self.stretch[name] * s
            if name in ("gamma", "top"):
                m, low, high = math.exp(m), math.exp(low), math.exp(high)
            found[name], intervals[name] = max(m, 0.0), (max(low, 0.0), max(high, 0.0))
        return ParameterEstimate(
            found,
            dict(zip(NAMES, std, strict=True)),
            intervals,
            float(standard[present].square().mean().sqrt()) if bool(present.any()) else 0.0,
        )

    def weigh_contrast(self, estimate: ParameterEstimate, gamma: float) -> ParameterEstimate:
        """The estimate with its contrast improved by the exponent that leads from an initial image to the scan.

        Args:
            estimate: of the scan's statistics.
            gamma: found by least squares, greater than 0.
        """
        with_image = self.contrast
        centre = (1 - with_image.weight) * math.log(estimate.mean["gamma"]) + with_image.weight * math.log(gamma) + with_image.offset
        std = math.hypot((1 - with_image.weight) * estimate.std["gamma"], with_image.weight * with_image.std)
        half = with_image.stretch * std
        interval = math.exp(centre - half), math.exp(centre + half)
        return replace(
            estimate,
            mean=estimate.mean | {"gamma": math.exp(centre)},
            std=estimate.std | {"gamma": std},
            intervals=estimate.intervals | {"gamma": interval},
        )


def targets(gamma: float, blur: float, slice_thickness: float, top: float) -> NDArray[np.float64]:
    """What the network predicts, in the order of `NAMES`."""
    return np.array([math.log(gamma), blur, slice_thickness, math.log(top)])


def load_estimator(path: str | Path | None = None) -> ParameterEstimator:
    """The bundled estimator, or one from its file.

    Raises:
        InputError: a file is missing, damaged, or of another kind.
    """
    place = FOLDER / f"{KIND}.safetensors" if path is None else Path(path)
    card_path = place.with_suffix(".json")
    try:
        card = read_json(card_path)
        if card["kind"] != KIND or card["sha256"] != hashlib.sha256(place.read_bytes()).hexdigest():
            raise ValueError("another kind or hash")
        members = int(card["members"])
        if not 1 <= members <= MAX_MEMBERS:
            raise ValueError(f"{members} members")
        network = EstimatorNetwork(members)
        network.load_state_dict({name: value.float() for name, value in load_file(place).items()})
        if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
            raise ValueError("weights that are not finite")
        stretch = {name: float(card["stretch"][name]) for name in NAMES}
        lowest, highest = map(float, card["noise_ratio"])
        contrast = ContrastWeight(**{name: float(value) for name, value in card["contrast"].items()})
        ranges = {name: tuple(map(float, limits)) for name, limits in card["ranges"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{place} cannot be read as an estimator of operators ({reason_of(error)}); expected weights with their card {card_path.name} "
            "beside them; make them with `dynamicdps train operator-fit`"
        ) from error
    return ParameterEstimator(network.eval().requires_grad_(False), stretch, (lowest, highest), contrast, ranges, card)
