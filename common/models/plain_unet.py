"""The U-Net of plain double convolutions, by default with three levels of 64, 128 and 256."""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from monai.networks.blocks import UpSample
from monai.networks.nets.basic_unet import Down, TwoConv
from torch import Tensor, nn

from common.models.config import ModelConfig, check_widths
from common.models.layers import adapt, convolution

_ACTIVATION = ("relu", {"inplace": False})


@dataclass(frozen=True, kw_only=True)
class PlainUNetConfig(ModelConfig):
    """Settings of the plain U-Net."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256])
    """Channels of each level, the finest first; at least two. Each level halves the image, so its
    size must be a multiple of 2 to the power of the levels but one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels, at_least=2)


class _Up(nn.Module):
    """Doubles the image, joins it with the level's own, and convolves twice."""

    def __init__(self, config: PlainUNetConfig, below: int, here: int) -> None:
        super().__init__()
        self.up = UpSample(config.spatial_dims, below, here, 2, mode="deconv")
        self.convolutions = _two(config, 2 * here, here)

    def forward(self, below: Tensor, here: Tensor) -> Tensor:
        joined: Tensor = self.convolutions(torch.cat([here, self.up(below)], dim=1))
        return joined


class PlainUNet(nn.Module):
    """[B, in_channels, *spatial] -> logits [B, out_channels, *spatial], by a 1 x 1 convolution."""

    def __init__(self, config: PlainUNetConfig) -> None:
        super().__init__()
        widths = config.channels
        self.first = _two(config, config.in_channels, widths[0])
        self.down = nn.ModuleList(
            Down(config.spatial_dims, a, b, _ACTIVATION, "batch", True, config.dropout)
            for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(
            _Up(config, below, here) for here, below in reversed(list(pairwise(widths)))
        )
        self.head = convolution(config.spatial_dims)(widths[0], config.out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        levels = [self.first(images)]
        for down in self.down:
            levels.append(down(levels[-1]))
        below = levels.pop()
        for up in self.up:
            below = up(below, levels.pop())
        logits: Tensor = self.head(below)
        return logits


def build_plain_unet(config: PlainUNetConfig) -> nn.Module:
    """Return the network (Ronneberger et al., MICCAI 2015), padded so that its size stays."""
    return adapt(PlainUNet(config), config)


def _two(config: PlainUNetConfig, before: int, after: int) -> nn.Module:
    block: nn.Module = TwoConv(
        config.spatial_dims, before, after, _ACTIVATION, "batch", True, config.dropout
    )
    return block
