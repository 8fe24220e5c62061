"""Make a poor scan from a good one."""

from dataclasses import replace

import numpy as np
import torch

from dynamicdps.errors import InputError
from dynamicdps.operators.low_field import LowField
from dynamicdps.operators.operator import Composition, Operator
from dynamicdps.operators.scan_operator import ScanOperator, require_noise
from dynamicdps.operators.slice_profile import SliceProfile
from dynamicdps.volumes import IntensityScale, Volume, from_slices, to_batch
from dynamicdps.volumes.grids import Grid, native_grid


def simulate(scan: Volume, scanner: ScanOperator, *, seed: int = 0, scale: IntensityScale | None = None) -> tuple[Volume, ScanOperator]:
    """Measure a scan: ``y = A(x) + noise`` on the scanner's own grid.

    Args:
        scan: skull-stripped scan, any units.
        scanner: an operator of any type and its noise; where it knows lengths in mm, its `image_spacing` is taken from the scan.
        seed: of the noise.
        scale: intensity scale of the scan; by default robust inside the brain.

    Returns:
        The measurement in the scan's units, and the operator with both grids and the intensity scale.

    Raises:
        InputError: the scan has fewer than 8 voxels along x or y, or no voxel greater than 0, the operator does not measure images, or
            it comes without its noise.
    """
    require_noise(scanner)
    if min(scan.shape[:2]) < 8:
        raise InputError(
            f"the scan has {scan.shape[0]} x {scan.shape[1]} voxels in the plane; expected at least 8 x 8; check the orientation"
        )
    scale = scale or IntensityScale.robust(scan.data)
    grid = native_grid(scan)
    operator = _on_grid(scanner.operator, grid)
    clean = operator(to_batch(scale.apply(scan).data))
    measured = operator.grid(grid)
    if tuple(clean.shape) != (1, 1, *measured.shape[::-1]):
        raise InputError(
            f"{type(operator).__name__} gives {tuple(clean.shape)}; expected one image on the grid that it says, "
            f"{(1, 1, *measured.shape[::-1])}; raw k-space cannot be simulated as a scan"
        )
    noisy = scanner.noise.draw(clean, [torch.Generator().manual_seed(seed)])
    data = from_slices(noisy) * scale.scale
    return Volume(data, measured.affine, scan.native), ScanOperator(operator, scanner.noise, scan.shape, scan.affine, scale.scale)


def _on_grid(operator: Operator, image: Grid) -> Operator:
    """The operator with the slice distance of the image grid, which thicknesses in mm refer to."""
    if isinstance(operator, LowField | SliceProfile):
        return replace(operator, image_spacing=float(np.linalg.norm(image.affine[:3, :3], axis=0)[2]))
    if not isinstance(operator, Composition):
        return operator
    parts: list[Operator] = []
    for part in reversed(operator.operators):
        parts.insert(0, _on_grid(part, image))
        image = parts[0].grid(image)
    return Composition(tuple(parts))
