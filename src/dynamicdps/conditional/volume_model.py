"""The conditional model of whole volumes: any voxel size, any slice direction, from the interpolated scan to a sharp brain."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from dynamicdps.conditional.model import CENTRE, SPREAD
from dynamicdps.conditional.scanner_draws import spline_matrix
from dynamicdps.conditional.volume_network import VolumeConfig, VolumeUNet
from dynamicdps.models.model_file import ModelFile
from dynamicdps.operators import Operator, ScanOperator
from dynamicdps.operators.image_grid import voxel_factors
from dynamicdps.operators.sampling import along
from dynamicdps.volumes import IntensityScale, Volume
from dynamicdps.volumes.grids import Grid, sample

# Smoothing before the intensity scale is read: the brightest percent of a noisy scan is its noise.
SCALE_MM = 1.5
# A stack of fewer slices of the image is continued by its first and last ones: the network halves three times.
FEWEST = 8


class ConditionalVolumeUNet(nn.Module):
    """A `VolumeUNet` as a conditional model: the interpolated scan plus a learned correction.

    It undoes blur, thick slices and noise and leaves contrast and shading as they are, so that it serves scans of any contrast; the
    contrast is then undone by the operator's curve, pointwise, where it is sharp.

    Args:
        network: what learns the correction.
        precision: type in which the network computes; what it corrects is always float32.
    """

    keeps_contrast = True

    def __init__(self, network: nn.Module, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, interpolated: Tensor, voxel: Tensor) -> Tensor:
        """What an ideal scanner would show of the brain, in the contrast of the scan.

        Args:
            interpolated: ``(batch, 1, depth, height, width)``, white matter near 0.95, 0 outside the brain.
            voxel: edges of the measured voxel along depth, height and width in image voxels, ``(batch, 3)``.

        Returns:
            The same shape and scale.
        """
        with torch.autocast(interpolated.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            correction: Tensor = self.network((interpolated - CENTRE) / SPREAD, voxel.log2())
        return interpolated + SPREAD * correction.float()

    @torch.no_grad()
    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int], chunk: int = 8) -> Tensor:
        """Initial image of a measurement whose grid shares axes and centre with the image's.

        Args:
            y: measurements, ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
            operator: its voxel sizes and its contrast are used.
            shape: shape of the image tensor.
            chunk: volumes a network pass.

        Returns:
            Image intensities.
        """
        x = y[:, :, None] if y.ndim == 4 else y
        full = (1, *shape[-2:]) if y.ndim == 4 else tuple(shape[-3:])
        depth, height, width = full
        factors = voxel_factors(operator, (width, height, depth))
        for axis, factor in zip((-1, -2, -3), factors, strict=True):
            if factor != 1.0 or x.shape[axis] != full[axis]:
                places = (np.arange(full[axis]) - (full[axis] - 1) / 2) / factor + (x.shape[axis] - 1) / 2
                x = along(x, torch.from_numpy(spline_matrix(x.shape[axis], places)).to(x), axis)
        scales = x.new_tensor([_scale(image[0].cpu().numpy(), (1.0, 1.0, 1.0)) for image in x]).view(-1, 1, 1, 1, 1)
        voxel = x.new_tensor(factors[::-1]).expand(len(x), 3)
        parts = zip(torch.split(x / scales, chunk), torch.split(voxel, chunk), strict=True)
        found = scales * torch.cat([self._continued(*part) for part in parts])
        return without_contrast(found.reshape(tuple(shape)), operator)

    @torch.no_grad()
    def enhance_scan(self, scan: Volume, operator: ScanOperator, scale: float, mask: Volume | None = None) -> Tensor:
        """Initial image of a scan on the image grid of its operator, ``(1, 1, depth, height, width)``, image intensities.

        Args:
            scan: scanner units, without shading; with `mask` also what surrounds the brain.
            operator: its image grid and its contrast are used.
            scale: scanner units of one image-intensity unit.
            mask: brain with a soft edge, 0 to 1, on the grid of the scan.
        """
        shape, affine = operator.grid_for(scan)
        found = self.on_grid(scan, Grid(shape, affine, scan.native), mask) / scale
        return without_contrast(found, operator.operator)

    @torch.no_grad()
    def on_grid(self, scan: Volume, grid: Grid, mask: Volume | None = None) -> Tensor:
        """What an ideal scanner would show of the brain of a scan, on any grid, ``(1, 1, depth, height, width)``, in the scan's units."""
        interpolated = sample(scan, grid, order=3).data
        if mask is not None:
            # Weighted on the image's grid: a mask that is cut along thick slices would show as stairs.
            interpolated = interpolated * sample(mask, grid).data
        x, y, z = np.linalg.norm(grid.affine[:3, :3], axis=0).tolist()
        volume = np.ascontiguousarray(interpolated.transpose(2, 1, 0), dtype=np.float32)
        scale = _scale(volume, (z, y, x))
        return scale * self._continued(torch.from_numpy(volume)[None, None] / scale, _edges_along(scan, grid)[None])

    def _continued(self, x: Tensor, voxel: Tensor) -> Tensor:
        """The network's image of a volume, not below 0; one of few slices is continued at both ends.

        It is the mean of the images of the volume and of its mirror image, left for right: heads are as likely either way, and the mean of
        two answers errs less.
        """
        before = max(0, FEWEST - x.shape[2]) // 2
        after = max(0, FEWEST - x.shape[2]) - before
        if before + after:
            x = torch.cat([x[:, :, :1].expand(-1, -1, before, -1, -1), x, x[:, :, -1:].expand(-1, -1, after, -1, -1)], dim=2)
        found: Tensor = (self(x, voxel) + self(x.flip(-1), voxel).flip(-1)) / 2
        return found[:, :, before : found.shape[2] - after].clamp_min(0)


def without_contrast(measured: Tensor, operator: Operator) -> Tensor:
    """Image intensities that an operator's contrast sends to the given ones; those without a contrast are kept."""
    contrast = operator.contrast
    return measured if contrast is None or contrast.is_identity else contrast.inverse(measured).clamp_min(0)


def _scale(interpolated: np.ndarray, edges: tuple[float, float, float]) -> float:
    """Units of the scan that are 1 for the network, from its smoothed image ``(z, y, x)``; 1 for an empty one."""
    smooth = ndimage.gaussian_filter(interpolated, [SCALE_MM / edge for edge in edges])
    return IntensityScale.robust(smooth).scale if (smooth > 0).any() else 1.0


def _edges_along(scan: Volume, grid: Grid) -> Tensor:
    """Edges of the scan's voxels along z, y, x of the grid in its voxels, each by the axis of the scan that is nearest to it."""
    matrix = np.abs(np.linalg.inv(grid.affine)[:3, :3] @ scan.affine[:3, :3])
    lengths = np.linalg.norm(matrix, axis=0)
    nearest = (matrix / lengths).argmax(1)
    return torch.tensor(lengths[nearest][::-1].copy(), dtype=torch.float32)


def volume_unet_of(model: ModelFile, device: str = "cpu", precision: torch.dtype = torch.float32) -> ConditionalVolumeUNet:
    """The conditional model of volumes that a model file holds, ready for inference."""
    network = model.build(lambda values: VolumeUNet(VolumeConfig.from_json(values)))
    return ConditionalVolumeUNet(network, precision).to(device).eval()
