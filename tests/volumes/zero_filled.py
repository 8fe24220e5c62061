"""A head whose k-space was cut, tapered and filled with zeros."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.volumes import Volume

FIELD_MM = 200.0


def measured(
    matrix: tuple[int, int], taper: float = 0.0, noise: float = 0.03, ghost: float = 0.0, grain: float = 0.5, unsteady: float = 0.0
) -> tuple[NDArray[np.complex128], Volume]:
    """K-space of a head of 4 slices of 5 mm in a square field of view, and the magnitude image on the matrix that was acquired.

    Args:
        matrix: that was acquired.
        taper: share of k-space over which it falls to 0.
        noise: standard deviation in each channel, everywhere.
        ghost: of the whole field of view.
        grain: of the tissue.
        unsteady: noise beside the other, inside the head alone.
    """
    random = np.random.default_rng(1)
    places = [np.linspace(-1, 1, n, endpoint=False) for n in matrix]
    radius = np.hypot(places[0][:, None] / 0.75, places[1][None] / 0.9)[..., None]
    texture = ndimage.gaussian_filter(random.normal(size=(*matrix, 4)), (1.0, 1.0, 0))
    image: NDArray[np.complex128] = np.where(radius < 1, 0.7 + grain * texture, 0.0).astype(complex)
    # Faint, smooth and everywhere, as of a tissue boundary that rings.
    image = image + ghost * np.cos(50 * places[0])[:, None, None]
    image = image + noise * (random.normal(size=image.shape) + 1j * random.normal(size=image.shape))
    if unsteady:
        image = image + unsteady * (radius < 1) * (random.normal(size=image.shape) + 1j * random.normal(size=image.shape))
    waves: NDArray[np.complex128] = np.fft.fft2(image, axes=(0, 1))
    for axis, n in enumerate(matrix):
        edge = np.clip((1 - np.abs(np.fft.fftfreq(n)) * 2) / max(taper, 1e-9), 0, 1)
        waves = waves * np.moveaxis((0.5 - 0.5 * np.cos(np.pi * edge))[:, None, None], 0, axis)
    return waves, scan_of(waves)


def scan_of(waves: NDArray[np.complex128]) -> Volume:
    x, y = waves.shape[:2]
    affine = np.diag([FIELD_MM / x, FIELD_MM / y, 5.0, 1.0])
    affine[:3, 3] = (-90, -110, 12)
    return Volume(np.abs(np.fft.ifft2(waves, axes=(0, 1))).astype(np.float32), affine)


def zero_filled(waves: NDArray[np.complex128], matrix: tuple[int, int]) -> Volume:
    inner = np.fft.fftshift(waves, axes=(0, 1))
    filled = np.zeros((*matrix, waves.shape[2]), complex)
    low = [n // 2 - m // 2 for n, m in zip(matrix, waves.shape[:2], strict=True)]
    filled[low[0] : low[0] + waves.shape[0], low[1] : low[1] + waves.shape[1]] = inner
    back: NDArray[np.complex128] = np.fft.ifftshift(filled, axes=(0, 1)) * float(np.prod(matrix) / np.prod(waves.shape[:2]))
    return scan_of(back)
