"""Expected error without a truth: an uncertainty map scaled so that it holds for new subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError

FLOOR = 0.005


def error_heuristic(spread: NDArray[Any], restart_difference: NDArray[Any] | None = None, floor: float = FLOOR) -> NDArray[np.float64]:
    """A guess of each voxel's error, up to a factor: spread, floor and how much the start level matters.

    Args:
        spread: standard deviation over posterior samples, any shape, image intensities.
        restart_difference: difference of two reconstructions that started at different levels, the same shape.
        floor: keeps voxels in which all samples agree from being sure, greater than 0.

    Returns:
        ``spread + floor + |restart_difference|``, greater than 0.

    Raises:
        InputError: the floor is not greater than 0.
    """
    if not floor > 0:
        raise InputError(f"the floor is {floor}; expected a number greater than 0")
    guess = np.asarray(spread, dtype=np.float64) + floor
    return guess if restart_difference is None else guess + np.abs(restart_difference)


@dataclass(frozen=True)
class ConformalErrorMap:
    """A scale on an uncertainty heuristic, calibrated over subjects.

    Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024, theorem 1). The loss of a subject is the share of
    its brain voxels whose error is larger than ``factor * heuristic``; it falls as the factor grows and is at most 1. The factor is the
    smallest with ``(n mean(loss) + 1) / (n + 1) <= 1 - coverage`` over n calibration subjects.

    The guarantee: for a new subject that is exchangeable with them, the expected share of covered voxels is at least `coverage`,
    and at most ``2 / (n + 1)`` more where losses have no jumps. It is an average over subjects and voxels: a single subject, or a region
    such as a lesion, may be covered less. It needs the same population, scanner, operator, solver and heuristic.

    With `most_lost` b below 1 no subject counts as losing more than that share, and b stands for the 1 in the rule: few subjects then
    give less cautious intervals, and the guarantee is of that capped loss. A subject on whom everything fails is not what it is about.

    Attributes:
        factor: half-width of the interval over the heuristic.
        coverage: share of voxels, between 0 and 1.
        subjects: of the calibration.
        most_lost: what a subject's loss counts at most.
    """

    factor: float
    coverage: float
    subjects: int
    most_lost: float = 1.0

    @classmethod
    def fit(
        cls,
        errors_by_subject: Sequence[NDArray[Any]],
        heuristics_by_subject: Sequence[NDArray[Any]],
        coverage: float = 0.9,
        most_lost: float = 1.0,
    ) -> "ConformalErrorMap":
        """Calibrate.

        Args:
            errors_by_subject: each subject's reconstruction less its truth in its brain's voxels, any shape. A random part of the
                voxels will do.
            heuristics_by_subject: `error_heuristic` in the same voxels, greater than 0.
            coverage: share of voxels, between 0 and 1; n subjects allow at most ``1 - most_lost / (n + 1)``.
            most_lost: what a subject's loss counts at most, above ``1 - coverage`` and up to 1.

        Raises:
            InputError: subjects are too few, or errors and heuristics do not fit each other or are out of range.
        """
        n = len(errors_by_subject)
        if not 0 < coverage < 1 or not 1 - coverage < most_lost <= 1:
            raise InputError(
                f"the coverage is {coverage} and the most that is lost {most_lost}; expected a coverage between 0 and 1 and at most 1, but "
                f"more than the rest of the coverage, to be lost; change them"
            )
        allowed = ((n + 1) * (1 - coverage) - most_lost) / max(n, 1)
        if allowed < -1e-9:
            needed = int(np.ceil(most_lost / (1 - coverage) - 1 - 1e-9))
            raise InputError(
                f"there are {n} subjects for a coverage of {coverage}; expected at least {needed} subjects; change one of them"
            )
        if len(heuristics_by_subject) != n:
            raise InputError(f"there are {n} subjects' errors and {len(heuristics_by_subject)} heuristics; expected pairs; give both")
        ratios = []
        for number, (error, heuristic) in enumerate(zip(errors_by_subject, heuristics_by_subject, strict=True)):
            if error.shape != heuristic.shape or error.size == 0 or not (np.isfinite(error).all() and (heuristic > 0).all()):
                raise InputError(
                    f"subject {number} has errors of shape {error.shape} and heuristics of shape {heuristic.shape}; expected one shape, "
                    "finite errors and heuristics greater than 0; give its brain's voxels"
                )
            ratios.append(np.sort((np.abs(error) / heuristic).ravel()))

        def loss(factor: float) -> float:
            """Mean over subjects of the capped share of voxels with a larger ratio."""
            return float(np.mean([min(1 - np.searchsorted(r, factor, side="right") / r.size, most_lost) for r in ratios]))

        # The smallest ratio that is a factor good enough: the loss only falls, so that bisection finds it.
        candidates = np.unique(np.concatenate(ratios))
        low, high = 0, len(candidates) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if loss(candidates[middle]) <= allowed + 1e-12 else (middle + 1, high)
        return cls(float(candidates[low]), coverage, n, most_lost)

    def apply(self, heuristic: NDArray[Any]) -> NDArray[np.float64]:
        """Half-width of each voxel's interval: the error is expected to be no larger, in the stated share of brain voxels."""
        return self.factor * np.asarray(heuristic, dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """The calibration as plain values."""
        return {"type": "ConformalErrorMap", **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ConformalErrorMap":
        """The inverse of `to_json`.

        Raises:
            InputError: the values are something else.
        """
        try:
            most_lost = float(values.get("most_lost", 1.0))
            found = cls(float(values["factor"]), float(values["coverage"]), int(values["subjects"]), most_lost)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the calibration has {', '.join(values) or 'no values'}; expected factor, coverage and subjects; calibrate again"
            ) from error
        if not (found.factor >= 0 and 0 < found.coverage < 1 and found.subjects >= 1 and 0 < found.most_lost <= 1):
            raise InputError(f"the calibration is {found}; expected a factor of at least 0 and a coverage below 1; calibrate again")
        return found


def covered_share(error: NDArray[Any], half_width: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> float:
    """Share of brain voxels whose error is within the interval; NaN where the mask is empty."""
    held = np.abs(error) <= half_width
    inside = held if mask is None else held[mask]
    return float(inside.mean()) if inside.size else float("nan")
