"""The noise of a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators import LinearOperator, Operator, SameGrid, add_noise
from dynamicdps.operators.noise import described_noise
from dynamicdps.operators.parameters import check_range

KINDS = ("gaussian", "rician")


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
        check_range("the standard deviation of the noise", self.std, 1e-6, 1.0)
        if self.kind not in KINDS:
            raise InputError(f"noise is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if self.spectrum is not None:
            check_range("the power of the noise", self.spectrum, 1e-6, 1e6)
            check_range("the mean power of the noise", self.spectrum.double().mean(), 0.999, 1.001)

    @classmethod
    def of(cls, operator: Operator) -> "Noise":
        """The noise that an operator was described with; see `dynamicdps.operators.noise.described_noise`."""
        return cls(*described_noise(operator))

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
        return y + _filter(white, self.spectrum.sqrt())


@dataclass(frozen=True, eq=False)
class Whitening(LinearOperator, SameGrid):
    """The filter that makes stationary noise white and keeps its standard deviation: ``1 / sqrt(S)`` in Fourier space.

    Attributes:
        spectrum: S, as in `Noise`.
    """

    spectrum: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return _filter(x, self.spectrum.rsqrt())

    def adjoint(self, w: Tensor, shape: Sequence[int]) -> Tensor:
        del shape
        return self.forward(w)

    def select(self, index: Tensor) -> "Whitening":
        del index
        return self


def _filter(x: Tensor, gain: Tensor) -> Tensor:
    axes = tuple(range(-gain.ndim, 0))
    out: Tensor = torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * gain.to(x), dim=axes).real
    return out
