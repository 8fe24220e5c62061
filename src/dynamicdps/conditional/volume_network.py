"""The network of what sees whole volumes: a residual U-Net in three dimensions."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynamicdps.errors import InputError

SLOPE = 0.1


@dataclass(frozen=True)
class VolumeConfig:
    """What is needed to build the network again.

    Attributes:
        channels: feature channels of each level; each level has half the resolution of the one before.
        blocks: residual blocks of each level, on the way down and again on the way up.
        unshuffle: edge of the cubes of voxels that become channels of the first level.
        planes: numbers of a volume that the network is told, each as a plane of constant value.
        outputs: channels of what it returns.

    Raises:
        InputError: there is no level, or a number is less than 1 or far too large.
    """

    channels: tuple[int, ...] = (48, 96, 104)
    blocks: tuple[int, ...] = (1, 1, 2)
    unshuffle: int = 2
    planes: int = 3
    outputs: int = 1

    def __post_init__(self) -> None:
        sizes = (*self.channels, *self.blocks, self.unshuffle, self.outputs, self.planes + 1)
        if not self.channels or len(self.channels) != len(self.blocks) or min(sizes) < 1 or max(sizes) > 1024 or len(self.channels) > 8:
            raise InputError(
                f"channels {self.channels}, blocks {self.blocks} and cubes of {self.unshuffle} voxels make no network; expected as many "
                "channels as blocks, 1 to 8 levels and whole numbers from 1 to 1024; change them"
            )

    @property
    def multiple(self) -> int:
        """Each edge of a volume is padded to a multiple of this."""
        return int(self.unshuffle * 2 ** (len(self.channels) - 1))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "VolumeConfig":
        channels, blocks = (tuple(int(n) for n in values[name]) for name in ("channels", "blocks"))
        return cls(channels, blocks, int(values["unshuffle"]), int(values["planes"]), int(values["outputs"]))


class ResidualBlock(nn.Module):
    """Two convolutions around a nonlinearity, added to what came in.

    Nothing is normalised: statistics over a patch are not those of a whole head, and the network is trained on the first and used on the
    second.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        # Each block starts near the identity, so that depth does not make values grow.
        self.second.weight.data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, depth, height, width)`` to the same shape."""
        out: Tensor = x + self.second(F.leaky_relu(self.first(F.leaky_relu(x, SLOPE)), SLOPE))
        return out


class VolumeUNet(nn.Module):
    """Volumes, with some numbers that are told beside them, to volumes of the same size.

    The numbers enter as planes of constant value: measured voxels, for one network that serves thick slices along any axis.
    """

    def __init__(self, config: VolumeConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        cells = config.unshuffle**3

        def level(index: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(channels[index]) for _ in range(config.blocks[index])))

        self.entry = nn.Conv3d(cells + config.planes, channels[0], 3, padding=1)
        self.down = nn.ModuleList(level(i) for i in range(len(channels)))
        self.halving = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in pairwise(channels))
        self.up = nn.ModuleList(level(i) for i in range(len(channels) - 1))
        self.narrowing = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in pairwise(channels))
        self.exit = nn.Conv3d(channels[0], config.outputs * cells, 3, padding=1)
        self.exit.weight.data.mul_(0.1)

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """Map volumes.

        Args:
            x: ``(batch, 1, depth, height, width)``, any size.
            told: ``(batch, planes)``; none for a network without planes.

        Returns:
            ``(batch, outputs, depth, height, width)``.
        """
        size = x.shape[2:]
        # At the end only: what is there keeps its place in the cubes.
        margin = [m for n in reversed(size) for m in (0, -n % self.config.multiple)]
        x = cubes_to_channels(F.pad(x, margin), self.config.unshuffle)
        if told is not None:
            x = torch.cat([x, told.to(x.dtype)[:, :, None, None, None].expand(-1, -1, *x.shape[2:])], 1)
        x = self.entry(x)
        kept: list[Tensor] = []
        for index, blocks in enumerate(self.down):
            x = blocks(x)
            if index < len(self.halving):
                kept.append(x)
                x = self.halving[index](x)
        for index in reversed(range(len(self.up))):
            # Narrowed before it is enlarged: an eighth of the work, and interpolation leaves no checkerboard.
            x = F.interpolate(self.narrowing[index](x), scale_factor=2.0, mode="trilinear", align_corners=False)
            x = self.up[index](x + kept.pop())
        x = channels_to_cubes(self.exit(F.leaky_relu(x, SLOPE)), self.config.unshuffle)
        return x[:, :, : size[0], : size[1], : size[2]]


@torch.no_grad()
def grow(network: VolumeUNet, smaller: VolumeUNet) -> None:
    """Give a network the function of a smaller one: more channels and more residual blocks that at first change nothing.

    After Chen, Goodfellow and Shlens 2016 (Net2Net), with new channels that are computed but not yet used.

    Args:
        network: freshly initialised; its weights are changed.
        smaller: with at most as many channels and blocks a level, and the same inputs and outputs.

    Raises:
        InputError: the networks differ in their levels, inputs or outputs, or the new one is smaller anywhere.
    """
    new, old = network.config, smaller.config
    alike = len(new.channels) == len(old.channels) and (new.unshuffle, new.planes, new.outputs) == (old.unshuffle, old.planes, old.outputs)
    fewer = any(a < b for a, b in zip((*new.channels, *new.blocks), (*old.channels, *old.blocks), strict=False))
    if not alike or fewer:
        raise InputError(
            f"the network to be trained has channels {new.channels} and blocks {new.blocks}, the weights it is to start from have "
            f"{old.channels} and {old.blocks}; expected as many levels, the same inputs and outputs, and no fewer channels and blocks; "
            "choose a larger network"
        )
    known = smaller.state_dict()
    for name, value in network.state_dict().items():
        if name in known:
            part = known[name]
            rows = slice(0, part.shape[0])
            if value.ndim > 1:
                value[rows] = 0
                value[rows, : part.shape[1]] = part
            else:
                value[rows] = part
        elif ".second." in name:
            value.zero_()


def cubes_to_channels(x: Tensor, edge: int) -> Tensor:
    """``(batch, 1, edge d, edge h, edge w)`` to ``(batch, edge ** 3, d, h, w)``."""
    batch, _, depth, height, width = x.shape
    x = x.view(batch, depth // edge, edge, height // edge, edge, width // edge, edge)
    return x.permute(0, 2, 4, 6, 1, 3, 5).reshape(batch, edge**3, depth // edge, height // edge, width // edge)


def channels_to_cubes(x: Tensor, edge: int) -> Tensor:
    """Inverse of `cubes_to_channels`, for several channels: ``(batch, n edge ** 3, d, h, w)`` to ``(batch, n, edge d, edge h, edge w)``."""
    batch, channels, depth, height, width = x.shape
    x = x.view(batch, channels // edge**3, edge, edge, edge, depth, height, width).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(batch, channels // edge**3, depth * edge, height * edge, width * edge)
