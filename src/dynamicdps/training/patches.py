"""Training patches cut from the axial slices of scans."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.volumes import IntensityScale, load, to_slices

MIN_BRAIN = 0.05
# Whole slices twice as often as patches: the layout of a head is learned from nothing else.
SIZES = ((96, 96, 16), (128, 128, 9), (176, 144, 6), (176, 144, 6), (176, 144, 6), (176, 144, 6))


class Patches:
    """Random patches of whole subjects' slices, in image intensities.

    Every batch is a function of the generator alone, so a resumed training sees what an uninterrupted one would have seen.

    Args:
        subjects: slices of each subject, ``(slices, 1, height, width)`` in [0, 1].
    """

    def __init__(self, subjects: Sequence[Tensor]) -> None:
        if not subjects:
            raise InputError("no scan holds a usable slice; expected at least one skull-stripped scan; check the files")
        self.subjects = list(subjects)
        # A subject counts by its slices, but a whole head not much more than a slab.
        counts = torch.tensor([float(min(len(s), 64)) for s in subjects])
        self._weights = counts / counts.sum()

    @classmethod
    def from_files(cls, paths: Sequence[str | Path]) -> "Patches":
        """Load skull-stripped scans; slices with less than 5 % brain are left out."""
        subjects = []
        for path in paths:
            volume = load(path)
            scale = IntensityScale.robust(volume.data)
            slices = to_slices(scale.apply(volume).data).clamp_min(0)
            keep = (slices > 0.02).float().mean(dim=(1, 2, 3)) >= MIN_BRAIN
            if keep.any():
                subjects.append(slices[keep])
        return cls(subjects)

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the intensities of all slices."""
        count = sum(s.numel() for s in self.subjects)
        mean = sum(float(s.double().sum()) for s in self.subjects) / count
        square = sum(float(s.double().square().sum()) for s in self.subjects) / count
        return mean, (square - mean**2) ** 0.5

    def batch(self, generator: torch.Generator, sizes: Sequence[tuple[int, int, int]] = SIZES) -> Tensor:
        """One batch of patches, ``(batch, 1, height, width)``.

        The patch size changes from batch to batch at a constant number of pixels, so that the network's normalisation and
        attention do not depend on the size. Augmentation: left-right flip and, for half of the patches, a brightness factor in
        [0.9, 1.05] (slices of one scan differ in brightness).

        Args:
            generator: source of all randomness.
            sizes: candidates ``(height, width, batch)``; cut down to the smallest slice drawn.
        """
        height, width, count = sizes[int(torch.randint(len(sizes), (), generator=generator))]
        chosen = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        slices = []
        for subject in chosen.tolist():
            stack = self.subjects[subject]
            slices.append(stack[int(torch.randint(len(stack), (), generator=generator)), 0])
        height = min(height, *(s.shape[0] for s in slices)) if count > 1 else min(height, slices[0].shape[0])
        width = min(width, *(s.shape[1] for s in slices)) if count > 1 else min(width, slices[0].shape[1])
        patches = []
        for image in slices:
            top = int(torch.randint(image.shape[0] - height + 1, (), generator=generator))
            left = int(torch.randint(image.shape[1] - width + 1, (), generator=generator))
            patch = image[top : top + height, left : left + width]
            if torch.rand((), generator=generator) < 0.5:
                patch = patch.flip(-1)
            if torch.rand((), generator=generator) < 0.5:
                patch = patch * (0.9 + 0.15 * torch.rand((), generator=generator))
            patches.append(patch)
        return torch.stack(patches)[:, None]

    def stack(self, generator: torch.Generator, size: int = 96) -> Tensor:
        """Neighbouring slices of one subject, cut to a patch: ``(slices, 1, height, width)``, at most 32 slices."""
        slices = self.subjects[int(torch.multinomial(self._weights, 1, generator=generator))]
        count = min(len(slices), 32)
        height, width = min(size, slices.shape[-2]), min(size, slices.shape[-1])
        first = int(torch.randint(len(slices) - count + 1, (), generator=generator))
        top = int(torch.randint(slices.shape[-2] - height + 1, (), generator=generator))
        left = int(torch.randint(slices.shape[-1] - width + 1, (), generator=generator))
        out = slices[first : first + count, :, top : top + height, left : left + width]
        return out.flip(-1) if torch.rand((), generator=generator) < 0.5 else out


def split_held_out(train: Sequence[str | Path], validation: Sequence[str | Path]) -> tuple[list[str | Path], list[str | Path]]:
    """Files to learn from and files to measure the error on.

    Without validation files the last tenth of the training files (at least one, if there are two) is held out.
    """
    files, held_out = list(train), list(validation)
    if not held_out and len(files) > 1:
        count = max(1, len(files) // 10)
        files, held_out = files[:-count], files[-count:]
    return files, held_out
