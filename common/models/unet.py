"""The U-Net with residual units: a logit per voxel and class."""

from dataclasses import dataclass, field

from monai.networks.nets import UNet
from torch import nn

from common.checks import not_negative, positive
from common.models.config import ModelConfig
from common.models.layers import adapt


@dataclass(frozen=True, kw_only=True)
class UNetConfig(ModelConfig):
    """Settings of the U-Net."""

    channels: list[int] = field(default_factory=lambda: [16, 32, 64])
    """Channels of each level, the finest first; at least two levels."""
    strides: list[int] = field(default_factory=lambda: [2, 2])
    """Reduction from each level to the next; the image size must be a multiple of their product."""
    num_res_units: int = 2
    """Convolutions of a level's residual unit; 0: one plain convolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.channels, self.strides)
        not_negative(**{"model.num_res_units": self.num_res_units})
        if self.residual and self.num_res_units:
            raise ValueError(
                f"model.num_res_units={self.num_res_units} ends in a unit that adds its own input, "
                "so the network would not begin with its image (model.residual=true); choose "
                "unet128, or set model.num_res_units=0"
            )


def check_levels(channels: list[int], strides: list[int]) -> None:
    """Raise ValueError unless there are two levels or more, and a stride between each two."""
    positive(**{f"model.channels[{level}]": count for level, count in enumerate(channels)})
    positive(**{f"model.strides[{level}]": stride for level, stride in enumerate(strides)})
    if len(channels) < 2:
        raise ValueError(
            f"model.channels={list(channels)} has {len(channels)} levels, but a U-Net goes down "
            "at least once; give two or more"
        )
    if len(strides) != len(channels) - 1:
        raise ValueError(
            f"model.strides={list(strides)} has {len(strides)} numbers, but "
            f"model.channels={list(channels)} has {len(channels)} levels; "
            f"give {len(channels) - 1} strides, one between each two levels"
        )


def build_unet(config: UNetConfig) -> nn.Module:
    """Return MONAI's U-Net (Ronneberger et al., MICCAI 2015; Kerfoot et al., STACOM 2018).

    [B, in_channels, *spatial] -> logits [B, out_channels, *spatial]. Leaky ReLU stands in the place
    of MONAI's PReLU, for which Opacus has no rule of its own: it falls back on functorch, which is
    slower.
    """
    network = UNet(
        spatial_dims=config.spatial_dims,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        channels=config.channels,
        strides=config.strides,
        num_res_units=config.num_res_units,
        act=("leakyrelu", {"negative_slope": 0.01}),
        norm="batch",
        dropout=config.dropout or None,
    )
    return adapt(network, config)
