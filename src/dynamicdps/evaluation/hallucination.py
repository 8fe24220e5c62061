"""What an image shows that the measurement does not support."""

from torch import Tensor

from dynamicdps.operators import Operator


def standardised_residual(operator: Operator, y: Tensor, x: Tensor) -> Tensor:
    """``(y - A(x)) / noise_std``: about standard normal where the image explains the measurement.

    Args:
        operator: the forward model.
        y: measurements, ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
        x: images in image intensities, on the image grid.

    Returns:
        Same shape as `y`, in standard deviations of the noise.

    Raises:
        ValueError: ``A(x)`` has another shape than `y`.
    """
    predicted = operator(x)
    if predicted.shape != y.shape:
        raise ValueError(f"A(x) has shape {tuple(predicted.shape)}; expected that of the measurement, {tuple(y.shape)}")
    return (y - predicted) / operator.noise_std
