"""VGG-16, with a norm behind every convolution and a mean over the image before the last layer."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from common.models.config import ModelConfig, check_widths
from common.models.layers import adapt, batch_norm, convolution, mean_pool

CONVOLUTIONS = [2, 2, 3, 3, 3]
"""Of each stage: configuration D of the paper's Table 1."""
_POOLS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


@dataclass(frozen=True, kw_only=True)
class VGG16Config(ModelConfig):
    """Settings of the VGG-16."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256, 512, 512])
    """Channels of the five stages; each halves the image but for a single voxel."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels, exactly=len(CONVOLUTIONS))


class VGG16(nn.Module):
    """[B, in_channels, *spatial] -> logits [B, out_channels]; sides of 32 voxels or more."""

    def __init__(self, config: VGG16Config) -> None:
        super().__init__()
        dims, before = config.spatial_dims, config.in_channels
        layers: list[nn.Module] = []
        for count, width in zip(CONVOLUTIONS, config.channels, strict=True):
            for _ in range(count):
                layers += [convolution(dims)(before, width, 3, padding=1)]
                layers += [batch_norm(dims)(width), nn.ReLU()]
                before = width
            layers.append(_POOLS[dims](2))
        # Named and numbered as torchvision's vgg16_bn, whose weights then need no map.
        self.features = nn.Sequential(*layers)
        self.pool = mean_pool(dims)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(before, config.out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.dropout(self.pool(self.features(images))))
        return logits


def build_vgg16(config: VGG16Config) -> nn.Module:
    """Return the network (Simonyan and Zisserman, ICLR 2015, configuration D).

    Its three dense layers of 4096 (124 of 138 million weights) are a mean over the image and one
    layer (Lin et al., ICLR 2014), so that an image of any size passes and a round is a tenth.
    """
    return adapt(VGG16(config), config)
