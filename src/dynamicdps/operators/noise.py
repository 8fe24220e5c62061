"""Noise of a measurement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.parameters import check_range

# Noises of scans; `add_noise` knows more.
KINDS = ("gaussian", "rician")
Sampler = Callable[[Tensor, float, torch.Generator, int], Tensor]


def add_noise(y: Tensor, std: float, generators: Sequence[torch.Generator], kind: str = "gaussian", coils: int = 1) -> Tensor:
    """Add noise to each image of a batch from its own generator.

    An image gets the same noise whoever else is in the batch.

    Args:
        y: noise-free measurements, batch first.
        std: standard deviation of the noise, units of `y`; what it is the deviation of depends on the kind.
        generators: one an image.
        kind: ``"gaussian"``: white, of the image. ``"rician"``: magnitude of a complex signal with `std` in each of its two channels
            (Gudbjartsson and Patz 1995). ``"noncentral-chi"``: root of the sum of squares of `coils` such signals, the true one in
            the first (Constantinides et al. 1997); Rician for one coil. ``"poisson"``: counts, standard deviation ``std * sqrt(y)``,
            so `std` at signal 1; signals below 0 count as 0. ``"complex"``: white complex Gaussian for measurements
            ``(batch, 2, ...)`` with the real and the imaginary part as channels, `std` in each.
        coils: of the noncentral chi, at least 1.

    Raises:
        ValueError: the kind is unknown, there are fewer than 1 coils, or a complex measurement has not two channels.
    """
    if kind not in NOISES:
        raise ValueError(f"the noise is {kind!r}; expected {', '.join(map(repr, NOISES[:-1]))} or {NOISES[-1]!r}")
    if coils < 1:
        raise ValueError(f"coils is {coils}; expected at least 1")
    if kind == "complex" and (y.ndim < 3 or y.shape[1] != 2):
        raise ValueError(f"the measurement has shape {tuple(y.shape)}; expected (batch, 2, ...) for complex noise")
    return torch.stack([_SAMPLERS[kind](image, std, g, coils) for image, g in zip(y, generators, strict=True)])


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise with one standard deviation everywhere, white unless its spectrum says otherwise.

    Attributes:
        std: standard deviation as a share of the intensity range, from 1e-6 to 1.
        kind: ``"gaussian"``, or ``"rician"`` for magnitudes of a complex signal with `std` in each channel. Data terms take it as Gaussian.
        spectrum: power at each frequency relative to white noise, on the measured grid ``(height, width)`` or ``(depth, height, width)``,
            in the order of `torch.fft.fftn`; greater than 0, mean 1. `None` is white noise.

    Raises:
        InputError: a number is out of its range.
    """

    std: float
    kind: str = "gaussian"
    spectrum: Tensor | None = None

    def __post_init__(self) -> None:
        check_range("noise_std", self.std, 1e-6, 1.0)
        if self.kind not in KINDS:
            raise InputError(f"noise is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if self.spectrum is not None:
            check_range("the power of the noise", self.spectrum, 1e-6, 1e6)
            check_range("the mean power of the noise", self.spectrum.double().mean(), 0.999, 1.001)

    @classmethod
    def of(cls, given: "Noise | float") -> "Noise":
        """The noise itself, or white Gaussian noise of a standard deviation."""
        return given if isinstance(given, Noise) else cls(float(given))

    def draw(self, y: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Noisy measurements; each image from its own generator.

        Args:
            y: noise-free measurements, batch first.
            generators: one an image.
        """
        if self.spectrum is None:
            return add_noise(y, self.std, generators, self.kind)
        if self.kind != "gaussian":
            raise InputError(f"the noise is {self.kind} with a spectrum; expected gaussian for noise that is not white; change one")
        white = add_noise(torch.zeros_like(y), self.std, generators)
        return y + stationary_filter(white, self.spectrum.sqrt())


def stationary_filter(x: Tensor, gain: Tensor) -> Tensor:
    """Measurements with each frequency multiplied by a gain, in the order of `torch.fft.fftn`, over the gain's axes (the last ones)."""
    axes = tuple(range(-gain.ndim, 0))
    out: Tensor = torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * gain.to(x), dim=axes).real
    return out


def _normal(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=generator.device).to(like)


def _gaussian(y: Tensor, std: float, generator: torch.Generator, coils: int) -> Tensor:
    del coils
    return y + std * _normal(y.shape, y, generator)


def _rician(y: Tensor, std: float, generator: torch.Generator, coils: int) -> Tensor:
    del coils
    return _noncentral_chi(y, std, generator, 1)


def _noncentral_chi(y: Tensor, std: float, generator: torch.Generator, coils: int) -> Tensor:
    drawn = std * _normal((2 * coils, *y.shape), y, generator)
    return ((y + drawn[0]).square() + drawn[1:].square().sum(0)).sqrt()


def _poisson(y: Tensor, std: float, generator: torch.Generator, coils: int) -> Tensor:
    del coils
    # Counts of little noise exceed single precision's integers.
    rate = y.detach().double().clamp_min(0).to(generator.device) / std**2
    return (torch.poisson(rate, generator=generator) * std**2).to(y)


_SAMPLERS: dict[str, Sampler] = {
    "gaussian": _gaussian,
    "rician": _rician,
    "noncentral-chi": _noncentral_chi,
    "poisson": _poisson,
    "complex": _gaussian,
}
NOISES = tuple(_SAMPLERS)
