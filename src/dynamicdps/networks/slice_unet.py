"""The U-Net of the prior and of the conditional model: MONAI's network on 2 x 2 pixel-unshuffled slices."""

from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dynamicdps.errors import InputError

UNSHUFFLE = 2
# Far above any network that slices need: a model card with more is damaged.
MAX_LEVELS, MAX_BLOCKS, MAX_CHANNELS = 8, 32, 4096


@dataclass(frozen=True)
class NetworkConfig:
    """What is needed to build the network again.

    Attributes:
        channels: feature channels of each level, multiples of `norm_groups`.
        residual_blocks: residual blocks of each level.
        attention: whether each level has self-attention (the innermost block always has).
        norm_groups: groups of the group normalisation.

    Raises:
        InputError: there is no level, or a number is less than 1 or far too large.
    """

    channels: tuple[int, ...] = (64, 128, 192)
    residual_blocks: tuple[int, ...] = (1, 2, 2)
    attention: tuple[bool, ...] = (False, False, False)
    norm_groups: int = 16

    def __post_init__(self) -> None:
        blocks, numbers = self.residual_blocks, (*self.channels, *self.residual_blocks, self.norm_groups)
        levels_fit = 1 <= len(self.channels) <= MAX_LEVELS and 1 <= len(blocks) <= MAX_LEVELS
        if not levels_fit or max(blocks) > MAX_BLOCKS or not 1 <= min(numbers) <= max(numbers) <= MAX_CHANNELS:
            raise InputError(
                f"channels {self.channels[:9]} and residual blocks {blocks[:9]} make no network; expected 1 to {MAX_LEVELS} levels of at "
                f"most {MAX_CHANNELS} channels and {MAX_BLOCKS} blocks; change them"
            )

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
            # torch's scaled_dot_product_attention: the same numbers, a tenth of the time and the attention matrix's memory less.
            use_flash_attention=True,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SliceUNet":
        """The network of a size that a model card gives."""
        return cls(NetworkConfig.from_json(values))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map slices ``(batch, 1, height, width)`` and times ``(batch,)`` in [0, 1000] to slices of the same shape.

        Any height and width: margins are reflected up to the next multiple and cropped off again.
        """
        height, width = x.shape[-2:]
        out: Tensor = self.unet(F.pixel_unshuffle(pad_to_multiple(x, self.config.multiple), UNSHUFFLE), time)
        return F.pixel_shuffle(out, UNSHUFFLE)[..., :height, :width]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Images ``(batch, channels, height, width)`` with margins below and on the right, so that `multiple` divides height and width.

    Margins are reflected; where an image is smaller than its margin, its last row and column are repeated.
    """
    height, width = x.shape[-2:]
    pad_h, pad_w = -height % multiple, -width % multiple
    if not pad_h and not pad_w:
        return x
    return F.pad(x, (0, pad_w, 0, pad_h), mode="reflect" if pad_h < height and pad_w < width else "replicate")
