"""One subject under one condition: the measurement that all solvers start from, and what comes of each."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation.benchmark.conditions import Condition
from dynamicdps.evaluation.benchmark.cut import Cut, Subject
from dynamicdps.evaluation.benchmark.lesion_pass import LesionedCut, check_room, insert_lesions, lesion_rows
from dynamicdps.evaluation.benchmark.measures import fidelity_rows, hallucination_row, truth_row, volume_row
from dynamicdps.evaluation.benchmark.rows import TRUTH, CellKey, Results
from dynamicdps.evaluation.resolvability import Resolvability
from dynamicdps.operators import to_image_grid
from dynamicdps.priors import Denoiser
from dynamicdps.solvers import Reconstruction, solve_tensors

MEASUREMENT = "measurement"


@dataclass(frozen=True, eq=False)
class Cell:
    """What came of one subject, condition and solver.

    Attributes:
        key: the three names.
        results: its rows.
        pictures: the middle slice ``(height, width)`` of the truth, the interpolated ``measurement`` and the solver's image, by name.
    """

    key: CellKey
    results: Results
    pictures: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Truths:
    """The slices of a subject, and the same with lesions where those are wanted."""

    plain: Cut
    lesioned: LesionedCut | None

    @classmethod
    def of(cls, subject: Subject, numbers: list[int], lesions: int) -> "Truths":
        cut = subject.cut(numbers)
        if lesions == 0:
            return cls(cut, None)
        if cut.are_neighbours:
            check_room(len(numbers), cut.spacing[2])
        found = insert_lesions(cut, lesions)
        return cls(cut, found if found.lesions else None)


@dataclass(frozen=True, eq=False)
class Scene:
    """What all solvers of a subject and condition start from."""

    condition: Condition
    cut: Cut
    y: Tensor
    initial: Tensor
    lesions: "_LesionScene | None"

    @classmethod
    def of(cls, condition: Condition, truths: Truths) -> "Scene":
        """Measure, and run the conditional model."""
        y, initial = _measured(condition, truths.plain)
        lesioned = truths.lesioned
        if lesioned is None:
            return cls(condition, truths.plain, y, initial, None)
        verdicts = lesioned.resolvability(condition.scanner)
        return cls(condition, truths.plain, y, initial, _LesionScene(lesioned, *_measured(condition, lesioned.cut), verdicts))

    def solve(self, label: str, solver: str, config: Any, denoiser: Denoiser, with_truth: bool) -> Cell:
        """One solver's cell.

        Args:
            label: under which its rows go.
            solver: its name.
            config: its configuration.
            denoiser: the prior.
            with_truth: add the row of the truth's volumes.
        """
        scanner = self.condition.scanner

        def reconstruct(y: Tensor, initial: Tensor) -> Reconstruction:
            generator = torch.Generator().manual_seed(self.cut.seed)
            term = DataTerm(y, scanner.operator, scanner.noise)
            return solve_tensors(solver, [term], denoiser, initial, generator=generator, config=config)

        began = time.monotonic()
        found = reconstruct(self.y, self.initial)
        seconds = (time.monotonic() - began) / len(self.cut.numbers)
        cut, condition = self.cut, self.condition
        with torch.no_grad():
            image = cut.as_slices(found.image)
            labels = cut.tissues(image)
            volumes = [truth_row(cut, condition.name)] if with_truth else []
            volumes.append(volume_row(labels, cut, condition.name, label))
            results = Results(
                fidelity_rows(found, cut, condition.name, label, seconds),
                volumes,
                [hallucination_row(found, labels, cut, self.y, scanner, condition.name, label)],
            )
        if self.lesions is not None:
            again = reconstruct(self.lesions.y, self.lesions.initial)
            results.lesions = lesion_rows(cut.as_slices(again.image), self.lesions.truth, self.lesions.verdicts, condition.name, label)
        return Cell((cut.subject, condition.name, label), results, self._pictures(label, image))

    def _pictures(self, label: str, image: Tensor) -> dict[str, NDArray[np.float32]]:
        middle = len(self.cut.numbers) // 2
        shape = self.cut.as_operand(self.cut.truth, self.condition.scanner.operator).shape
        measured = self.cut.as_slices(to_image_grid(self.y, self.condition.scanner.operator, shape))
        images = {TRUTH: self.cut.truth, MEASUREMENT: measured, label: image}
        return {name: each[middle, 0].detach().float().numpy() for name, each in images.items()}


@dataclass(frozen=True, eq=False)
class _LesionScene:
    """The same with lesions in the truth."""

    truth: LesionedCut
    y: Tensor
    initial: Tensor
    verdicts: list[Resolvability]


def _measured(condition: Condition, cut: Cut) -> tuple[Tensor, Tensor]:
    """Measurement and initial image."""
    y = cut.measure(condition.scanner)
    operator = condition.scanner.operator
    shape = cut.as_operand(cut.truth, operator).shape
    with torch.no_grad():
        return y, condition.model.enhance(y, operator, shape)
