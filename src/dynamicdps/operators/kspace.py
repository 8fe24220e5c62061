"""Cartesian k-space: the plane's Fourier transform, coils, off-resonance, and which lines are sampled."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dynamicdps.operators.linear import LinearModel, SpectralModel
from dynamicdps.operators.operator import LinearOperator, SameGrid
from dynamicdps.operators.parameters import as_mask, check_finite, fit_map, mean_square


@dataclass(frozen=True, eq=False)
class KSpace(LinearOperator, SameGrid):
    """``y_c = M F(S_c exp(i phase) x)`` for each coil c (Pruessmann et al. 1999).

    F is orthonormal and centred: index ``n // 2`` of both axes is the centre of k-space and of the image. Images are real
    ``(batch, 1, [depth,] height, width)`` or complex with their two parts as channels ``(batch, 2, ...)``. Measurements are
    ``(batch, 2 coils, ...)``, the real and the imaginary part of each coil, with zeros where nothing is sampled. Noise is white in
    both parts. Where nothing is sampled the residual is 0, so that the misfit of an image that only noise is left of is the root
    of the sampled share, not 1.

    Attributes:
        mask: 1 where k-space is sampled, ``(height, width)``, ``(depth, height, width)`` or ``(batch, 1, ...)``, its centre in the
            middle (see `uniform_mask` and the others).
        coils: complex sensitivities, ``(coils, height, width)`` or ``(batch, coils, height, width)``, no unit; `None` is one coil
            of sensitivity 1.
        phase: phase that off-resonance leaves at the echo, radians, ``(height, width)``, ``(depth, height, width)`` or
            ``(batch, 1, ...)``.

    Raises:
        InputError: a parameter has the wrong shape or values.
    """

    mask: Tensor = field(metadata={"dims": 3})
    coils: Tensor | None = field(default=None, metadata={"dims": 3})
    phase: Tensor | None = field(default=None, metadata={"dims": 3})

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", as_mask("mask", self.mask, (2, 3, 4, 5)))
        if self.coils is not None:
            check_finite("coils", self.coils, (3, 4))
        if self.phase is not None:
            check_finite("phase", self.phase, (2, 3, 4, 5))

    @property
    def couples_slices(self) -> bool:
        return any(value is not None and value.ndim in (3, 5) and value.shape[-3] > 1 for value in (self.mask, self.phase))

    def measured_fraction(self, y: Tensor) -> Tensor:
        """Share that is measured; what is not has to be 0 in the measurement too."""
        return mean_square("mask", self.mask, y[:, :1])

    def forward(self, x: Tensor) -> Tensor:
        mask, maps = self._maps(x)
        return coils_as_channels(mask * centred_fft(maps * _as_complex(x)))

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        mask, maps = self._maps(w.new_empty((len(w), 1, *w.shape[2:])))
        back = (maps.conj() * centred_ifft(mask * coils_as_complex(w))).sum(1, keepdim=True)
        return back.real if shape[1] == 1 else coils_as_channels(back)

    def model(self, shape: Sequence[int], like: Tensor, noise_std: Tensor) -> LinearModel:
        """For complex images and one coil the Fourier transform diagonalises it; the singular values are the mask.

        A real image has half as many unknowns as its k-space has numbers, and lines on both sides of the centre share them: no basis
        is known then, nor for several coils, and the inverses are iterative.
        """
        if self.coils is not None or shape[1] == 1:
            return super().model(shape, like, noise_std)
        mask, maps = self._maps(like)

        def to_kspace(x: Tensor) -> Tensor:
            return coils_as_channels(centred_fft(maps * _as_complex(x)))

        def to_image(k: Tensor) -> Tensor:
            return coils_as_channels(maps.conj() * centred_ifft(_as_complex(k)))

        return SpectralModel(noise_std, to_kspace, to_image, lambda w: w, lambda c: c, mask)

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mask as numbers, and coils times phase as complex ones, both to broadcast over ``(batch, coils, ...)``."""
        if x.shape[1] > 2:
            raise ValueError(f"the image has {x.shape[1]} channels; expected 1 (real) or 2 (real and imaginary part)")
        mask = fit_map("mask", self.mask, x).to(x.dtype)
        maps = torch.ones([1] * x.ndim, dtype=x.dtype.to_complex(), device=x.device)
        if self.phase is not None:
            angle = fit_map("phase", self.phase, x).to(x.dtype)
            maps = torch.polar(torch.ones_like(angle), angle)
        if self.coils is not None:
            coils = self.coils if self.coils.ndim == 4 else self.coils[None]
            if tuple(coils.shape[-2:]) != tuple(x.shape[-2:]) or (len(coils) not in (1, len(x))):
                raise ValueError(f"coils has shape {tuple(self.coils.shape)}; expected one that fits images of shape {tuple(x.shape)}")
            coils = coils.to(x.device, x.dtype.to_complex())
            maps = maps * (coils if x.ndim == 4 else coils[:, :, None])
        return mask, maps


def centred_fft(x: Tensor) -> Tensor:
    """Orthonormal Fourier transform of the last two axes, zero frequency and image centre at index ``n // 2``."""
    out: Tensor = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))
    return out


def centred_ifft(k: Tensor) -> Tensor:
    """Inverse and adjoint of `centred_fft`."""
    out: Tensor = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))
    return out


def coils_as_complex(w: Tensor) -> Tensor:
    """``(batch, 2 coils, ...)``, the real and the imaginary part of each coil, as complex ``(batch, coils, ...)``."""
    k = w.reshape(len(w), -1, 2, *w.shape[2:])
    return torch.complex(k[:, :, 0], k[:, :, 1])


def coils_as_channels(z: Tensor) -> Tensor:
    """Inverse of `coils_as_complex`."""
    return torch.stack([z.real, z.imag], dim=2).flatten(1, 2)


def _as_complex(x: Tensor) -> Tensor:
    return torch.complex(x[:, :1], x[:, 1:] if x.shape[1] == 2 else torch.zeros_like(x))
