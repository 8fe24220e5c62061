"""The conditional ESRGAN (Wang et al., ECCVW 2018): residual-in-residual dense blocks, trained against a discriminator."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynamicdps.conditional.model import ConditionalModel
from dynamicdps.errors import InputError
from dynamicdps.models.model_file import ModelFile

UNSHUFFLE = 4
DENSE_LAYERS = 5
RESIDUAL_SCALE = 0.2
SLOPE = 0.2
SMALL = 0.1


@dataclass(frozen=True)
class RRDBConfig:
    """What is needed to build the generator again.

    Attributes:
        channels: feature channels of the trunk.
        growth: channels that each layer of a dense block adds.
        blocks: residual-in-residual dense blocks, of three dense blocks each.

    Raises:
        InputError: one of them is less than 1 or far too large.
    """

    channels: int = 48
    growth: int = 24
    blocks: int = 6

    def __post_init__(self) -> None:
        if min(self.channels, self.growth, self.blocks) < 1:
            raise InputError(
                f"channels {self.channels}, growth {self.growth} and blocks {self.blocks} make no network; expected at least 1 of each; "
                "change them"
            )
        if max(self.channels, self.growth) > 4096 or self.blocks > 256:
            raise InputError(
                f"channels {self.channels}, growth {self.growth} and blocks {self.blocks} are no generator; expected at most 4096 "
                "channels and 256 blocks; change them"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RRDBConfig":
        return cls(channels=int(values["channels"]), growth=int(values["growth"]), blocks=int(values["blocks"]))


def convolution(inputs: int, outputs: int, gain: float = 1.0) -> nn.Conv2d:
    """3 x 3 convolution with He et al.'s initialisation times `gain`, biases 0."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    layer.weight.data.mul_(gain)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all features before it; no normalisation; the residual is scaled by 0.2."""

    def __init__(self, config: RRDBConfig) -> None:
        super().__init__()
        inputs = [config.channels + index * config.growth for index in range(DENSE_LAYERS)]
        outputs = [config.growth] * (DENSE_LAYERS - 1) + [config.channels]
        self.layers = nn.ModuleList(convolution(i, o, SMALL) for i, o in zip(inputs, outputs, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to the same shape."""
        *inner, last = self.layers
        features = [x]
        for layer in inner:
            features.append(F.leaky_relu(layer(torch.cat(features, 1)), SLOPE))
        out: Tensor = x + RESIDUAL_SCALE * last(torch.cat(features, 1))
        return out


class ResidualDenseBlock(nn.Module):
    """Residual-in-residual dense block: three dense blocks within one residual, again scaled by 0.2."""

    def __init__(self, config: RRDBConfig) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(DenseBlock(config) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to the same shape."""
        out: Tensor = x + RESIDUAL_SCALE * self.dense(x)
        return out


class RRDBNetwork(nn.Module):
    """ESRGAN's generator for images that are on their grid already.

    As in Real-ESRGAN (Wang et al., ICCVW 2021) at scale 1, 4 x 4 pixel-unshuffled slices pass the trunk at a quarter of the resolution
    and two stages of nearest-neighbour upsampling bring them back.
    """

    def __init__(self, config: RRDBConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.first = convolution(UNSHUFFLE**2, width)
        self.trunk = nn.Sequential(*(ResidualDenseBlock(config) for _ in range(config.blocks)), convolution(width, width))
        self.upsampling = nn.ModuleList(convolution(width, width) for _ in range(2))
        self.full = convolution(width, width)
        self.last = convolution(width, 1, SMALL**2)

    def forward(self, x: Tensor) -> Tensor:
        """Slices ``(batch, 1, height, width)`` to the same shape.

        Any height and width: the edge is repeated up to the next multiple of 4 and cropped off again.
        """
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % UNSHUFFLE, 0, -height % UNSHUFFLE), mode="replicate")
        features = self.first(F.pixel_unshuffle(x, UNSHUFFLE))
        features = features + self.trunk(features)
        for layer in self.upsampling:
            features = F.leaky_relu(layer(F.interpolate(features, scale_factor=2.0, mode="nearest")), SLOPE)
        out: Tensor = self.last(F.leaky_relu(self.full(features), SLOPE))
        return out[..., :height, :width]


class ConditionalESRGAN(ConditionalModel):
    """An `RRDBNetwork` as a conditional model."""


def esrgan_of(model: ModelFile, device: str = "cpu") -> ConditionalESRGAN:
    """The conditional ESRGAN that a model file holds, ready for inference.

    Raises:
        InputError: the model card describes no generator, or one that the weights do not fit.
    """
    return ConditionalESRGAN(model.build(lambda values: RRDBNetwork(RRDBConfig.from_json(values)))).to(device).eval()
