"""How real images on a scan's grid become its k-space, and the forward model of a whole scanner that gives k-space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from dynamicdps.errors import InputError
from dynamicdps.operators.contrast import Curve
from dynamicdps.operators.kspace import centred_fft, centred_ifft, coils_as_channels, coils_as_complex
from dynamicdps.operators.linear import DataSpectrum
from dynamicdps.operators.operator import LinearOperator, Operator, Scanner, Size
from dynamicdps.operators.parameters import check_range
from dynamicdps.operators.precision import wide_type
from dynamicdps.volumes.grids import Grid

# Between these intensities a contrast has its typical slope.
_TYPICAL = (0.4, 0.6)


@dataclass(frozen=True, eq=False)
class Encoding:
    """``Q u = M F S T u``: from a real image to the samples of all coils, and back.

    T puts a box in RAS order into the grid that was measured, in the order of its file; S has the coils' sensitivities and the phase, their
    squares add up to 1; F is the orthonormal, centred Fourier transform of each slice; M keeps what was sampled. So no vector grows
    under Q, and if all of k-space is sampled, ``Q^T Q = 1``.

    Attributes:
        mask: what is sampled, booleans ``(depth, ky, kx)``.
        maps: S, complex ``(coils, depth, y, x)``, no unit.
        orientation: for the file's axes x, y, slice each: which RAS axis, and 1 or -1 for its direction.
        box: size ``(x, y, z)`` of the images in RAS order; `None` for the whole grid.
        corner: place of the box in the grid, RAS order.
    """

    mask: Tensor
    maps: Tensor
    orientation: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((0, 1), (1, 1), (2, 1))
    box: Size | None = None
    corner: Size = (0, 0, 0)

    @property
    def grid(self) -> Size:
        """What was measured, ``(x, y, z)`` in RAS order."""
        sizes = [0, 0, 0]
        for (axis, _), size in zip(self.orientation, reversed(self.mask.shape), strict=True):
            sizes[axis] = size
        return sizes[0], sizes[1], sizes[2]

    def to_kspace(self, u: Tensor) -> Tensor:
        """``Q u``: ``(batch, 1, z, y, x)`` to ``(batch, 2 coils, depth, ky, kx)``."""
        sizes = self.box or self.grid
        if tuple(u.shape[1:]) != (1, *reversed(sizes)):
            raise ValueError(f"the images have shape {tuple(u.shape)}; expected (batch, 1, {sizes[2]}, {sizes[1]}, {sizes[0]})")
        edges = [n for i in range(3) for n in (self.corner[i], self.grid[i] - self.corner[i] - sizes[i])]
        whole = functional.pad(u, edges).permute(0, 1, *self._dims).flip(self._flips)
        return coils_as_channels(self._mask(u) * centred_fft(self._maps(u) * whole))

    def to_image(self, k: Tensor) -> Tensor:
        """``Q^T k``."""
        whole = (self._maps(k).conj() * centred_ifft(self._mask(k) * coils_as_complex(k))).sum(1, keepdim=True).real
        whole = whole.flip(self._flips).permute(0, 1, *(2 + self._dims.index(2 + i) for i in range(3)))
        x, y, z = self.box or self.grid
        a, b, c = self.corner
        return whole[..., c : c + z, b : b + y, a : a + x]

    @property
    def _dims(self) -> tuple[int, ...]:
        """Which dimension of the image each of depth, y and x is."""
        return tuple(4 - self.orientation[axis][0] for axis in (2, 1, 0))

    @property
    def _flips(self) -> list[int]:
        return [4 - axis for axis in range(3) if self.orientation[axis][1] < 0]

    def _mask(self, like: Tensor) -> Tensor:
        return self.mask.to(like)

    def _maps(self, like: Tensor) -> Tensor:
        return self.maps.to(like.device, like.dtype.to_complex())


class _Encoded(Operator):
    """An inner operator's measurements as k-space; grids are those of the inner operator."""

    inner: Operator
    encoding: Encoding

    @property
    def couples_slices(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return self.encoding.to_kspace(self.inner(x))

    def select(self, index: Tensor) -> Self:
        return replace(self, inner=self.inner.select(index))  # type: ignore[type-var]

    def grid(self, image: Grid) -> Grid:
        return self.inner.grid(image)

    def covered_shape(self, measured: Size) -> Size:
        return self.inner.covered_shape(measured)

    def to_json(self) -> dict[str, Any]:
        """It has none.

        Raises:
            InputError: always.
        """
        raise InputError("the encoding of k-space is made from the scan's own data; expected no file of it; write its inner operator")


@dataclass(frozen=True, eq=False)
class EncodedOperator(_Encoded, Scanner):
    """``A(x) = Q B(x)``: what a scanner shows, B, and how it encodes that in k-space, Q.

    It takes volumes, and lies on the grids of B. It is made from a scan's own k-space and has no file.

    Attributes:
        inner: B, from images to images on the scan's grid.
        encoding: Q.
        share: share of the measurement that counts; see `measured_fraction`.

    Raises:
        InputError: the share is out of its range.
    """

    inner: Operator
    encoding: Encoding
    share: float = 1.0

    def __post_init__(self) -> None:
        check_range("share", self.share, 1e-6, 1.0)

    @property
    def linear(self) -> LinearOperator | None:
        return None if self.inner.linear is None else _EncodedLinear(self.inner.linear, self.encoding)

    @property
    def contrast(self) -> Curve | None:
        return self.inner.contrast

    def measured_fraction(self, y: Tensor) -> Tensor:
        """What noise leaves of a mean square of 1 in the measurement that `measure_kspace` makes."""
        return torch.full((len(y),), self.share, dtype=wide_type(y.device), device=y.device)

    def data_spectrum(self, shape: Sequence[int], like: Tensor, mixing: Tensor | None = None) -> DataSpectrum | None:
        """That of B with a contrast of its typical slope, in coordinates of the image."""
        image = self.encoding.to_image(like)
        found = self.inner.data_spectrum(shape, image, mixing)
        if found is None:
            return None
        low, high = (self.inner.typical_value(value) for value in _TYPICAL)
        slope = max((high - low) / (_TYPICAL[1] - _TYPICAL[0]), 1e-3)
        return _EncodedSpectrum(found.to_basis, found.from_basis, found.values, found.row_sums, self.encoding, slope)

    def typical_value(self, x: float) -> float:
        return self.inner.typical_value(x)

    def __str__(self) -> str:
        coils = len(self.encoding.maps)
        return f"Encoding({coils} coil{'s' * (coils > 1)}) @ {self.inner}"


@dataclass(frozen=True, eq=False)
class _EncodedLinear(_Encoded, LinearOperator):
    """The linear part of `EncodedOperator`."""

    inner: LinearOperator
    encoding: Encoding

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        return self.inner.adjoint(self.encoding.to_image(w), shape)


@dataclass(frozen=True, eq=False)
class _EncodedSpectrum(DataSpectrum):
    """The spectrum of B, for a measurement of which Q made k-space.

    With C the inverse that is known in the image, ``Q C Q^T`` acts on what Q reaches, and on the rest there is the noise alone:
    ``Q C Q^T + (1 - Q Q^T) / n^2`` is positive, and where all of k-space is sampled it is exactly as good as C.
    """

    encoding: Encoding
    slope: float

    def preconditioner(self, row_sums: Tensor, r: Tensor, noise: float) -> Callable[[Tensor], Tensor]:
        # Sums of rows mean nothing in k-space: those of the image stand for them.
        inside = super().preconditioner(self.slope**2 * self.row_sums * torch.ones_like(self.encoding.to_image(row_sums)), r, noise)

        def apply(q: Tensor) -> Tensor:
            image = self.encoding.to_image(q)
            return q / noise**2 + self.encoding.to_kspace(inside(image) - image / noise**2)

        return apply
