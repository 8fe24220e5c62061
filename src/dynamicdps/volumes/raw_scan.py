"""Raw k-space: Cartesian lines of separate slices, and their images."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.header_checks import check_voxels
from dynamicdps.volumes.volume import Volume, check_intensities, to_ras

# Far above any receiver's numbers, and squares of it can be added up.
_LARGEST = 1e15
# Voxels that differ by less count as square, as the fit of operators has it.
_SQUARE = 0.01


@dataclass(frozen=True)
class RawScan:
    """What the receiver gave, centred: index ``n // 2`` of both axes is the centre of k-space and of the image.

    Attributes:
        kspace: complex64, ``(coils, depth, ky, kx)``, the order of the tensors that operators take.
        affine: indices of the image ``(x, y, slice)`` to RAS mm; this order and not RAS order is that of `kspace`.
        acquisition: how it was made.
    """

    kspace: NDArray[np.complex64]
    affine: NDArray[np.float64]
    acquisition: Acquisition = field(default_factory=Acquisition)

    @property
    def images(self) -> NDArray[np.complex64]:
        """Complex images by the orthonormal inverse Fourier transform of each slice, ``(coils, depth, y, x)``."""
        plane = (-2, -1)
        images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(self.kspace, axes=plane), axes=plane, norm="ortho"), axes=plane)
        return np.asarray(images, dtype=np.complex64)

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """Where something was sampled: not exactly 0 in every coil, ``(depth, ky, kx)``."""
        return np.asarray((self.kspace != 0).any(0))

    @property
    def orientation(self) -> NDArray[np.float64]:
        """Which RAS axis each of the image's axes x, y, slice is, and its direction: nibabel's orientation array, ``(3, 2)``."""
        return np.asarray(io_orientation(self.affine), dtype=np.float64)

    def with_square_voxels(self) -> "RawScan":
        """The same samples among zeros, so that voxels of the image are square in the plane, as long as the shorter edge was.

        Nothing is interpolated: what was not sampled is 0, and the field of view stays. Intensities of the image fall by the root of
        the ratio of the matrices, because the transform is orthonormal.
        """
        size = np.linalg.norm(self.affine[:3, :2], axis=0)
        if abs(size[0] / size[1] - 1) <= _SQUARE:
            return self
        old = np.array(self.kspace.shape[:-3:-1])
        new = np.round(old * size / size.min()).astype(int)
        check_voxels((*self.kspace.shape[:2], *new.tolist()), "the k-space with square voxels")
        before = new // 2 - old // 2
        pad = [(0, 0), (0, 0), *((int(b), int(n - o - b)) for b, n, o in zip(before[::-1], new[::-1], old[::-1], strict=True))]
        affine = self.affine.copy()
        affine[:3, :2] *= old / new
        # The middle of the image stays where it is.
        affine[:3, 3] += self.affine[:3, :2] @ (old // 2) - affine[:3, :2] @ (new // 2)
        return replace(self, kspace=np.pad(self.kspace, pad), affine=affine)

    def magnitude(self) -> Volume:
        """Root of the sum of squares over coils, in RAS order."""
        return self._volume(np.sqrt((np.abs(self.images) ** 2).sum(0)))

    def parts(self, coil: int = 0) -> tuple[Volume, Volume]:
        """Real and imaginary part of one coil's images, in RAS order."""
        image = self.images[coil]
        return self._volume(image.real), self._volume(image.imag)

    def _volume(self, data: NDArray[Any]) -> Volume:
        return to_ras(data.transpose(2, 1, 0), self.affine, "the k-space")


def check_samples(kspace: NDArray[np.complex64], name: str) -> None:
    """Refuse what is no k-space.

    Raises:
        InputError: a value is not finite or larger than 1e15, or all are of one size.
    """
    with np.errstate(all="ignore"):
        sizes = np.abs(kspace)
    check_intensities(sizes, name)
    if sizes.max() > _LARGEST:
        raise InputError(f"{name} holds values of up to {sizes.max():g}; expected at most {_LARGEST:g}; divide them all by one number")
