"""The discriminator that an ESRGAN is trained against, and the relativistic loss between the two."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2
MULTIPLE = 8


class UNetDiscriminator(nn.Module):
    """Real-ESRGAN's U-Net with spectral normalisation (Wang et al., ICCVW 2021; Schonfeld et al., CVPR 2020).

    It judges every pixel, by its neighbourhood of 57 pixels, so that small batches teach it much.

    Args:
        channels: feature channels at full resolution; 2, 4 and 8 times as many below.
    """

    def __init__(self, channels: int = 24) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(channels * inputs, channels * outputs, size, stride, padding=1, bias=False))

        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.down = nn.ModuleList(layer(width, 2 * width, 4, 2) for width in (1, 2, 4))
        self.up = nn.ModuleList(layer(2 * width, width) for width in (4, 2, 1))
        self.full = nn.ModuleList(layer(1, 1) for _ in range(2))
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """How real each pixel looks, ``(batch, 1, height, width)`` logits in float32, of scaled images of the same shape.

        Any height and width: the edge is repeated up to the next multiple of 8 and its logits cropped off again.
        """
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        features = F.leaky_relu(self.first(x), SLOPE)
        skipped = []
        for layer in self.down:
            skipped.append(features)
            features = F.leaky_relu(layer(features), SLOPE)
        for layer, skip in zip(self.up, reversed(skipped), strict=True):
            larger = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            features = F.leaky_relu(layer(larger), SLOPE) + skip
        for layer in self.full:
            features = F.leaky_relu(layer(features), SLOPE)
        out: Tensor = self.last(features)
        return out[..., :height, :width].float()


def relativistic_loss(high: Tensor, low: Tensor) -> Tensor:
    """Relativistic average loss (Jolicoeur-Martineau 2018, eqs. 10 and 11; halved as in ESRGAN).

    Cross entropy of "more real than the others are on average".

    Args:
        high: logits of the images that should look more real: the discriminator's real ones, the generator's own.
        low: logits of the others.
    """
    return (F.softplus(low.mean() - high).mean() + F.softplus(low - high.mean()).mean()) / 2
