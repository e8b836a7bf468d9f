"""U-Net++: a U-Net whose skip connections are nested U-Nets."""

from dataclasses import dataclass, field

import torch
from monai.networks.nets import BasicUNetPlusPlus
from torch import Tensor, nn

from common.checks import one_of
from common.models.config import ModelConfig, check_widths
from common.models.layers import adapt


@dataclass(frozen=True, kw_only=True)
class NestedUNetConfig(ModelConfig):
    """Settings of the U-Net++."""

    channels: list[int] = field(default_factory=lambda: [16, 32, 64, 128, 256])
    """Channels of the five levels, the finest first; the image size must be a multiple of 16."""
    deep_supervision: bool = False
    """Whether in training each of the four nested U-Nets is held to the target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels, exactly=5)
        one_of((True, False), **{"model.deep_supervision": self.deep_supervision})


class NestedUNet(BasicUNetPlusPlus):  # type: ignore[misc]  # MONAI is not typed
    """[B, in_channels, *spatial] -> logits [B, out_channels, *spatial].

    In training with deep supervision [B, 4, out_channels, *spatial], the deepest first.
    """

    head_prefixes = ("final_conv_0_",)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        heads: list[Tensor] = super().forward(x)
        supervised = self.deep_supervision and self.training
        return torch.stack(heads[::-1], dim=1) if supervised else heads[-1]


def build_nested_unet(config: NestedUNetConfig) -> nn.Module:
    """Return MONAI's U-Net++ (Zhou et al., DLMIA 2018)."""
    network = NestedUNet(
        spatial_dims=config.spatial_dims,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        features=(*config.channels, config.channels[0]),
        deep_supervision=config.deep_supervision,
        act=("relu", {"inplace": False}),
        norm="batch",
        dropout=config.dropout,
    )
    if not config.deep_supervision:
        # MONAI computes the other heads all the same, and nothing would ever train them.
        for name in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
            setattr(network, name, nn.Identity())
    return adapt(network, config)
