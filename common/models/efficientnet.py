"""EfficientNet-B0: few weights, with channel attention in every block."""

from dataclasses import dataclass

from monai.networks.nets import EfficientNet
from torch import nn

from common.checks import in_range
from common.models.config import ModelConfig
from common.models.layers import adapt

BLOCKS = [
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
]
"""Repeats, kernel, stride, expansion, channels in and out, squeeze: Tan and Le, Table 1."""
IMAGE_SIZE = 224
"""For which MONAI pads the strided convolutions; an image of any size passes."""


@dataclass(frozen=True, kw_only=True)
class EfficientNetB0Config(ModelConfig):
    """Settings of the EfficientNet-B0."""

    width: float = 1.0
    """Factor on all channels."""
    drop_connect: float = 0.0
    """Probability that a whole block of an image is skipped in training; 0.2 in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(0.05, 4.0, **{"model.width": self.width})
        in_range(0.0, 0.95, **{"model.drop_connect": self.drop_connect})


def build_efficientnet_b0(config: EfficientNetB0Config) -> nn.Module:
    """Return MONAI's EfficientNet-B0 (Tan and Le, ICML 2019).

    [B, in_channels, *spatial] -> logits [B, out_channels].
    """
    network = EfficientNet(
        blocks_args_str=BLOCKS,
        spatial_dims=config.spatial_dims,
        in_channels=config.in_channels,
        num_classes=config.out_channels,
        width_coefficient=config.width,
        depth_coefficient=1.0,
        dropout_rate=config.dropout,
        image_size=IMAGE_SIZE,
        norm="batch",
        drop_connect_rate=config.drop_connect,
    )
    return adapt(network, config)
