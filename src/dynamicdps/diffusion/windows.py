"""Training windows: neighbouring slices of scans, cut, turned, bent and re-scaled on the device that trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.diffusion.neighbour_network import CONTRASTS
from dynamicdps.diffusion.prior import AXES, MIN_SLICES
from dynamicdps.errors import InputError
from dynamicdps.volumes import IntensityScale, load

# A slice counts when at least this share of it is brain.
MIN_BRAIN = 0.05
# Slices that count of one volume in one plane, so that a whole head weighs not much more than a slab.
MAX_WEIGHT = 64
# Shares of windows: with the middle slice alone, and with a part of the neighbours.
ALONE, PARTLY = 0.15, 0.10
# Share of windows that are turned, scaled and bent: interpolation smooths a little, so most are not.
BENT = 0.35
ANGLE, SCALING, BENDING = 12.0, 0.10, 2.0
# Share of windows whose contrast the network is not told, and of these of those with an intensity curve drawn at random.
UNTOLD, RECOLOURED = 0.10, 0.5
KNOTS = 6
# Control points of the smooth deformation along each axis of a slice.
CONTROL = 5


@dataclass(frozen=True)
class TrainingVolume:
    """A scan to learn from.

    Attributes:
        data: intensities as bytes, ``(z, y, x)``.
        scale: image intensities of one unit.
        contrast: one of `CONTRASTS`.
    """

    data: NDArray[np.uint8]
    scale: float
    contrast: str = "T1w"

    @classmethod
    def from_array(cls, data: NDArray[np.generic], contrast: str = "T1w") -> "TrainingVolume":
        """Take scanner units ``(z, y, x)``, background 0: bytes are kept, other numbers rounded to 1/200 of the image intensity."""
        scale = IntensityScale.robust(np.asarray(data)).scale
        if data.dtype == np.uint8:
            return cls(np.ascontiguousarray(data), 1 / scale, contrast)
        rounded = np.rint(np.asarray(data, dtype=np.float32) / scale * 200).clip(0, 255).astype(np.uint8)
        return cls(np.ascontiguousarray(rounded), 1 / 200, contrast)

    @classmethod
    def from_file(cls, path: str | Path, contrast: str = "T1w") -> "TrainingVolume":
        """Read a skull-stripped scan.

        Raises:
            InputError: it cannot be read or is empty.
        """
        data = load(path).data.transpose(2, 1, 0)
        whole = bool(np.all(data == np.rint(data))) and data.min() >= 0 and data.max() <= 255
        return cls.from_array(data.astype(np.uint8) if whole else data, contrast)


class SliceWindows:
    """Windows of neighbouring slices of many scans, in any plane in which a scan has enough of them.

    What a window shows is drawn on the CPU as a few numbers; its voxels are gathered, bent and re-scaled on the device where all scans
    lie as bytes, so that a GPU does not wait. Every batch is a function of the generator alone, and an image of its numbers alone.

    Args:
        volumes: scans to learn from.
        slices: slices of a window, an odd number.
        size: height and width of a window.
        count: windows of a batch.
        augment: turn, flip, bend and re-scale.

    Raises:
        InputError: no scan has a usable slice.
    """

    def __init__(
        self, volumes: Sequence[TrainingVolume], slices: int, size: tuple[int, int] = (176, 144), count: int = 16, augment: bool = True
    ) -> None:
        self.slices, self.size, self.count, self.augment = slices, size, count, augment
        stacks: list[list[int]] = []
        usable: list[Tensor] = []
        scales: list[float] = []
        offset = 0
        for volume in volumes:
            shape = volume.data.shape
            strides = (shape[1] * shape[2], shape[2], 1)
            brain = volume.data * volume.scale > 0.02
            for plane, axes in AXES.items():
                if plane != "axial" and min(shape[axes[0]], shape[axes[1]]) < MIN_SLICES:
                    continue
                share = brain.mean(axis=tuple(axes[1:]))
                found = torch.from_numpy(np.flatnonzero(share >= MIN_BRAIN))
                if len(found):
                    stacks.append([offset, *(strides[a] for a in axes), *(shape[a] for a in axes), CONTRASTS.index(volume.contrast)])
                    usable.append(found)
                    scales.append(volume.scale)
            offset += volume.data.size
        if not stacks:
            raise InputError("no scan holds a usable slice; expected at least one skull-stripped scan; check the files")
        self._stacks, self._usable = torch.tensor(stacks), usable
        self._scales = torch.tensor(scales)
        self.voxels = torch.cat([torch.from_numpy(v.data.ravel()) for v in volumes])
        self._set_weights()

    def _set_weights(self, share_of_others: float = 0.12) -> None:
        """Slices of T1w scans by their number; those of other contrasts make up a fixed share together."""
        weights = torch.tensor([float(min(len(found), MAX_WEIGHT)) for found in self._usable])
        other = self._stacks[:, -1] != CONTRASTS.index("T1w")
        if other.any() and (~other).any():
            weights[other] *= share_of_others / (1 - share_of_others) * weights[~other].sum() / weights[other].sum()
        self._weights = weights / weights.sum()

    @property
    def slice_count(self) -> int:
        """Usable slices of all scans and planes."""
        return sum(len(found) for found in self._usable)

    def to(self, device: torch.device | str) -> "SliceWindows":
        """Move the voxels to the device where windows are gathered."""
        self.voxels = self.voxels.to(device)
        return self

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the intensities of a thousand windows without augmentation."""
        generator = torch.Generator().manual_seed(0)
        plain = SliceWindows.__new__(SliceWindows)
        plain.__dict__ = self.__dict__ | {"augment": False}
        total = square = count = 0.0
        for _ in range(-(-1000 // self.count)):
            integers, floats = plain.draw(generator)
            windows, present = plain.gather(integers, floats)
            inside = windows[present].double()
            total, square, count = total + float(inside.sum()), square + float(inside.square().sum()), count + inside.numel()
        mean = total / count
        return mean, (square / count - mean**2) ** 0.5

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Numbers of a batch of windows, on the CPU: integers ``(count, 12)`` and floats ``(count, many)``."""
        count, height, width = self.count, *self.size
        chosen = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        stacks = self._stacks[chosen]
        uniform = torch.rand((count, 20), generator=generator)
        floats = torch.rand((count, 12 + 2 * CONTROL**2 + KNOTS), generator=generator)
        middles = torch.tensor(
            [self._usable[s][int(u * len(self._usable[s]))] for s, u in zip(chosen.tolist(), uniform[:, 0], strict=True)]
        )
        first = middles - self.slices // 2
        # A window larger than the slice lies around it, a smaller one anywhere inside, mostly near the middle.
        free_rows, free_columns = stacks[:, 5] - height, stacks[:, 6] - width
        across = (uniform[:, 1:3] + uniform[:, 3:5]) / 2
        top, left = (across[:, 0] * free_rows).round().long(), (across[:, 1] * free_columns).round().long()
        # Left and right may be swapped, back and front may not: the columns of a sagittal slice stay.
        flip = (uniform[:, 5] < 0.5) & self.augment & (stacks[:, 3] == 1)
        contrast = torch.where((uniform[:, 6] < UNTOLD) & self.augment, CONTRASTS.index("unknown"), stacks[:, 7])
        integers = torch.stack([*stacks[:, :7].T, first, top, left, flip.long(), contrast], dim=1)
        middle = self.slices // 2
        low, high = torch.zeros(count), torch.full((count,), float(self.slices))
        alone, partly = uniform[:, 7] < ALONE, (uniform[:, 7] >= ALONE) & (uniform[:, 7] < ALONE + PARTLY)
        low = torch.where(partly, (uniform[:, 8] * (middle + 1)).floor(), torch.where(alone, float(middle), low))
        high = torch.where(partly, middle + 1 + (uniform[:, 9] * (middle + 1)).floor(), torch.where(alone, middle + 1.0, high))
        brightness = torch.where((uniform[:, 10] < 0.5) & self.augment, 0.9 + 0.15 * uniform[:, 11], 1.0)
        gamma = torch.where((uniform[:, 12] < 0.3) & self.augment, torch.exp(0.3 * (uniform[:, 13] - 0.5)), 1.0)
        bent = (uniform[:, 14] < BENT) & self.augment
        recoloured = (contrast == CONTRASTS.index("unknown")) & (uniform[:, 15] < RECOLOURED) & self.augment
        known = torch.stack([self._scales[chosen] * brightness, gamma, low, high, bent.float(), recoloured.float()], dim=1)
        return integers, torch.cat([known, floats], dim=1)

    def gather(self, integers: Tensor, floats: Tensor) -> tuple[Tensor, Tensor]:
        """Windows of these numbers, on the device of the voxels.

        Returns:
            Image intensities ``(batch, slices, height, width)``, 0 where a slice is missing, and which are there, ``(batch, slices)``.
        """
        device = self.voxels.device
        integers, floats = integers.to(device), floats.to(device)
        height, width = self.size
        base, stride_z, stride_y, stride_x, depth, rows, columns, first, top, left, flip, _ = integers.T
        z = first[:, None] + torch.arange(self.slices, device=device)
        place = torch.arange(self.slices, device=device)
        present = (z >= 0) & (z < depth[:, None]) & (place >= floats[:, 2:3]) & (place < floats[:, 3:4])
        y = top[:, None] + torch.arange(height, device=device)
        x = torch.arange(width, device=device).expand(len(integers), -1)
        x = left[:, None] + torch.where(flip[:, None] > 0, width - 1 - x, x)
        inside = ((y >= 0) & (y < rows[:, None]))[:, :, None] & ((x >= 0) & (x < columns[:, None]))[:, None]
        y, x = y.clamp_min(0).minimum(rows[:, None] - 1), x.clamp_min(0).minimum(columns[:, None] - 1)
        plane = (y * stride_y[:, None])[:, :, None] + (x * stride_x[:, None])[:, None]
        index = (
            base[:, None, None, None] + (z.clamp_min(0).minimum(depth[:, None] - 1) * stride_z[:, None])[..., None, None] + plane[:, None]
        )
        windows = self.voxels[index].float() * inside[:, None] * floats[:, 0, None, None, None]
        if self.augment:
            windows = self._bend(windows, floats)
            windows = _recolour(windows.clamp_min(0) ** floats[:, 1, None, None, None], floats[:, 5], floats[:, -KNOTS:])
        return windows * present[:, :, None, None], present

    def _bend(self, windows: Tensor, floats: Tensor) -> Tensor:
        """Turn, scale and bend the windows that are to be; all slices of a window alike."""
        index = (floats[:, 4] > 0).nonzero()[:, 0]
        if len(index) == 0:
            return windows
        numbers = 2 * floats[index, 6 : 18 + 2 * CONTROL**2] - 1
        angle = numbers[:, 0] * ANGLE * torch.pi / 180
        scale_y, scale_x = torch.exp(numbers[:, 1] * SCALING + numbers[:, 2] * SCALING / 3), torch.exp(numbers[:, 1] * SCALING)
        height, width = self.size
        y, x = torch.meshgrid(
            torch.arange(height, device=windows.device) - (height - 1) / 2,
            torch.arange(width, device=windows.device) - (width - 1) / 2,
            indexing="ij",
        )
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        field = numbers[:, 12:].reshape(-1, 2, CONTROL, CONTROL) * BENDING * 2
        shift = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True)
        source_y = (cos * y + sin * x) * scale_y[:, None, None] + shift[:, 0]
        source_x = (-sin * y + cos * x) * scale_x[:, None, None] + shift[:, 1]
        grid = torch.stack([source_x / ((width - 1) / 2), source_y / ((height - 1) / 2)], dim=-1)
        bent = F.grid_sample(windows[index], grid, mode="bicubic", padding_mode="border", align_corners=True).clamp_min(0)
        # What is left of the edges of the brain's mask by the cubic's overshoot is no tissue.
        return windows.index_copy(0, index, torch.where(bent < 0.01, 0.0, bent))


def _recolour(windows: Tensor, chosen: Tensor, knots: Tensor) -> Tensor:
    """Pass the chosen windows through curves that are linear between knots drawn at random; background stays 0."""
    index = (chosen > 0).nonzero()[:, 0]
    if len(index) == 0:
        return windows
    values = torch.cat([torch.zeros_like(knots[index, :1]), knots[index]], dim=1)
    part = windows[index]
    position = part.clamp(0, 1) * KNOTS
    low = position.floor().clamp_max(KNOTS - 1).long()
    flat = low.flatten(1)
    left = values.gather(1, flat).view_as(part)
    right = values.gather(1, flat + 1).view_as(part)
    return windows.index_copy(0, index, left + (position - low) * (right - left))
