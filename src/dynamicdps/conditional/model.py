"""What every conditional model is: the interpolated measurement plus a learned correction."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from dynamicdps.operators import Operator, ScanOperator, to_image_grid
from dynamicdps.volumes import Volume, to_batch

CENTRE, SPREAD = 0.5, 0.3


class InitialModel(Protocol):
    """What makes an initial image of a measurement.

    Attributes:
        keeps_contrast: whether the image has the measurement's contrast until the operator's curve undoes it. If so it says nothing of
            that curve.
    """

    keeps_contrast: bool

    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int], chunk: int = 8) -> Tensor:
        """Initial image of a measurement in image intensities; see `ConditionalModel.enhance`."""

    def enhance_scan(self, scan: Volume, operator: ScanOperator, scale: float, mask: Volume | None = None) -> Tensor:
        """Initial image of a scan; see `ConditionalModel.enhance_scan`."""


class ConditionalModel(nn.Module):
    """Maps measurements, interpolated on the image grid, to images: interpolation plus a learned correction.

    Args:
        network: what learns the correction.
    """

    keeps_contrast = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def correction(self, inputs: Tensor) -> Tensor:
        """Correction in units of `SPREAD` from intensities scaled by `scaled`, ``(batch, 1, height, width)`` both."""
        out: Tensor = self.network(inputs)
        return out

    def forward(self, interpolated: Tensor) -> Tensor:
        """``(batch, 1, height, width)`` to the same shape, both in image intensities."""
        return interpolated + SPREAD * self.correction(scaled(interpolated)).float()

    @torch.no_grad()
    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int], chunk: int = 8) -> Tensor:
        """Initial image of a measurement.

        Args:
            y: measurements, ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
            operator: only its grid is used.
            shape: shape of the image tensor.
            chunk: slices a network pass.
        """
        slices = to_image_grid(y, operator, shape).reshape(-1, 1, *shape[-2:])
        return torch.cat([self(part) for part in torch.split(slices, chunk)]).clamp_min(0).reshape(tuple(shape))

    def enhance_scan(self, scan: Volume, operator: ScanOperator, scale: float, mask: Volume | None = None) -> Tensor:
        """Initial image of a scan on the image grid of its operator, ``(1, 1, depth, height, width)``, image intensities.

        Args:
            scan: scanner units.
            operator: its forward model, for voxel sizes and the image grid.
            scale: scanner units of one image-intensity unit.
            mask: 1 in the brain, less outside of it, on the grid of the scan: what surrounds the brain is left out.
        """
        shape, _ = operator.grid_for(scan)
        data = scan.data if mask is None else scan.data * (mask.data >= 1)
        y = to_batch(data / scale)
        return self.enhance(y, operator.operator, (1, 1, *shape[::-1]))


def scaled(image: Tensor) -> Tensor:
    """Image intensities in the units that networks see: about mean 0 and standard deviation 1."""
    return ((image - CENTRE) / SPREAD).to(memory_format=torch.channels_last)
