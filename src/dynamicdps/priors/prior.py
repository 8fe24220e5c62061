"""The prior: posterior mean of a clean volume given a noisy one, and the domain in which it holds."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dynamicdps.networks.neighbour_unet import NeighbourUNet
from dynamicdps.priors.denoiser import Denoiser, denoising_error, network_time, scalings

# Axes (slice, row, column) of data that lie as (z, y, x): superior and anterior upwards in every plane.
AXES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
# A volume of fewer slices along an axis than this is cut along another only.
MIN_SLICES = 64
# Slices or windows that pass the network at once unless a caller bounds them; more are hardly faster.
AT_ONCE = 8


@dataclass(frozen=True)
class Domain:
    """Where a prior holds: what its model card says.

    Attributes:
        contrast: in words.
        suffix: BIDS suffix of the contrast.
        spacing: voxel size in mm, x, y, z.
        planes: of the slices that it knows, the usual one first.
        errors: root mean square error by noise level, from validation images; see `denoising_error`.
        error_correlation: of the errors in slices 0, 1, 2, ... apart, from 1 down, for noise that is independent in every voxel; beyond
            the last entry it is 0.
        start_level: calibration of the start for volumes, as JSON (docs/models.md), or empty.
        start_level_of_slices: the same for single slices, of which the prior knows less; without one that for volumes.
    """

    contrast: str = ""
    suffix: str = ""
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    planes: tuple[str, ...] = ("axial",)
    errors: Mapping[float, float] = field(default_factory=dict)
    error_correlation: tuple[float, ...] = (1.0,)
    start_level: Mapping[str, Any] = field(default_factory=dict)
    start_level_of_slices: Mapping[str, Any] = field(default_factory=dict)


class Prior(ABC):
    """``prior(x, sigma) -> E[x0 | x]`` on volumes.

    Attributes:
        domain: where it holds.
        neighbours: slices that it looks at on either side of one; 0 for a prior of single slices.
        data_mean: mean intensity of what it was trained on.
    """

    domain: Domain
    neighbours: int = 0
    data_mean: float = 0.5

    def __call__(self, x: Tensor, sigma: Tensor, at_once: int = AT_ONCE, turn: int = 0) -> Tensor:
        """Denoise.

        Args:
            x: volumes ``(batch, 1, depth, height, width)``, image intensities; ``(batch, 1, height, width)`` are volumes of one slice.
            sigma: noise levels ``(batch,)``.
            at_once: slices, or windows of slices, that pass the network together: a bound on memory.
            turn: number of the pass: a prior that knows several planes cuts a volume along each of them in turn.

        Returns:
            The shape of `x`.
        """
        axes = self._axes(x, turn)
        volume = (x if x.ndim == 5 else x[:, :, None]).permute(axes)
        found = self._assemble(list(self._passes(volume, sigma, at_once)), volume.shape)
        return found.permute([axes.index(axis) for axis in range(5)]).reshape(x.shape)

    def pullback(self, x: Tensor, sigma: Tensor, w: Tensor, at_once: int = AT_ONCE, turn: int = 0) -> Tensor:
        """The product of `w`, image shape, with the transpose of the Jacobian at `x`, with the graph of one pass at a time."""
        axes = self._axes(x, turn)
        volume = (x if x.ndim == 5 else x[:, :, None]).detach().permute(axes)
        total = torch.zeros_like(volume)
        weights = self._disassemble((w if w.ndim == 5 else w[:, :, None]).permute(axes))
        with torch.enable_grad():
            variable = volume.clone().requires_grad_()
            first = 0
            for part in self._passes(variable, sigma, at_once):
                last = first + len(part)
                total += torch.autograd.grad(part, variable, weights[first:last].to(part))[0]
                first = last
        return total.permute([axes.index(axis) for axis in range(5)]).reshape(x.shape)

    def _axes(self, x: Tensor, turn: int) -> list[int]:
        """Order of a volume's axes in a pass: of the planes that the prior knows one, where the volume is large enough along all."""
        planes = self.domain.planes
        if x.ndim == 4 or len(planes) == 1 or min(x.shape[2:]) < MIN_SLICES:
            return [0, 1, 2, 3, 4]
        return [0, 1, *(axis + 2 for axis in AXES[planes[turn % len(planes)]])]

    def error(self, sigma: Tensor) -> Tensor:
        """Expected root mean square error at noise levels ``(batch,)``, image intensities."""
        return denoising_error(self.domain.errors, sigma, self.data_std)

    @property
    def data_std(self) -> float:
        """Standard deviation of what it was trained on; 0 where that is not known."""
        return 0.0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu")

    @abstractmethod
    def _passes(self, volume: Tensor, sigma: Tensor, at_once: int) -> Iterator[Tensor]:
        """Denoised parts, one after another, in the order of `_disassemble`."""

    @abstractmethod
    def _assemble(self, parts: list[Tensor], shape: torch.Size) -> Tensor:
        """Volumes of a shape from all parts."""

    @abstractmethod
    def _disassemble(self, volume: Tensor) -> Tensor:
        """The transpose of `_assemble`."""


