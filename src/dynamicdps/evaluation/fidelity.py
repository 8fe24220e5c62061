"""How near images are to the truth: whole slices, intensities in [0, 1], data range 1."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

SSIM_WINDOW = 7
SSIM_K1, SSIM_K2 = 0.01, 0.03


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each slice, infinite where the slices are equal.

    Args:
        image: ``(slices, 1, height, width)``.
        truth: the same shape.

    Returns:
        ``(slices,)``, float64.

    Raises:
        ValueError: the shapes differ or are not those of slices.
    """
    x, t = _pair(image, truth)
    return -10 * (x - t).square().mean((1, 2, 3)).log10()


def nrmse(image: Tensor, truth: Tensor) -> Tensor:
    """``||x - t|| / ||t||`` of each slice, not finite where the truth is 0 everywhere; arguments, result and errors as `psnr`."""
    x, t = _pair(image, truth)
    return (x - t).square().sum((1, 2, 3)).sqrt() / t.square().sum((1, 2, 3)).sqrt()


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each slice (Wang et al. 2004) with scikit-image's defaults.

    A uniform window of 7 x 7 pixels, sample covariance, K1 = 0.01, K2 = 0.03; the mean is over the windows that lie inside the
    slice. Arguments and result as `psnr`.

    Raises:
        ValueError: the shapes differ, are not those of slices, or a slice is smaller than the window.
    """
    return _similarity(*_pair(image, truth)).mean((1, 2, 3))


def psnr_brain(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """`psnr` over the brain alone: the background, equal in most images, does not count.

    Args:
        image: ``(slices, 1, height, width)``.
        truth: the same shape.
        mask: brain, booleans of the same shape.

    Returns:
        ``(slices,)``, float64; NaN where a slice has no brain.

    Raises:
        ValueError: the shapes differ or are not those of slices.
    """
    x, t, inside = _masked(image, truth, mask)
    return -10 * (((x - t).square() * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3))).log10()


def nrmse_brain(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """`nrmse` over the brain alone; arguments, result and errors as `psnr_brain`."""
    x, t, inside = _masked(image, truth, mask)
    return ((x - t).square() * inside).sum((1, 2, 3)).sqrt() / (t.square() * inside).sum((1, 2, 3)).sqrt()


def ssim_brain(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """`ssim` over the windows whose centre is brain; arguments, result and errors as `psnr_brain`, and those of `ssim`."""
    x, t, inside = _masked(image, truth, mask)
    edge = SSIM_WINDOW // 2
    similarity = _similarity(x, t)
    centres = inside[..., edge:-edge, edge:-edge]
    return (similarity * centres).sum((1, 2, 3)) / centres.sum((1, 2, 3))


def _similarity(x: Tensor, t: Tensor) -> Tensor:
    """SSIM of each window that lies inside the slice."""
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"slices have {x.shape[-2]} x {x.shape[-1]} pixels; expected at least {SSIM_WINDOW} x {SSIM_WINDOW} for SSIM")

    def window_mean(u: Tensor) -> Tensor:
        return avg_pool2d(u, SSIM_WINDOW, stride=1)

    mean_x, mean_t = window_mean(x), window_mean(t)
    count = SSIM_WINDOW**2
    unbiased = count / (count - 1)
    var_x = unbiased * (window_mean(x * x) - mean_x * mean_x)
    var_t = unbiased * (window_mean(t * t) - mean_t * mean_t)
    covariance = unbiased * (window_mean(x * t) - mean_x * mean_t)
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    return (2 * mean_x * mean_t + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_t**2 + c1) * (var_x + var_t + c2))


def _masked(image: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if mask.shape != truth.shape:
        raise ValueError(f"the mask has shape {tuple(mask.shape)}; expected that of the slices, {tuple(truth.shape)}")
    x, t = _pair(image, truth)
    return x, t, mask.to(t)


def _pair(image: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64: the variances of SSIM are differences of nearly equal numbers."""
    if image.shape != truth.shape or image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f"slices have shapes {tuple(image.shape)} and {tuple(truth.shape)}; expected (slices, 1, height, width) twice")
    return image.to(torch.float64), truth.to(torch.float64)
