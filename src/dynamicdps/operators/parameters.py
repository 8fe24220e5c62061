"""Parameters of operators: one value or one an image, their ranges, and plain values for files.

A dataclass field that holds a tensor which all images share, for example a mask, says so by the metadata ``"dims"``: the most
dimensions that it then has. With more, the first one counts images. Without metadata a tensor is one value an image, ``(batch,)``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import Field
from typing import Any

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.precision import wide

Parameter = float | Tensor


def differs_per_image(known: Field[Any], value: Any) -> bool:
    """Whether a field's value has one entry for each image."""
    return isinstance(value, Tensor) and value.ndim > known.metadata.get("dims", 0) and len(value) > 1


def to_plain(known: Field[Any], value: Any) -> Any:
    """A field's value as JSON knows it; complex numbers as real and imaginary parts.

    Raises:
        ValueError: it differs per image.
    """
    if isinstance(value, Tensor):
        if "dims" not in known.metadata or differs_per_image(known, value):
            raise ValueError(f"{known.name} differs per image; expected one value to write")
        if value.is_complex():
            return {"real": value.real.tolist(), "imag": value.imag.tolist()}
        return (value.to(torch.uint8) if value.dtype == torch.bool else value).tolist()
    return list(value) if isinstance(value, tuple) else value


def from_plain(known: Field[Any], value: Any) -> Any:
    """Inverse of `to_plain`; numbers of tensors become float64.

    Raises:
        KeyError, TypeError, ValueError: the value is not a list of numbers, or not one of both parts.
    """
    if isinstance(value, str) and known.type is not str:
        raise TypeError(f"{known.name} is the text {value!r}")
    if "dims" not in known.metadata or value is known.default:
        return value
    if value is None:
        raise TypeError(f"{known.name} is missing")
    if isinstance(value, Mapping):
        real, imag = (torch.tensor(value[part], dtype=torch.float64) for part in ("real", "imag"))
        if real.shape != imag.shape:
            raise ValueError(f"{known.name} has a real part of shape {tuple(real.shape)} and an imaginary one of {tuple(imag.shape)}")
        return torch.complex(real, imag)
    return torch.tensor(value, dtype=torch.float64)


def to_text(known: Field[Any], value: Any) -> str:
    """A field's value in an operator's printable form: numbers in full, maps by their shape."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Tensor):
        return (
            f"tensor{tuple(value.shape)}" if "dims" in known.metadata else str([float(f"{v:g}") for v in value.detach().flatten().tolist()])
        )
    return str(value)


def check_range(name: str, value: Parameter, low: float, high: float) -> None:
    """Refuse a parameter out of its range.

    Raises:
        InputError: a value is not from `low` to `high`.
    """
    values = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
    if not bool(((values >= low) & (values <= high)).all()):
        shown: object = value if isinstance(value, float | int) else values.tolist()
        if values.numel() > 8:
            shown = f"from {float(values.min()):g} to {float(values.max()):g}"
        raise InputError(f"{name} is {shown}; expected a number from {low:g} to {high:g}")


def check_finite(name: str, value: Tensor, dims: tuple[int, ...]) -> None:
    """Refuse a tensor of the wrong number of dimensions, an empty one, or one with values that are not finite.

    Raises:
        InputError: it is one of these.
    """
    if value.ndim not in dims or value.numel() == 0:
        expected = " or ".join(map(str, dims))
        raise InputError(f"{name} has shape {tuple(value.shape)}; expected {expected} dimensions, none of them empty")
    if not bool(torch.isfinite(value.detach()).all()):
        raise InputError(f"{name} has values that are not finite; expected numbers")


def as_mask(name: str, value: Tensor, dims: tuple[int, ...]) -> Tensor:
    """A mask as booleans.

    Raises:
        InputError: a value is neither 0 nor 1, all are 0, or the number of dimensions is wrong.
    """
    check_finite(name, value, dims)
    if not bool(((value == 0) | (value == 1)).all()) or not bool((value != 0).any()):
        raise InputError(f"{name} has other values than 0 and 1, or only 0; expected 1 where it is measured and 0 elsewhere")
    return value != 0


def per_image(value: Parameter, x: Tensor) -> Tensor:
    """One value, or ``(batch,)`` values, with type and device of `x`, to broadcast over its images."""
    if not isinstance(value, Tensor):
        return torch.as_tensor(value, dtype=x.dtype, device=x.device)
    return value.to(x).view(-1, *[1] * (x.ndim - 1))


def check_images(shape: Sequence[int]) -> None:
    """Refuse anything but a batch of slices or volumes.

    Raises:
        ValueError: the shape is neither's.
    """
    if len(shape) not in (4, 5):
        raise ValueError(f"the image has shape {tuple(shape)}; expected (batch, 1, height, width) or (batch, 1, depth, height, width)")


def mean_square(name: str, value: Tensor, y: Tensor) -> Tensor:
    """Mean square of a map over each measurement, ``(batch,)``; greater than 0 where the map is not, so that one can divide by it."""
    squares = wide(fit_map(name, value, y)).square().expand(len(y), 1, *y.shape[2:])
    return squares.flatten(1).mean(1).clamp_min(1e-12)


def fit_map(name: str, value: Tensor, x: Tensor) -> Tensor:
    """A map ``(height, width)``, ``(depth, height, width)`` or with ``(batch, 1)`` before, to broadcast over images.

    Returns:
        The map with as many dimensions as `x`, on its device.

    Raises:
        ValueError: the map has another size than the images.
    """
    check_images(x.shape)
    spatial = x.ndim - 2
    shape = value.shape if value.ndim > 3 else (1, 1, *[1] * (spatial - value.ndim), *value.shape)
    if len(shape) != x.ndim or shape[1] != 1 or any(m not in (1, n) for m, n in zip(shape, x.shape, strict=True)):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected one that fits images of shape {tuple(x.shape)}")
    return value.to(x.device).reshape(shape)
