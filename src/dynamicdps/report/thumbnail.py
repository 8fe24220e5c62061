"""A small picture of a volume."""

import io

import numpy as np

from dynamicdps.report.cut import Cut
from dynamicdps.volumes import IntensityScale, Volume

PIXELS = 96
JPEG_QUALITY = 75


def thumbnail(volume: Volume) -> bytes:
    """JPEG file of the middle axial slice, the front of the head up and its left on the left, at most 96 pixels along a side.

    Raises:
        InputError: no voxel is greater than 0.
    """
    from matplotlib.image import imsave

    scale = IntensityScale.robust(volume.data).scale
    (values,) = Cut.through(volume, scale, 1).of(volume)
    dx, dy, _ = volume.spacing
    pixel = max(dx, dy, max(values.shape[0] * dx, values.shape[1] * dy) / PIXELS)
    columns, rows = (
        np.minimum(((np.arange(max(1, int(n * d / pixel))) + 0.5) * pixel / d).astype(int), n - 1)
        for n, d in zip(values.shape, (dx, dy), strict=True)
    )
    grey = np.rint(255 * np.clip(values[columns][:, rows] / scale, 0, 1)).astype(np.uint8).T[::-1]
    buffer = io.BytesIO()
    imsave(buffer, np.repeat(grey[..., None], 3, axis=-1), format="jpeg", pil_kwargs={"quality": JPEG_QUALITY})
    return buffer.getvalue()
