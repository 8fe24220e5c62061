"""Make a low-field scan from a good one."""

from dataclasses import replace

import torch

from dynamicdps.errors import InputError
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.noise import add_noise
from dynamicdps.operators.operator_file import ScanOperator
from dynamicdps.volumes import IntensityScale, Volume, from_slices, to_slices
from dynamicdps.volumes.grids import native_grid


def simulate(scan: Volume, operator: LowField, *, seed: int = 0, scale: IntensityScale | None = None) -> tuple[Volume, ScanOperator]:
    """Measure a scan with an operator's scanner: ``y = A(x) + noise`` on the scanner's own grid.

    Args:
        scan: skull-stripped scan, any units.
        operator: the degradation; its `image_spacing` is taken from the scan.
        seed: of the noise.
        scale: intensity scale of the scan; by default robust inside the brain.

    Returns:
        The measurement in the scan's units, and the operator with both grids and the intensity scale.

    Raises:
        InputError: the scan has fewer than 8 voxels along x or y, or no voxel greater than 0.
    """
    if min(scan.shape[:2]) < 8:
        raise InputError(
            f"the scan has {scan.shape[0]} x {scan.shape[1]} voxels in the plane; expected at least 8 x 8; check the orientation"
        )
    scale = scale or IntensityScale.robust(scan.data)
    operator = replace(operator, image_spacing=scan.spacing[2])
    slices = to_slices(scale.apply(scan).data)
    clean = operator(slices.movedim(0, 1)[None])
    noisy = add_noise(clean, operator.noise_std, [torch.Generator().manual_seed(seed)], operator.noise)
    data = from_slices(noisy[0].movedim(0, 1)) * scale.scale
    measurement = Volume(data, operator.grid(native_grid(scan)).affine, scan.native)
    return measurement, ScanOperator(operator, scan.shape, scan.affine, scale.scale)