class SlicePrior(Prior):
    """A denoiser of single slices: a network, a closed form, another package's model; each slice of a volume by itself.

    Args:
        denoiser: ``denoiser(x, sigma)`` of ``(batch, 1, height, width)``.
        domain: where it holds; by default that of the denoiser's own errors.
    """

    def __init__(self, denoiser: Denoiser, domain: Domain | None = None) -> None:
        self.denoiser = denoiser
        errors: Mapping[float, float] = getattr(denoiser, "errors", {})
        self.domain = domain or Domain(errors=errors)
        self.data_mean = float(getattr(denoiser, "data_mean", 0.5))

    @property
    def data_std(self) -> float:
        return float(getattr(self.denoiser, "data_std", 0.0))

    @property
    def device(self) -> torch.device:
        weights = self.denoiser.parameters() if isinstance(self.denoiser, nn.Module) else iter(())
        return next((weight.device for weight in weights), torch.device("cpu"))

    def _passes(self, volume: Tensor, sigma: Tensor, at_once: int) -> Iterator[Tensor]:
        slices = self._disassemble(volume)
        levels = sigma.repeat_interleave(volume.shape[2])
        for part, level in zip(torch.split(slices, at_once), torch.split(levels, at_once), strict=True):
            yield self.denoiser(part, level)

    def _assemble(self, parts: list[Tensor], shape: torch.Size) -> Tensor:
        return torch.cat(parts).view(shape[0], shape[2], shape[1], *shape[3:]).movedim(2, 1)

    def _disassemble(self, volume: Tensor) -> Tensor:
        return volume.movedim(1, 2).flatten(0, 1)


class NeighbourPrior(Prior):
    """A network that sees a window of neighbouring slices and returns those in its middle; windows follow each other along the depth.

    Args:
        network: of windows.
        data_mean: mean intensity of the training slices; the network sees centred data.
        data_std: their standard deviation ("sigma_data").
        domain: where it holds; its suffix is what the network is told of the contrast.
        precision: type in which the network computes; scalings are always float32.
    """

    def __init__(
        self, network: NeighbourUNet, data_mean: float, data_std: float, domain: Domain, precision: torch.dtype = torch.float32
    ) -> None:
        self.network, self.data_mean, self.precision, self.domain = network, data_mean, precision, domain
        self._data_std = data_std
        config = network.config
        self.neighbours = (config.slices_in - 1) // 2
        self._contrast = config.contrasts.index(domain.suffix) if domain.suffix in config.contrasts else 0

    @property
    def data_std(self) -> float:
        return self._data_std

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _passes(self, volume: Tensor, sigma: Tensor, at_once: int) -> Iterator[Tensor]:
        config = self.network.config
        batch, depth = len(volume), volume.shape[2]
        skip, out, in_ = (f.view(-1, 1, 1, 1) for f in scalings(sigma.to(volume.dtype), self.data_std))
        centred = volume[:, 0] - self.data_mean
        seen, present = window_slices(depth, config.slices_in, config.slices_out)
        middle = (config.slices_in - config.slices_out) // 2
        # One entry a window: its volume, and its place in that.
        owner = torch.arange(batch).repeat_interleave(len(seen)).to(volume.device)
        place = torch.arange(len(seen)).repeat(batch).to(volume.device)
        seen, present = seen.to(volume.device), present.to(volume.device)
        time = network_time(sigma)
        for which, where in zip(*(torch.split(t, at_once) for t in (owner, place)), strict=True):
            slices, there = seen[where].clamp(0, depth - 1), present[where]
            window = centred[which[:, None], slices]
            contrast = torch.full((len(which),), self._contrast, device=volume.device)
            with torch.autocast(volume.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
                raw = self.network(window * in_[which] * there[:, :, None, None], time[which], there, contrast)
            kept = window[:, middle : middle + config.slices_out]
            yield self.data_mean + skip[which] * kept + out[which] * raw.to(volume.dtype)

    def _assemble(self, parts: list[Tensor], shape: torch.Size) -> Tensor:
        batch, _, depth, height, width = shape
        first = self._surplus(depth)
        return torch.cat(parts).reshape(batch, -1, height, width)[:, None, first : first + depth]

    def _disassemble(self, volume: Tensor) -> Tensor:
        out = self.network.config.slices_out
        depth = volume.shape[2]
        first = self._surplus(depth)
        padded = nn.functional.pad(volume[:, 0], (0, 0, 0, 0, first, -(first + depth) % out))
        return padded.reshape(-1, out, *volume.shape[3:])

    def _surplus(self, depth: int) -> int:
        """Slices that the first window returns in front of the volume."""
        return (-depth % self.network.config.slices_out) // 2


def window_slices(depth: int, slices_in: int, slices_out: int) -> tuple[Tensor, Tensor]:
    """Slices that each window of a volume sees, ``(windows, slices_in)``, and whether they exist.

    The windows return every slice once; what they return beyond the volume is shared out to both of its ends, so that a single slice
    lies in the middle of its window.
    """
    count = -(-depth // slices_out)
    first = -((count * slices_out - depth) // 2) - (slices_in - slices_out) // 2
    index = first + slices_out * torch.arange(count)[:, None] + torch.arange(slices_in)
    return index, (index >= 0) & (index < depth)


def as_prior(denoiser: "Prior | Denoiser") -> Prior:
    """A prior as it is; a bare denoiser of slices as a `SlicePrior`."""
    return denoiser if isinstance(denoiser, Prior) else SlicePrior(denoiser)
