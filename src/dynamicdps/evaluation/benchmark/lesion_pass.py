"""Lesions in a subject's slices, and what reconstructions keep of them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.evaluation.benchmark.cut import Cut
from dynamicdps.evaluation.benchmark.rows import LesionRow
from dynamicdps.evaluation.lesions import (
    EDGE_MM,
    LARGEST_MM,
    SMALLEST_MM,
    Lesion,
    contrast_kept,
    insert_lesion,
    lesion_contrast,
    place_lesions,
)
from dynamicdps.evaluation.resolvability import Resolvability, resolvable
from dynamicdps.operators import ScanOperator
from dynamicdps.volumes import from_slices, to_slices

CONTRASTS = (-0.2, 0.2)
# Slices that are no neighbours: so far apart that a lesion lies in one of them.
APART_MM = 1e4
ELONGATION = 1.25


@dataclass(frozen=True, eq=False)
class LesionedCut:
    """Slices with lesions.

    Attributes:
        cut: the slices, their truth with the lesions.
        healthy: their truth without, image intensities ``(x, y, slice)``.
        lesions: largest first.
    """

    cut: Cut
    healthy: NDArray[np.float32]
    lesions: list[Lesion]

    def resolvability(self, scanner: ScanOperator) -> list[Resolvability]:
        """Whether a measurement can show each lesion."""
        return [resolvable(lesion, scanner.operator, self.healthy, noise_std=scanner.noise.std) for lesion in self.lesions]


def insert_lesions(cut: Cut, count: int) -> LesionedCut:
    """Lesions of 3 to 15 mm in the white matter of a subject's slices, half of them darker, half brighter than it.

    Sizes, shapes and places depend on the subject, its slices and the number alone. In slices that are neighbours they are solid; other
    slices have discs of their own. Where white matter is narrow lesions shrink, and where it has no room for all there are fewer.

    Args:
        cut: the slices.
        count: lesions wanted, at least 1.
    """
    spacing = cut.spacing if cut.are_neighbours else (*cut.spacing[:2], APART_MM)
    healthy = from_slices(cut.truth)
    data, lesions = healthy, _place(cut, spacing, count)
    for lesion in lesions:
        data = insert_lesion(data, lesion)
    return LesionedCut(cut.with_truth(to_slices(data)), healthy, lesions)


def _place(cut: Cut, spacing: tuple[float, float, float], count: int) -> list[Lesion]:
    # Contrasts are taken in turn, the largest lesion first: it must not be dark in every subject.
    contrasts = CONTRASTS if cut.seed % 2 else CONTRASTS[::-1]
    sizes = SMALLEST_MM, LARGEST_MM
    for wanted in range(count, 0, -1):
        generator = np.random.default_rng(cut.seed)
        try:
            return place_lesions(
                cut.labels, spacing, generator, count=wanted, diameters_mm=sizes, contrasts=contrasts, elongation=ELONGATION
            )
        except InputError:
            continue
    return []


def check_room(slices: int, spacing: float) -> None:
    """Refuse stacks of neighbouring slices in which no lesion fits.

    Args:
        slices: how many.
        spacing: of their centres in mm.

    Raises:
        InputError: the smallest lesion is thicker than the stack.
    """
    # Of `place_lesions`: the middle slice's distance to the first one outside, against half of the smallest lesion with its edge.
    needed = ELONGATION * (SMALLEST_MM + EDGE_MM) / 2
    if slices > 1 and (slices + 1) // 2 * spacing < needed:
        least = 2 * math.ceil(needed / spacing) - 1
        raise InputError(
            f"a stack of {slices} neighbouring slices of {spacing:g} mm has no room for lesions; expected at least {least}; raise --slab "
            "or --slices-per-scan"
        )


def lesion_rows(image: Tensor, lesioned: LesionedCut, verdicts: list[Resolvability], condition: str, solver: str) -> list[LesionRow]:
    """What a reconstruction keeps of the lesions.

    Args:
        image: reconstruction of the measurement with lesions, ``(slices, 1, height, width)``.
        lesioned: the truth.
        verdicts: whether the measurement shows them, of `LesionedCut.resolvability`.
        condition: name of the condition.
        solver: of the solver.
    """
    shown, truth = from_slices(image), from_slices(lesioned.cut.truth)
    return [
        LesionRow(
            subject=lesioned.cut.subject,
            condition=condition,
            solver=solver,
            lesion=number,
            slice=lesioned.cut.numbers[round(lesion.centre[2])],
            diameter_mm=lesion.diameter_mm,
            contrast=lesion.contrast,
            truth_contrast=lesion_contrast(truth, lesion),
            shown_contrast=lesion_contrast(shown, lesion),
            kept=contrast_kept(shown, truth, lesion),
            snr=verdict.snr,
            measured=verdict.kept,
            resolvable=verdict.resolvable,
        )
        for number, (lesion, verdict) in enumerate(zip(lesioned.lesions, verdicts, strict=True), start=1)
    ]
