"""Raw scans of a known image: real values times smooth phase and sensitivities, sampled as asked, with noise."""

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from dynamicdps.volumes import RawScan, Volume

PLANE = (-2, -1)


def maps_of(coils: int, shape: tuple[int, int, int], turns: float = 1.0) -> np.ndarray:
    """Sensitivities with a phase, ``(coils, depth, y, x)``, squares adding up to 1: coils around the head, a bowl of phase."""
    depth, ny, nx = shape
    z, y, x = np.meshgrid(np.linspace(-1, 1, depth), np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    angles = 2 * np.pi * np.arange(coils) / coils
    size = np.stack([np.exp(-((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2)) for a in angles])
    phase = turns * (1.5 * x**2 + y + 0.3 * z) + np.stack([a + 0.5 * np.cos(a) * x for a in angles])
    return size / np.sqrt((size**2).sum(0)) * np.exp(1j * phase)


def make_raw(
    image: Volume,
    *,
    coils: int = 1,
    mask: np.ndarray | None = None,
    noise: float = 0.0,
    orientation: str = "RAS",
    seed: int = 0,
) -> RawScan:
    """The k-space of an image in RAS order.

    Args:
        image: what the scanner shows.
        coils: receivers.
        mask: ``(ky, kx)`` in the order of the file; by default all is sampled.
        noise: standard deviation of the real and of the imaginary part of each sample.
        orientation: of the file's axes.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    data = apply_orientation(image.data, turn).transpose(2, 1, 0)
    seen = maps_of(coils, data.shape) * data
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(seen, axes=PLANE), norm="ortho"), axes=PLANE)
    kspace = kspace + noise * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    if mask is not None:
        kspace = kspace * mask
    return RawScan(kspace.astype(np.complex64), image.affine @ inv_ornt_aff(turn, image.shape))
