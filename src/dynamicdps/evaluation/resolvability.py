"""Whether a measurement can show a lesion: what may be asked of a reconstruction."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.evaluation.lesions import Lesion, check_shape, contrast_kept
from dynamicdps.evaluation.null_space import null_space_split
from dynamicdps.operators import Operator

ROSE = 5.0
KEPT = 0.5


@dataclass(frozen=True)
class Resolvability:
    """Whether a measurement can show a lesion.

    Attributes:
        snr: of the matched filter, ``|A'(lesion)| / noise_std``: what an observer could reach who knows the lesion and all else.
        kept: share of the lesion's contrast that survives the measurement, by the part ``A^+ A`` outside of the null space.
        resolvable: both are above their thresholds.
    """

    snr: float
    kept: float
    resolvable: bool


def resolvable(
    lesion: Lesion, operator: Operator, image: NDArray[Any], *, noise_std: float, snr: float = ROSE, kept: float = KEPT
) -> Resolvability:
    """Whether a lesion can be asked of a reconstruction, decided by the operator alone.

    A lesion must be detectable: the signal-to-noise ratio of its change of the measurement is at least 5 (Rose 1948). And it must keep
    its contrast: a small spot may be detected and yet be smeared so much that how bright and how wide it is remains for the prior to
    guess. A direction counts as null space here (`null_space_split`) where even all of the lesion's energy in it would not reach the least
    signal-to-noise ratio. A reconstruction that loses a resolvable lesion is at fault; of another one nothing can be asked.

    Args:
        lesion: of `make_lesion` or `place_lesions`.
        operator: of the measurement.
        image: where the operator is linearised, image intensities ``(x, y, z)``: the truth without the lesion.
        noise_std: standard deviation of the measurement's noise, image intensities.
        snr: least signal-to-noise ratio, at least 0.
        kept: least share of the contrast.

    Raises:
        InputError: the shapes differ, a threshold is below 0, or the operator has no linear part.
    """
    check_shape(image, lesion)
    if not (snr >= 0 and kept >= 0):
        raise InputError(f"the thresholds are {snr} and {kept}; expected numbers of at least 0; change them")
    x, alone = (_as_volume(values) for values in (image, lesion.contrast * lesion.mask))
    change = operator.linearise(x).jvp(alone)
    ratio = float(change.norm()) / noise_std
    signal = float(alone.norm()) / snr if snr > 0 else math.inf
    measured = null_space_split(operator, alone, noise_std=noise_std, signal=signal).measurement[0, 0].numpy().transpose(2, 1, 0)
    share = contrast_kept(measured, lesion.contrast * lesion.mask, lesion)
    return Resolvability(ratio, share, ratio >= snr and share >= kept)


def _as_volume(data: NDArray[Any]) -> torch.Tensor:
    """``(x, y, z)`` as ``(1, 1, z, y, x)``, float64."""
    return torch.from_numpy(np.ascontiguousarray(data.transpose(2, 1, 0), dtype=np.float64))[None, None]
