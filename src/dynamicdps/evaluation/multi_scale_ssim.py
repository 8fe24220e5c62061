"""Multi-scale structural similarity."""

import torch
from torch import Tensor

from dynamicdps.errors import InputError

WINDOW, WINDOW_STD = 11, 1.5
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Least height and width for 1 to 5 scales: the coarsest must hold a window, and MONAI asks for 11 (n - 1)^2.
SMALLEST = (11, 22, 44, 99, 176)


def scales_that_fit(height: int, width: int) -> int:
    """Scales of `ms_ssim` for slices of this size, from 0 to 5."""
    return sum(min(height, width) >= size for size in SMALLEST)


def ms_ssim(image: Tensor, truth: Tensor, scales: int | None = None) -> Tensor:
    """Multi-scale structural similarity of each slice (Wang, Simoncelli and Bovik 2003), MONAI's.

    A Gaussian window of 11 x 11 pixels, standard deviation 1.5, K1 = 0.01, K2 = 0.03, data range 1, at up to five scales, each half
    as fine as the one before, with the paper's weights. Slices below 176 pixels hold fewer scales (4 from 99, 3 from 44, 2 from 22,
    1 from 11): the coarsest are left out and the weights scaled to sum to 1. Compare numbers of the same `scales` only.

    Args:
        image: ``(slices, 1, height, width)``, [0, 1].
        truth: the same shape.
        scales: number of scales; by default as many as fit, at most 5.

    Returns:
        ``(slices,)``, float32, from 0 to 1.

    Raises:
        InputError: the slices do not hold as many scales.
        ValueError: the shapes differ or are not those of slices.
    """
    if image.shape != truth.shape or image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f"slices have shapes {tuple(image.shape)} and {tuple(truth.shape)}; expected (slices, 1, height, width) twice")
    height, width = image.shape[-2:]
    fitting = scales_that_fit(height, width)
    used = max(fitting, 1) if scales is None else scales
    if not 1 <= used <= fitting:
        raise InputError(
            f"slices of {height} x {width} pixels hold {fitting} scales and {used} are asked for; expected at least "
            f"{SMALLEST[min(max(used, 1), 5) - 1]} pixels and 1 to 5 scales; use fewer scales or ssim"
        )
    from monai.metrics.regression import compute_ms_ssim

    weights = torch.tensor(WEIGHTS[:used]) / sum(WEIGHTS[:used])
    found: Tensor = compute_ms_ssim(
        image, truth, spatial_dims=2, kernel_size=WINDOW, kernel_sigma=WINDOW_STD, k1=0.01, k2=0.03, weights=weights.tolist()
    )
    return found[:, 0]
