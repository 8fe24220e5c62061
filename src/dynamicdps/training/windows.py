"""Training windows: neighbouring slices of scans, cut, turned, bent and re-scaled on the device that trains."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.priors.prior import AXES, MIN_SLICES
from dynamicdps.volumes import IntensityScale, load
from dynamicdps.volumes.contrast import CONTRASTS

# A slice counts when at least this share of it is brain.
MIN_BRAIN = 0.05
# Slices that count of one volume in one plane, so that a whole head weighs not much more than a slab.
MAX_WEIGHT = 64
# Shares of windows: with the middle slice alone, and with a part of the neighbours.
ALONE, PARTLY = 0.15, 0.10
# Share of windows that are turned, scaled and bent: interpolation smooths a little, so most are not.
BENT = 0.35
# Largest angle in degrees, logarithm of the scale, and displacement of a control point in voxels.
ANGLE, SCALING, BENDING = 12.0, 0.10, 4.0
# Control points of the smooth deformation along each axis of a slice.
CONTROL = 5
# Range of the brightness factor (slices of one scan differ in brightness), and of the logarithm of the gamma.
DARKEST, BRIGHTEST, GAMMA = 0.9, 1.05, 0.15
# Share of windows whose contrast the network is not told, and of these of those with an intensity curve drawn at random.
UNTOLD, RECOLOURED = 0.10, 0.5
KNOTS = 6
# Share of windows of other contrasts than T1w, where there are both.
OTHERS = 0.12

# Voxels that tell how bright a slice is beside its neighbour: above this share of the brightest, and at least so many.
SEEN, SHARED_VOXELS = 0.25, 50
# Brightness may change over so many slices (standard deviation); what is shorter is a jump.
COURSE_SLICES = 6.0


class WindowDraw(NamedTuple):
    """What a batch of windows shows: tensors of one entry a window.

    Attributes:
        stack: where the scan lies among the voxels: first index, strides of slices, rows and columns, and their numbers, ``(batch, 7)``.
        corner: first slice, row and column of the window; they may lie outside, ``(batch, 3)``.
        flip: whether columns are reversed, ``(batch,)``.
        contrast: that the network is told, index into `CONTRASTS`, ``(batch,)``.
        reach: neighbours that are there below and above the middle slice, ``(batch, 2)``.
        scale: image intensities of one unit of the bytes, ``(batch,)``.
        gamma: exponent of the intensities, ``(batch,)``.
        bent: whether the window is turned, scaled and bent, ``(batch,)``.
        turn: angle, scale and its difference between the axes as shares of the largest, -1 to 1, ``(batch, 3)``.
        control: displacements of the control points along rows and columns, likewise, ``(batch, 2, CONTROL, CONTROL)``.
        recoloured: whether intensities pass through a curve drawn at random, ``(batch,)``.
        knots: of that curve, 0 to 1, ``(batch, KNOTS)``.
    """

    stack: Tensor
    corner: Tensor
    flip: Tensor
    contrast: Tensor
    reach: Tensor
    scale: Tensor
    gamma: Tensor
    bent: Tensor
    turn: Tensor
    control: Tensor
    recoloured: Tensor
    knots: Tensor


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

    def evened(self) -> "TrainingVolume":
        """The scan without jumps of brightness between slices, see `even_slices`."""
        return TrainingVolume.from_array(even_slices(self.data), self.contrast)


def even_slices(data: NDArray[np.generic]) -> NDArray[np.float32]:
    """A scan without the jumps of brightness between its slices, ``(z, y, x)``; what changes over many slices stays.

    Collections that were saved as pictures have slices that were scaled one by one. Of two neighbours the median ratio of the voxels that
    both show well is 1 in tissue; what these ratios add up to, less its smooth course, is taken off each slice.

    Args:
        data: intensities of at least 0, background 0.
    """
    values = np.asarray(data, dtype=np.float32)
    seen = values > SEEN * np.percentile(values[values > 0], 99) if values.any() else values > 0
    steps = [0.0]
    for low, high in pairwise(range(len(values))):
        both = seen[low] & seen[high]
        steps.append(float(np.median(np.log(values[high][both] / values[low][both]))) if both.sum() >= SHARED_VOXELS else 0.0)
    course = np.cumsum(steps)
    jumps = course - ndimage.gaussian_filter1d(course, COURSE_SLICES, mode="nearest")
    factors: NDArray[np.float32] = np.exp(-jumps).astype(np.float32)
    return values * factors[:, None, None]


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

    def _set_weights(self) -> None:
        """Slices of T1w scans by their number; those of other contrasts make up a fixed share together."""
        weights = torch.tensor([float(min(len(found), MAX_WEIGHT)) for found in self._usable])
        other = self._stacks[:, -1] != CONTRASTS.index("T1w")
        if other.any() and (~other).any():
            weights[other] *= OTHERS / (1 - OTHERS) * weights[~other].sum() / weights[other].sum()
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
        plain = copy(self)
        plain.augment = False
        total = square = count = 0.0
        for _ in range(-(-1000 // self.count)):
            windows, present = plain.gather(plain.draw(generator))
            inside = windows[present].double()
            total, square, count = total + float(inside.sum()), square + float(inside.square().sum()), count + inside.numel()
        mean = total / count
        return mean, (square / count - mean**2) ** 0.5

    def draw(self, generator: torch.Generator) -> WindowDraw:
        """What a batch of windows shows, on the CPU."""
        count, (height, width), middle = self.count, self.size, self.slices // 2

        def uniform(*shape: int) -> Tensor:
            return torch.rand((count, *shape), generator=generator)

        def happens(share: float) -> Tensor:
            return (uniform() < share) & self.augment

        chosen = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        stack = self._stacks[chosen]
        slices = torch.tensor([self._usable[s][int(u * len(self._usable[s]))] for s, u in zip(chosen.tolist(), uniform(), strict=True)])
        # A window larger than the slice lies around it, a smaller one anywhere inside, mostly near the middle.
        free = stack[:, 5:7] - torch.tensor([height, width])
        corner = ((uniform(2) + uniform(2)) / 2 * free).round().long()
        # Left and right may be swapped, back and front may not: the columns of a sagittal slice stay.
        flip = happens(0.5) & (stack[:, 3] == 1)
        contrast = torch.where(happens(UNTOLD), CONTRASTS.index("unknown"), stack[:, 7])
        kind, below, above = uniform(), (uniform() * (middle + 1)).long(), (uniform() * (middle + 1)).long()
        reach = torch.stack([below, above], dim=1)
        reach = torch.where((kind < ALONE)[:, None], 0, torch.where((kind < ALONE + PARTLY)[:, None], reach, middle))
        brightness = torch.where(happens(0.5), DARKEST + (BRIGHTEST - DARKEST) * uniform(), 1.0)
        gamma = torch.where(happens(0.3), torch.exp(GAMMA * (2 * uniform() - 1)), 1.0)
        return WindowDraw(
            stack[:, :7],
            torch.cat([slices[:, None] - middle, corner], dim=1),
            flip,
            contrast,
            reach,
            self._scales[chosen] * brightness,
            gamma,
            happens(BENT),
            2 * uniform(3) - 1,
            2 * uniform(2, CONTROL, CONTROL) - 1,
            happens(RECOLOURED) & (contrast == CONTRASTS.index("unknown")),
            uniform(KNOTS),
        )

    def gather(self, draw: WindowDraw) -> tuple[Tensor, Tensor]:
        """The windows, on the device of the voxels.

        Returns:
            Image intensities ``(batch, slices, height, width)``, 0 where a slice is missing, and which are there, ``(batch, slices)``.
        """
        device = self.voxels.device
        draw = WindowDraw(*(part.to(device) for part in draw))
        height, width = self.size
        base, stride_z, stride_y, stride_x, depth, rows, columns = draw.stack.T[..., None]
        first, top, left = draw.corner.T[..., None]
        place = torch.arange(self.slices, device=device)
        z, y, x = first + place, top + torch.arange(height, device=device), torch.arange(width, device=device)
        x = left + torch.where(draw.flip[:, None], width - 1 - x, x)
        away = place - self.slices // 2
        present = (z >= 0) & (z < depth) & (away >= -draw.reach[:, :1]) & (away <= draw.reach[:, 1:])
        inside = ((y >= 0) & (y < rows))[:, :, None] & ((x >= 0) & (x < columns))[:, None]
        z, y, x = (i.clamp_min(0).minimum(size - 1) for i, size in ((z, depth), (y, rows), (x, columns)))
        index = (base + z * stride_z)[:, :, None, None] + (y * stride_y)[:, None, :, None] + (x * stride_x)[:, None, None]
        windows = self.voxels[index].float() * inside[:, None] * draw.scale[:, None, None, None]
        if self.augment:
            windows = self._bend(windows, draw)
            windows = _recolour(windows.clamp_min(0) ** draw.gamma[:, None, None, None], draw.recoloured, draw.knots)
        return windows * present[:, :, None, None], present

    def _bend(self, windows: Tensor, draw: WindowDraw) -> Tensor:
        """Turn, scale and bend the windows that are to be; all slices of a window alike."""
        index = draw.bent.nonzero()[:, 0]
        if len(index) == 0:
            return windows
        turn, both, uneven = draw.turn[index].T[..., None, None]
        scale_y, scale_x = torch.exp(SCALING * (both + uneven / 3)), torch.exp(SCALING * both)
        angle = turn * ANGLE * torch.pi / 180
        height, width = self.size
        y, x = torch.meshgrid(
            torch.arange(height, device=windows.device) - (height - 1) / 2,
            torch.arange(width, device=windows.device) - (width - 1) / 2,
            indexing="ij",
        )
        shift = F.interpolate(draw.control[index] * BENDING, size=(height, width), mode="bicubic", align_corners=True)
        source_y = (angle.cos() * y + angle.sin() * x) * scale_y + shift[:, 0]
        source_x = (angle.cos() * x - angle.sin() * y) * scale_x + shift[:, 1]
        grid = torch.stack([source_x / ((width - 1) / 2), source_y / ((height - 1) / 2)], dim=-1)
        bent = F.grid_sample(windows[index], grid, mode="bicubic", padding_mode="border", align_corners=True).clamp_min(0)
        # What is left of the edges of the brain's mask by the cubic's overshoot is no tissue.
        return windows.index_copy(0, index, torch.where(bent < 0.01, 0.0, bent))


def _recolour(windows: Tensor, chosen: Tensor, knots: Tensor) -> Tensor:
    """Pass the chosen windows through curves that are linear between knots drawn at random; background stays 0."""
    index = chosen.nonzero()[:, 0]
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
