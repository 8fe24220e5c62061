"""Simulated pairs that conditional models learn from: a degraded image, interpolated, and the true one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators import LowField, Noise, ScanOperator, preset, to_image_grid
from dynamicdps.training import Patches
from dynamicdps.training.patches import SIZES, split_held_out


@dataclass(frozen=True)
class DegradationRange:
    """Degradations drawn at random for training: the limits of each parameter."""

    gamma: tuple[float, float] = (0.35, 1.3)
    in_plane_factor: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0)
    blur: tuple[float, float] = (0.0, 2.0)
    slice_thickness: tuple[float, ...] = (1.0, 3.0, 5.0)
    noise_std: tuple[float, float] = (0.001, 0.06)

    def draw(self, generator: torch.Generator) -> ScanOperator:
        """One scanner."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        def choice(values: tuple[float, ...]) -> float:
            return values[int(torch.randint(len(values), (), generator=generator))]

        thickness = choice(self.slice_thickness)
        scanner = LowField(
            gamma=uniform(*self.gamma),
            in_plane_factor=choice(self.in_plane_factor),
            blur=uniform(*self.blur),
            slice_thickness=thickness if thickness > 1 else None,
        )
        least, most = self.noise_std
        return ScanOperator(scanner, Noise(least * (most / least) ** float(torch.rand((), generator=generator))))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Degradation = ScanOperator | DegradationRange


def draw_pair(
    patches: Patches, degradation: Degradation, generator: torch.Generator, sizes: Sequence[tuple[int, int, int]] = SIZES
) -> tuple[Tensor, Tensor]:
    """A batch of interpolated measurements and their true images, both ``(batch, 1, height, width)``.

    Args:
        patches: where the true images come from.
        degradation: of all images, or the range that each of four stacks of neighbouring slices draws its own from.
        generator: source of all randomness.
        sizes: candidates ``(height, width, batch)`` for one degradation; stacks are 96 x 96, 16 slices in all.
    """
    if isinstance(degradation, DegradationRange):
        groups = [_stack_pair(patches.stack(generator), degradation.draw(generator), generator) for _ in range(4)]
        height, width = (min(truth.shape[axis] for _, truth in groups) for axis in (-2, -1))
        inputs, truths = (torch.cat([image[..., :height, :width] for image in images]) for images in zip(*groups, strict=True))
        return inputs, truths
    truth = patches.batch(generator, sizes)
    y = degradation.noise.draw(degradation.operator(truth), [generator] * len(truth))
    return to_image_grid(y, degradation.operator, truth.shape), truth


def _stack_pair(stack: Tensor, scanner: ScanOperator, generator: torch.Generator, keep: int = 4) -> tuple[Tensor, Tensor]:
    """Degrade a stack of neighbouring slices as a volume; keep some of them."""
    volume = stack.movedim(0, 1)[None]
    y = scanner.noise.draw(scanner.operator(volume), [generator])
    slices = to_image_grid(y, scanner.operator, volume.shape)[0].movedim(0, 1)
    chosen = torch.randperm(len(stack), generator=generator)[:keep]
    return slices[chosen], stack[chosen]


@dataclass(frozen=True)
class Validation:
    """How a model does on scans it does not learn from.

    Attributes:
        psnr: in dB over all pixels.
        sharpness: mean length of the image gradient as a share of the true images'; 1 is as sharp as the truth.
    """

    psnr: float = math.nan
    sharpness: float = math.nan

    def to_json(self) -> dict[str, float | None]:
        """Rounded for a model card, whose numbers are finite."""
        return {f"validation_{name}": None if math.isnan(value) else round(value, 3) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SimulatedPairs:
    """Source of the pairs of one training.

    Attributes:
        name: the degradation's name, or ``"range"``.
        degradation: how true images are degraded.
        train: scans to learn from.
        held_out: scans to measure the error on, if there are any.
    """

    name: str
    degradation: Degradation
    train: Patches
    held_out: Patches | None
    files: int

    @classmethod
    def from_files(cls, train_files: Sequence[str | Path], validation_files: Sequence[str | Path], name: str) -> "SimulatedPairs":
        """Read the scans.

        Args:
            train_files: skull-stripped scans.
            validation_files: scans of other subjects; without them the last tenth of `train_files` is held out.
            name: the name of one degradation, or ``"range"`` for all of `DegradationRange`.

        Raises:
            InputError: the degradation couples slices (only ``"range"`` trains on stacks) or is unknown, or a scan cannot be read.
        """
        degradation = DegradationRange() if name == "range" else preset(name)
        if isinstance(degradation, ScanOperator) and degradation.couples_slices:
            raise InputError(f"{name} has thick slices; expected a degradation of single slices, or range; choose range")
        files, held_out = split_held_out(train_files, validation_files)
        return cls(name, degradation, Patches.from_files(files), Patches.from_files(held_out) if held_out else None, len(files))

    def draw(self, generator: torch.Generator, sizes: Sequence[tuple[int, int, int]] = SIZES) -> tuple[Tensor, Tensor]:
        """A batch to learn from; see `draw_pair`."""
        return draw_pair(self.train, self.degradation, generator, sizes)

    @torch.inference_mode()
    def validate(self, model: Callable[[Tensor], Tensor], batches: int = 12) -> Validation:
        """Judge a model by the same held-out pairs every time; NaN without held-out scans."""
        if self.held_out is None:
            return Validation()
        error, count, gradient, true_gradient = 0.0, 0, 0.0, 0.0
        for index in range(batches):
            inputs, truth = draw_pair(self.held_out, self.degradation, torch.Generator().manual_seed(index))
            image = model(inputs)
            error += float((image - truth).square().sum())
            count += truth.numel()
            gradient += _gradient_length(image)
            true_gradient += _gradient_length(truth)
        return Validation(float(-10 * torch.tensor(error / count).log10()), gradient / true_gradient)

    def to_json(self) -> dict[str, Any]:
        """What a model card says about the pairs."""
        return {"degradation": self.name, "degradation_parameters": self.degradation.to_json()}


def _gradient_length(image: Tensor) -> float:
    """Sum over pixels of the length of the forward differences, both axes."""
    rows, columns = image.diff(dim=-2)[..., :-1], image.diff(dim=-1)[..., :-1, :]
    return float(torch.hypot(rows, columns).sum())
