"""The U-Nets of nnU-Net's kind: strided convolutions, and deep supervision or residual blocks."""

from dataclasses import dataclass, field

import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from common.checks import not_negative
from common.models.config import ModelConfig, check_widths
from common.models.layers import adapt

KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class DynUNetConfig(ModelConfig):
    """Settings of the U-Net that nnU-Net plans."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    """Channels of each level, the finest first; at least three. Each level halves the image, so
    its size must be a multiple of 2 to the power of the levels but one."""
    supervised_levels: int = 2
    """Deep supervision: coarser levels whose own logits are held to the target in training too; at
    most the levels but two."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels, at_least=3)
        not_negative(**{"model.supervised_levels": self.supervised_levels})
        if self.supervised_levels > len(self.channels) - 2:
            raise ValueError(
                f"model.supervised_levels={self.supervised_levels} is more than the "
                f"{len(self.channels) - 2} levels between the finest and the coarsest; lower it"
            )


@dataclass(frozen=True, kw_only=True)
class ResidualUNetConfig(ModelConfig):
    """Settings of the residual U-Net."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    """Channels of each level, the finest first; at least three. Each level halves the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels, at_least=3)


class _DynUNet(DynUNet):  # type: ignore[misc]  # MONAI is not typed
    head_prefixes = ("output_block.", "deep_supervision_heads.")

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        # MONAI registers every block twice. Under a second name a tensor that is to stay at a site
        # would leave it, and what travels would travel twice.
        skips = self.skip_layers
        del self.skip_layers
        self.__dict__["skip_layers"] = skips

    # MONAI's keeps the last pass's coarse logits, and with them the pass's whole graph: the network
    # could not be copied, and memory would not be free.
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)
        self.heads[:] = [torch.empty(0)] * len(self.heads)
        return logits


def build_dynunet(config: DynUNetConfig) -> nn.Module:
    """Return MONAI's DynUNet (nnU-Net, Isensee et al., Nature Methods 2021).

    [B, in_channels, *spatial] -> logits [B, out_channels, *spatial]; in training with deep
    supervision [B, 1 + supervised_levels, out_channels, *spatial], the finest first and the
    coarser ones enlarged to its size.
    """
    return _network(config, config.channels, supervised=config.supervised_levels)


def build_residual_unet(config: ResidualUNetConfig) -> nn.Module:
    """Return a U-Net of residual blocks (Zhang et al., GRSL 2018, with nnU-Net's blocks).

    [B, in_channels, *spatial] -> logits [B, out_channels, *spatial].
    """
    return _network(config, config.channels, residual=True)


def _network(
    config: ModelConfig, channels: list[int], supervised: int = 0, residual: bool = False
) -> nn.Module:
    strides = [2] * (len(channels) - 1)
    network = _DynUNet(
        spatial_dims=config.spatial_dims,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        kernel_size=[KERNEL] * len(channels),
        strides=[1, *strides],
        upsample_kernel_size=strides,
        filters=channels,
        dropout=config.dropout or None,
        norm_name="batch",
        deep_supervision=supervised > 0,
        deep_supr_num=max(supervised, 1),
        res_block=residual,
    )
    return adapt(network, config)
