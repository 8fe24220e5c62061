"""Which lines of Cartesian k-space are sampled.

Lines lie along x (the readout) and are counted along y (the phase encoding). Masks are boolean ``(height, width)`` with the centre of
k-space at index ``n // 2``, for `KSpace`.
"""

import math

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators.parameters import check_range


def uniform_mask(shape: tuple[int, int], acceleration: float, *, generator: torch.Generator, centre: float = 0.08) -> Tensor:
    """Lines at equal distances, the first drawn at random, and all lines of the centre.

    Args:
        shape: height and width.
        acceleration: lines of the whole k-space for each sampled one, the centre's included, at least 1.
        generator: draws the offset.
        centre: share of the lines that form the fully sampled centre.

    Raises:
        InputError: a number is out of its range, or the centre alone has more lines than may be sampled.
    """
    middle, outside, count = _split(shape, acceleration, centre)
    offset = float(torch.rand(1, generator=generator))
    chosen = ((torch.arange(count) + offset) * (len(outside) / max(count, 1))).long()
    return _lines(shape, torch.cat([middle, outside[chosen]]))


def variable_density_mask(
    shape: tuple[int, int], acceleration: float, *, generator: torch.Generator, centre: float = 0.08, power: float = 2.0
) -> Tensor:
    """Random lines, denser towards the centre (Lustig et al. 2007), and all lines of the centre.

    Args:
        shape: height and width.
        acceleration: as for `uniform_mask`.
        generator: draws the lines.
        centre: share of the lines that form the fully sampled centre.
        power: a line at the share k of the largest frequency is drawn with a weight of ``(1 - k) ** power``; 0 is uniform.

    Raises:
        InputError: as for `uniform_mask`.
    """
    check_range("power", power, 0.0, 10.0)
    middle, outside, count = _split(shape, acceleration, centre)
    distance = (outside - shape[0] // 2).abs() / (shape[0] // 2 + 1)
    # The count lines of largest perturbed log weight are a draw without replacement (Efraimidis and Spirakis 2006).
    keys = torch.rand(len(outside), generator=generator, dtype=torch.float64).log() / (1 - distance).double() ** power
    return _lines(shape, torch.cat([middle, outside[keys.topk(count).indices]]))


def partial_fourier_mask(shape: tuple[int, int], fraction: float, *, generator: torch.Generator | None = None) -> Tensor:
    """All lines of one side of k-space, and of the other those next to the centre.

    Args:
        shape: height and width.
        fraction: share of the lines that is sampled, above 0.5 to 1.
        generator: draws the side; without it the lines of high index are left out.

    Raises:
        InputError: a number is out of its range.
    """
    _check_shape(shape)
    check_range("fraction", fraction, 0.5, 1.0)
    count = max(min(math.ceil(fraction * shape[0] - 1e-9), shape[0]), shape[0] // 2 + 1)
    first = 0 if generator is None or bool(torch.rand(1, generator=generator) < 0.5) else shape[0] - count
    return _lines(shape, torch.arange(first, first + count))


def centre_mask(shape: tuple[int, int], fraction: float) -> Tensor:
    """The centre of k-space along both axes: a scan of low resolution.

    Args:
        shape: height and width.
        fraction: share of each axis that is sampled, above 0 to 1.

    Raises:
        InputError: a number is out of its range.
    """
    _check_shape(shape)
    check_range("fraction", fraction, 1e-3, 1.0)
    mask = torch.zeros(shape, dtype=torch.bool)
    rows, columns = (_middle(n, max(1, round(fraction * n))) for n in shape)
    mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return mask


def _split(shape: tuple[int, int], acceleration: float, centre: float) -> tuple[Tensor, Tensor, int]:
    """Lines of the centre, the others, and how many of those to sample."""
    _check_shape(shape)
    check_range("acceleration", acceleration, 1.0, 64.0)
    check_range("centre", centre, 0.0, 1.0)
    total, inside = max(1, round(shape[0] / acceleration)), max(1, round(centre * shape[0]))
    if inside > total:
        raise InputError(
            f"the centre has {inside} of {shape[0]} lines and the acceleration {acceleration:g} leaves {total}; expected a smaller centre; "
            "lower it or the acceleration"
        )
    middle = _middle(shape[0], inside)
    lines = torch.arange(shape[0])
    return middle, lines[(lines < middle[0]) | (lines > middle[-1])], total - inside


def _middle(size: int, count: int) -> Tensor:
    return torch.arange(count) + size // 2 - count // 2


def _lines(shape: tuple[int, int], index: Tensor) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[index] = True
    return mask


def _check_shape(shape: tuple[int, int]) -> None:
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"the mask's shape is {tuple(shape)}; expected height and width, at least 1 each")
