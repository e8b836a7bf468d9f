"""The U-Net whose skip connections are gated by attention: a logit per voxel and class."""

from dataclasses import dataclass, field

from monai.networks.nets import AttentionUnet
from torch import nn

from common.models.config import ModelConfig
from common.models.layers import adapt
from common.models.unet import check_levels


@dataclass(frozen=True, kw_only=True)
class AttentionUNetConfig(ModelConfig):
    """Settings of the attention U-Net."""

    channels: list[int] = field(default_factory=lambda: [16, 32, 64])
    """Channels of each level, the finest first; at least two levels; even, but for the last."""
    strides: list[int] = field(default_factory=lambda: [2, 2])
    """Reduction from each level to the next; the image size must be a multiple of their product."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.channels, self.strides)
        for level, count in enumerate(self.channels[:-1]):
            if count % 2:
                raise ValueError(
                    f"model.channels[{level}]={count} is odd, but the attention gate of a level "
                    "works on half of its channels; give an even number"
                )


def build_attention_unet(config: AttentionUNetConfig) -> nn.Module:
    """Return MONAI's attention U-Net (Oktay et al., MIDL 2018).

    [B, in_channels, *spatial] -> logits [B, out_channels, *spatial].
    """
    network = AttentionUnet(
        spatial_dims=config.spatial_dims,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        channels=config.channels,
        strides=config.strides,
        dropout=config.dropout or None,
    )
    # MONAI's merging convolutions end in a PReLU; the paper, and the rest of the network, use ReLU.
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.PReLU):
                setattr(module, name, nn.ReLU())
    return adapt(network, config)
