"""Noise models of a measurement."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.operator import Operator

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


def described_noise(operator: Operator) -> tuple[float, str]:
    """Standard deviation and kind of the noise that an operator was described with.

    The noise comes last, in the scanner's receiver: in a composition the outermost part that has a standard deviation says it. The noise is
    Rician where any part says so.

    Raises:
        InputError: no part has a standard deviation.
    """
    stds, kinds = zip(*_descriptions(operator), strict=True)
    std = next((each for each in stds if each is not None), None)
    if std is None:
        raise InputError(
            f"{type(operator).__name__} has no noise_std; expected the standard deviation of its noise; give the data term one"
        )
    return std, "rician" if "rician" in kinds else "gaussian"


def _descriptions(operator: Operator) -> Iterator[tuple[float | None, str]]:
    """What an operator and all its parts say, the outermost first."""
    yield getattr(operator, "noise_std", None), getattr(operator, "noise", "gaussian")
    for part in operator.parts:
        yield from _descriptions(part)


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
