"""The U-Net of the prior and of the conditional model: MONAI's network on 2 x 2 pixel-unshuffled slices."""

from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

UNSHUFFLE = 2


@dataclass(frozen=True)
class NetworkConfig:
    """What is needed to build the network again.

    Attributes:
        channels: feature channels of each level, multiples of `norm_groups`.
        residual_blocks: residual blocks of each level.
        attention: whether each level has self-attention (the innermost block always has).
        norm_groups: groups of the group normalisation.
    """

    channels: tuple[int, ...] = (64, 128, 192)
    residual_blocks: tuple[int, ...] = (1, 2, 2)
    attention: tuple[bool, ...] = (False, False, False)
    norm_groups: int = 16

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return int(UNSHUFFLE * 2 ** (len(self.channels) - 1))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NetworkConfig":
        return cls(
            channels=tuple(int(c) for c in values["channels"]),
            residual_blocks=tuple(int(b) for b in values["residual_blocks"]),
            attention=tuple(bool(a) for a in values["attention"]),
            norm_groups=int(values["norm_groups"]),
        )


class SliceUNet(nn.Module):
    """U-Net on single-channel slices, conditioned on one number an image (the noise level's time, or a constant).

    The 2 x 2 pixel-unshuffle moves the work to half the resolution, where four fifths of the time of a full-resolution
    network would be spent for little.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        # The import takes seconds: only whoever builds a network pays for it.
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        self.config = config
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=UNSHUFFLE**2,
            out_channels=UNSHUFFLE**2,
            channels=config.channels,
            num_res_blocks=config.residual_blocks,
            attention_levels=config.attention,
            norm_num_groups=config.norm_groups,
            num_head_channels=config.norm_groups,
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map slices ``(batch, 1, height, width)`` and times ``(batch,)`` in [0, 1000] to slices of the same shape.

        Any height and width: margins are reflected up to the next multiple and cropped off again.
        """
        height, width = x.shape[-2:]
        multiple = self.config.multiple
        pad_h, pad_w = -height % multiple, -width % multiple
        if pad_h or pad_w:
            mode = "reflect" if pad_h < height and pad_w < width else "replicate"
            x = F.pad(x, (0, pad_w, 0, pad_h), mode=mode)
        out: Tensor = self.unet(F.pixel_unshuffle(x, UNSHUFFLE), time)
        return F.pixel_shuffle(out, UNSHUFFLE)[..., :height, :width]
