"""The conditional model of whole volumes: any voxel size, any slice direction, from the interpolated scan to a sharp brain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from dynamicdps.conditional.model import CENTRE, SPREAD
from dynamicdps.conditional.scanner_draws import spline_matrix
from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet
from dynamicdps.diffusion import ModelFile, read_model
from dynamicdps.operators import Operator, ScanOperator
from dynamicdps.operators.sampling import along
from dynamicdps.volumes import IntensityScale, Volume
from dynamicdps.volumes.grids import Grid, sample

# Smoothing before the intensity scale is read: the brightest percent of a noisy scan is its noise.
SCALE_MM = 1.5
# A stack of fewer slices of the image is continued by its last one: the network halves three times.
FEWEST = 8


class ConditionalVolumeUNet(nn.Module):
    """A `VolumeUNet` as a conditional model: the interpolated scan plus a learned correction.

    Args:
        network: what learns the correction.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, interpolated: Tensor, voxel: Tensor) -> Tensor:
        """The image of an interpolated scan.

        Args:
            interpolated: ``(batch, 1, depth, height, width)``, white matter near 0.95, 0 outside the brain.
            voxel: edges of the measured voxel along depth, height and width in image voxels, ``(batch, 3)``.

        Returns:
            Image intensities, the same shape.
        """
        correction: Tensor = self.network((interpolated - CENTRE) / SPREAD, voxel.log2())
        return interpolated + SPREAD * correction.float()

    @torch.no_grad()
    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int], chunk: int = 8) -> Tensor:
        """Initial image of a measurement whose grid shares axes and centre with the image's.

        Args:
            y: measurements, ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``, image intensities.
            operator: only its voxel sizes are used.
            shape: shape of the image tensor.
            chunk: volumes a network pass.
        """
        factors = operator.voxel_factors()
        single = y.ndim == 4
        x = y[:, :, None] if single else y
        full = (1, *shape[-2:]) if single else tuple(shape[-3:])
        for axis, factor in zip((-1, -2, -3), factors, strict=True):
            if factor != 1.0 or x.shape[axis] != full[axis]:
                places = (np.arange(full[axis]) - (full[axis] - 1) / 2) / factor + (x.shape[axis] - 1) / 2
                x = along(x, torch.from_numpy(spline_matrix(x.shape[axis], places)).to(x), axis)
        voxel = x.new_tensor(factors[::-1]).expand(len(x), 3)
        parts = zip(torch.split(x, chunk), torch.split(voxel, chunk), strict=True)
        found = torch.cat([self._continued(*part) for part in parts])
        return found.clamp_min(0).reshape(tuple(shape))

    @torch.no_grad()
    def enhance_scan(self, scan: Volume, operator: ScanOperator, scale: float, mask: Volume | None = None) -> Tensor:
        """Initial image of a scan on the image grid of its operator, ``(1, 1, depth, height, width)``, image intensities.

        Args:
            scan: scanner units, on any grid; with `mask` also what surrounds the brain.
            operator: only the image grid is taken from it.
            scale: unused; the network's own scale is read from the scan.
            mask: brain with a soft edge, 0 to 1, on the grid of the scan.
        """
        del scale
        shape, affine = operator.grid_for(scan)
        return self.on_grid(scan, Grid(shape, affine, scan.native), mask)

    @torch.no_grad()
    def on_grid(self, scan: Volume, grid: Grid, mask: Volume | None = None) -> Tensor:
        """As `enhance_scan`, on any grid."""
        interpolated = sample(scan, grid, order=3).data
        if mask is not None:
            # Weighted on the image's grid: a mask that is cut along thick slices would show as stairs.
            interpolated = interpolated * sample(mask, grid).data
        edges = np.linalg.norm(grid.affine[:3, :3], axis=0)
        smooth = ndimage.gaussian_filter(interpolated, SCALE_MM / edges)
        x = torch.from_numpy(np.ascontiguousarray(interpolated.transpose(2, 1, 0)) / np.float32(IntensityScale.robust(smooth).scale))
        voxel = _edges_along(scan, grid)
        return self._continued(x[None, None].float(), voxel[None]).clamp_min(0)

    def _continued(self, x: Tensor, voxel: Tensor) -> Tensor:
        """The network's image of a volume; one of few slices is continued at both ends."""
        before = max(0, FEWEST - x.shape[2]) // 2
        after = max(0, FEWEST - x.shape[2]) - before
        if before + after:
            x = torch.cat([x[:, :, :1].expand(-1, -1, before, -1, -1), x, x[:, :, -1:].expand(-1, -1, after, -1, -1)], dim=2)
        found: Tensor = self(x, voxel)
        return found[:, :, before : found.shape[2] - after]


def _edges_along(scan: Volume, grid: Grid) -> Tensor:
    """Edges of the scan's voxels along z, y, x of the grid in its voxels, each by the axis of the scan that is nearest to it."""
    matrix = np.abs(np.linalg.inv(grid.affine)[:3, :3] @ scan.affine[:3, :3])
    nearest = (matrix / np.linalg.norm(matrix, axis=0)).argmax(1)
    lengths = np.linalg.norm(matrix, axis=0)[nearest]
    return torch.tensor(lengths[::-1].copy(), dtype=torch.float32)


def volume_unet_of(model: ModelFile, device: str = "cpu") -> ConditionalVolumeUNet:
    """The conditional model of volumes that a model file holds, ready for inference."""
    network = model.build(lambda values: VolumeUNet(VolumeConfig.from_json(values)))
    return ConditionalVolumeUNet(network).to(device).eval()


def load_volume_unet(name: str | Path, device: str = "cpu") -> ConditionalVolumeUNet:
    """A conditional model of volumes by its bundled name or file, ready for inference.

    Raises:
        InputError: as `dynamicdps.diffusion.read_model`.
    """
    return volume_unet_of(read_model(name, "volume-unet"), device)
