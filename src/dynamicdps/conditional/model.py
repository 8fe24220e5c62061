"""What every conditional model is: the interpolated measurement plus a learned correction."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dynamicdps.operators import Operator, to_image_grid

CENTRE, SPREAD = 0.5, 0.3


class ConditionalModel(nn.Module):
    """Maps measurements, interpolated on the image grid, to images: interpolation plus a learned correction.

    Args:
        network: what learns the correction.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def correction(self, inputs: Tensor) -> Tensor:
        """Correction in units of `SPREAD` from intensities scaled by `scaled`, ``(batch, 1, height, width)`` both."""
        out: Tensor = self.network(inputs)
        return out

    def forward(self, interpolated: Tensor) -> Tensor:
        """``(batch, 1, height, width)`` to the same shape, both in image intensities."""
        return interpolated + SPREAD * self.correction(scaled(interpolated)).float()

    @torch.no_grad()
    def enhance(self, y: Tensor, operator: Operator, shape: Sequence[int], chunk: int = 8) -> Tensor:
        """Initial image of a measurement.

        Args:
            y: measurements, ``(batch, 1, height, width)`` or ``(batch, 1, depth, height, width)``.
            operator: only its grid is used.
            shape: shape of the image tensor.
            chunk: slices a network pass.
        """
        slices = to_image_grid(y, operator, shape).reshape(-1, 1, *shape[-2:])
        return torch.cat([self(part) for part in torch.split(slices, chunk)]).clamp_min(0).reshape(tuple(shape))


def scaled(image: Tensor) -> Tensor:
    """Image intensities in the units that networks see: about mean 0 and standard deviation 1."""
    return ((image - CENTRE) / SPREAD).to(memory_format=torch.channels_last)
