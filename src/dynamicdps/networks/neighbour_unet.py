"""The network of a prior that sees neighbouring slices: MONAI's U-Net on a window of slices, several of which it returns."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynamicdps.errors import InputError
from dynamicdps.networks.slice_unet import NetworkConfig, pad_to_multiple
from dynamicdps.volumes.contrast import CONTRASTS

MAX_SLICES = 33
MAX_UNSHUFFLE = 8


@dataclass(frozen=True)
class NeighbourConfig:
    """What is needed to build the network again.

    Attributes:
        slices_in: neighbouring slices that the network sees, an odd number.
        slices_out: slices in the middle of these that it returns, an odd number.
        channels: feature channels of each level, multiples of `norm_groups`.
        residual_blocks: residual blocks of each level.
        attention: whether each level has self-attention (the innermost block always has).
        norm_groups: groups of the group normalisation.
        unshuffle: edge of the squares of pixels that become channels.
        contrasts: contrasts that the network can be told.

    Raises:
        InputError: there is no level, a number is less than 1 or far too large, or the slices returned are no middle of those seen.
    """

    slices_in: int = 7
    slices_out: int = 5
    channels: tuple[int, ...] = (64, 128, 192)
    residual_blocks: tuple[int, ...] = (1, 2, 2)
    attention: tuple[bool, ...] = (False, False, False)
    norm_groups: int = 16
    unshuffle: int = 2
    contrasts: tuple[str, ...] = CONTRASTS

    def __post_init__(self) -> None:
        # The checks of the levels are those of the network of single slices.
        NetworkConfig(self.channels, self.residual_blocks, self.attention, self.norm_groups)
        odd = self.slices_in % 2 == 1 and self.slices_out % 2 == 1
        if not odd or not 1 <= self.slices_out <= self.slices_in <= MAX_SLICES:
            raise InputError(
                f"a network that sees {self.slices_in} slices and returns {self.slices_out} has no middle; expected odd numbers, the "
                f"second at most the first and at most {MAX_SLICES}; change them"
            )
        if not 1 <= self.unshuffle <= MAX_UNSHUFFLE or not 1 <= len(self.contrasts) <= 64:
            raise InputError(
                f"squares of {self.unshuffle} pixels and {len(self.contrasts)} contrasts make no network; expected 1 to {MAX_UNSHUFFLE} "
                "pixels and 1 to 64 contrasts; change them"
            )

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return int(self.unshuffle * 2 ** (len(self.channels) - 1))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NeighbourConfig":
        return cls(
            slices_in=int(values["slices_in"]),
            slices_out=int(values["slices_out"]),
            channels=tuple(int(c) for c in values["channels"]),
            residual_blocks=tuple(int(b) for b in values["residual_blocks"]),
            attention=tuple(bool(a) for a in values["attention"]),
            norm_groups=int(values["norm_groups"]),
            unshuffle=int(values["unshuffle"]),
            contrasts=tuple(str(c) for c in values["contrasts"]),
        )


class NeighbourUNet(nn.Module):
    """U-Net on a window of neighbouring slices, conditioned on the noise level's time and on the contrast.

    A slice that is missing, beyond the edge of a volume or because there is one slice only, is a plane of zeros, and a flag says so: a
    further input plane for each slice of the window. The inner layers cost the same whatever number of slices is returned.
    """

    def __init__(self, config: NeighbourConfig) -> None:
        super().__init__()
        # The import takes seconds: only whoever builds a network pays for it.
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        self.config = config
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=config.slices_in * (config.unshuffle**2 + 1),
            out_channels=config.slices_out * config.unshuffle**2,
            channels=config.channels,
            num_res_blocks=config.residual_blocks,
            attention_levels=config.attention,
            norm_num_groups=config.norm_groups,
            num_head_channels=config.norm_groups,
            num_class_embeds=len(config.contrasts),
            use_flash_attention=True,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NeighbourUNet":
        """The network of a size that a model card gives."""
        return cls(NeighbourConfig.from_json(values))

    def forward(self, x: Tensor, time: Tensor, present: Tensor, contrast: Tensor) -> Tensor:
        """Map windows of slices to the slices in their middle.

        Args:
            x: windows ``(batch, slices_in, height, width)``, any height and width: margins are reflected up to the next multiple and
                cropped off again; missing slices are 0.
            time: noise levels' times ``(batch,)`` in [0, 1000].
            present: whether each slice is there, ``(batch, slices_in)``.
            contrast: index into the configuration's contrasts, ``(batch,)``.

        Returns:
            ``(batch, slices_out, height, width)``.
        """
        height, width = x.shape[-2:]
        x = F.pixel_unshuffle(pad_to_multiple(x, self.config.multiple), self.config.unshuffle)
        flags = present.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        x = torch.cat([x, flags], dim=1).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.unet(x, time, class_labels=contrast)
        return F.pixel_shuffle(out, self.config.unshuffle)[..., :height, :width]
