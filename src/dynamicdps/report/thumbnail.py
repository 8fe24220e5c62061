"""A small picture of a volume or a slice."""

import io

import numpy as np
from numpy.typing import NDArray

from dynamicdps.report.cut import Cut
from dynamicdps.volumes import IntensityScale, Volume

PIXELS = 96
JPEG_QUALITY = 75


def thumbnail(volume: Volume) -> bytes:
    """JPEG file of the middle axial slice, the front of the head up and its left on the left, at most 96 pixels along a side.

    Raises:
        InputError: no voxel is greater than 0.
    """
    scale = IntensityScale.robust(volume.data).scale
    (values,) = Cut.through(volume, scale, 1).of(volume)
    return small_picture(values / scale, *volume.spacing[:2])


def small_picture(values: NDArray[np.floating], dx: float = 1.0, dy: float = 1.0, pixels: int = PIXELS) -> bytes:
    """JPEG file of a slice, likewise.

    Args:
        values: ``(x, y)``, 0 black to 1 white; what is not finite is black.
        dx: voxel size along x.
        dy: along y.
        pixels: most along a side.
    """
    from matplotlib.image import imsave

    pixel = max(dx, dy, max(values.shape[0] * dx, values.shape[1] * dy) / pixels)
    columns, rows = (
        np.minimum(((np.arange(max(1, int(n * d / pixel))) + 0.5) * pixel / d).astype(int), n - 1)
        for n, d in zip(values.shape, (dx, dy), strict=True)
    )
    grey = np.rint(255 * np.clip(np.nan_to_num(values[columns][:, rows]), 0, 1)).astype(np.uint8).T[::-1]
    buffer = io.BytesIO()
    imsave(buffer, np.repeat(grey[..., None], 3, axis=-1), format="jpeg", pil_kwargs={"quality": JPEG_QUALITY})
    return buffer.getvalue()
