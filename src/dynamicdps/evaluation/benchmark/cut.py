"""The slices of a subject that are reconstructed, with what is known of their truth."""

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.evaluation.evaluate import MIN_BRAIN_SHARE
from dynamicdps.evaluation.tissue import RISING, TISSUES, segment
from dynamicdps.operators import Operator, ScanOperator
from dynamicdps.volumes import IntensityScale, brain_mask, from_slices, load, to_slices

Labels = NDArray[np.uint8]


def subject_name(path: Path) -> str:
    """Subject of a file: its name up to the first underscore or dot."""
    return path.name.split("_")[0].split(".")[0]


def chosen_slices(count: int, wanted: int) -> list[int]:
    """Evenly spaced slice numbers, away from the ends."""
    wanted = min(wanted, count)
    return [count * (2 * i + 1) // (2 * wanted) for i in range(wanted)]


def middle_slices(count: int, wanted: int) -> list[int]:
    """Neighbouring slice numbers around the middle."""
    wanted = min(wanted, count)
    first = (count - wanted) // 2
    return list(range(first, first + wanted))


@dataclass(frozen=True, eq=False)
class Subject:
    """A good scan.

    Attributes:
        name: the subject's.
        slices: image intensities ``(slices, 1, height, width)``.
        brain: mask ``(x, y, z)``.
        spacing: voxel size in mm.
        seed: of its noise, samples and lesions, from the benchmark's seed and the name.
        contrast: T1w, T2w or FLAIR, by which tissues are told.
    """

    name: str
    slices: Tensor
    brain: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    seed: int
    contrast: str = "T1w"

    @classmethod
    def read(cls, path: Path, seed: int, contrast: str = "T1w") -> "Subject":
        """Read a skull-stripped scan; errors as `dynamicdps.volumes.load`."""
        volume = load(path)
        slices = to_slices(IntensityScale.robust(volume.data).apply(volume).data)
        name = subject_name(path)
        return cls(name, slices, brain_mask(volume), volume.spacing, seed + zlib.crc32(name.encode()), contrast)

    def cut(self, numbers: list[int]) -> "Cut":
        """Some of its slices."""
        mask = torch.from_numpy(np.ascontiguousarray(self.brain[:, :, numbers].transpose(2, 1, 0)))[:, None]
        return Cut(self.name, numbers, self.slices[numbers], mask, self.spacing, self.seed, self.contrast)


@dataclass(frozen=True, eq=False)
class Cut:
    """Slices of a subject.

    Attributes:
        subject: its name.
        numbers: of the slices in the scan.
        truth: image intensities ``(slices, 1, height, width)``.
        mask: brain, booleans, the same shape.
        spacing: voxel size in mm.
        seed: the subject's.
        contrast: likewise.
    """

    subject: str
    numbers: list[int]
    truth: Tensor
    mask: Tensor
    spacing: tuple[float, float, float]
    seed: int
    contrast: str = "T1w"

    @property
    def are_neighbours(self) -> bool:
        """Whether the slices make one volume."""
        return all(after == before + 1 for before, after in pairwise(self.numbers))

    @cached_property
    def brain(self) -> NDArray[np.bool_]:
        """The mask ``(x, y, slice)``."""
        return np.asarray(self.mask[:, 0].numpy().transpose(2, 1, 0))

    @cached_property
    def stacks(self) -> list[slice]:
        """Slices that are segmented together: all neighbours, or each one that shows brain by itself."""
        if self.are_neighbours:
            return [slice(0, len(self.numbers))]
        return [slice(i, i + 1) for i in range(len(self.numbers)) if self.brain[:, :, i].mean() >= MIN_BRAIN_SHARE]

    @cached_property
    def labels(self) -> Labels:
        """Tissue map of the truth ``(x, y, slice)``.

        Raises:
            InputError: the truth shows no tissues.
        """
        labels = self.tissues(self.truth)
        if labels is None or not labels.any():
            raise InputError(f"the slices {self.numbers} of {self.subject} show no brain; expected a skull-stripped brain; check the scan")
        return labels

    def tissues(self, image: Tensor) -> Labels | None:
        """Tissue map of a reconstruction inside the truth's mask, both segmented alike: slices that are no neighbours one by one.

        Args:
            image: ``(slices, 1, height, width)``.

        Returns:
            Labels ``(x, y, slice)``, 1 to 3 in the order of `TISSUES`; `None` where the image has no tissues: its values are not finite or
            hardly differ.
        """
        data = from_slices(image)
        labels = np.zeros(data.shape, dtype=np.uint8)
        for stack in self.stacks:
            brain = self.brain[:, :, stack]
            try:
                labels[:, :, stack] = segment(data[:, :, stack], brain)
            except InputError:
                # A solver that failed must not end the benchmark of the others.
                return None
        numbers = [0, *(TISSUES.index(tissue) + 1 for tissue in RISING[self.contrast])]
        return np.array(numbers, dtype=np.uint8)[labels]

    def with_truth(self, truth: Tensor) -> "Cut":
        """The same slices with another truth, for example with lesions."""
        return replace(self, truth=truth)

    def as_operand(self, image: Tensor, operator: Operator) -> Tensor:
        """Slices as the operator takes them: one volume ``(1, 1, slices, height, width)`` where it couples slices, else as they are."""
        return image.movedim(0, 1)[None] if operator.couples_slices else image

    def as_slices(self, image: Tensor) -> Tensor:
        """The inverse of `as_operand`."""
        return image[0].movedim(1, 0) if image.ndim == 5 else image

    def measure(self, scanner: ScanOperator) -> Tensor:
        """Simulate the measurement; its noise depends on the subject and the slice's place alone.

        Raises:
            InputError: the operator does not measure images.
        """
        operator = scanner.operator
        truth = self.as_operand(self.truth, operator)
        generators = [torch.Generator().manual_seed(self.seed + i) for i in range(len(truth))]
        clean = operator(truth)
        if clean.ndim != truth.ndim or clean.shape[1] != 1:
            raise InputError(
                f"{type(operator).__name__} measures {clean.shape[1]} channels; expected a degradation that measures images, which "
                "conditional models can take; choose another"
            )
        noisy = scanner.noise.draw(clean, generators)
        # Where nothing is measured there is no noise either: of an image that is bright everywhere nothing arrives there.
        return torch.where(operator(torch.ones_like(truth)) == 0, torch.zeros_like(noisy), noisy)
