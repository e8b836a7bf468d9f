"""Networks that give one logit per image and class: a small CNN, ResNets, DenseNet-121."""

from dataclasses import dataclass, field
from itertools import pairwise

from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Pool
from monai.networks.nets import DenseNet121, ResNet
from monai.networks.nets.resnet import ResNetBlock, ResNetBottleneck
from torch import Tensor, nn

from common.checks import positive
from common.models.config import ModelConfig, check_widths
from common.models.layers import adapt


@dataclass(frozen=True, kw_only=True)
class CNNConfig(ModelConfig):
    """Settings of the small CNN."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 128])
    """Channels of each convolution; each halves the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels)


@dataclass(frozen=True, kw_only=True)
class ResNet18Config(ModelConfig):
    """Settings of the ResNet-18."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256, 512])
    """Channels of the four stages of two blocks each; the image shrinks 32-fold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels, exactly=4)


@dataclass(frozen=True, kw_only=True)
class ResNet50Config(ModelConfig):
    """Settings of the ResNet-50."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256, 512])
    """Channels within the blocks of the four stages, which give 4 times as many; the image shrinks
    32-fold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels, exactly=4)


@dataclass(frozen=True, kw_only=True)
class DenseNet121Config(ModelConfig):
    """Settings of the DenseNet-121."""

    init_features: int = 64
    """Channels of the first convolution."""
    growth_rate: int = 32
    """Channels that each dense layer adds: k of the paper."""
    block_config: list[int] = field(default_factory=lambda: [6, 12, 24, 16])
    """Dense layers of each block; the image shrinks 4-fold, and 2-fold between two blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(**{"model.init_features": self.init_features})
        positive(**{"model.growth_rate": self.growth_rate})
        check_widths("block_config", self.block_config)


@dataclass(frozen=True, kw_only=True)
class CheXNetConfig(DenseNet121Config):
    """Settings of CheXNet: the DenseNet-121, whose labels are the task's."""


def build_cnn(config: CNNConfig) -> nn.Module:
    """Return convolutions of stride 2, a global mean over the image, and a linear layer.

    [B, in_channels, *spatial] -> logits [B, out_channels]. The global mean (Lin et al., ICLR 2014)
    takes an image of any size.
    """
    convolutions = [
        Convolution(config.spatial_dims, before, after, strides=2, act="relu", norm="batch")
        for before, after in pairwise([config.in_channels, *config.channels])
    ]
    network = nn.Sequential(
        *convolutions,
        Pool["adaptiveavg", config.spatial_dims](1),
        nn.Flatten(),
        _head(config.channels[-1], config),
    )
    return adapt(network, config)


class _Block(ResNetBlock):  # type: ignore[misc]  # MONAI is not typed
    # MONAI's block adds the shortcut in place, on the output of a layer that Opacus has hooked.
    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        hidden = self.act(self.bn1(self.conv1(x)))
        activated: Tensor = self.act(self.bn2(self.conv2(hidden)) + shortcut)
        return activated


class _Bottleneck(ResNetBottleneck):  # type: ignore[misc]  # as above
    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        hidden = self.act(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))
        activated: Tensor = self.act(self.bn3(self.conv3(hidden)) + shortcut)
        return activated


def build_resnet18(config: ResNet18Config) -> nn.Module:
    """Return MONAI's ResNet with two basic blocks a stage (He et al., CVPR 2016, Table 1).

    [B, in_channels, *spatial] -> logits [B, out_channels]. The shortcuts are the paper's option B:
    MONAI's option A, which its own resnet18 takes, detaches the shortcut from the gradient.
    """
    return _resnet(config, config.channels, _Block, [2, 2, 2, 2])


def build_resnet50(config: ResNet50Config) -> nn.Module:
    """Return MONAI's ResNet of bottleneck blocks (He et al., CVPR 2016, Table 1).

    [B, in_channels, *spatial] -> logits [B, out_channels].
    """
    return _resnet(config, config.channels, _Bottleneck, [3, 4, 6, 3])


def _resnet(
    config: ModelConfig, channels: list[int], block: type[nn.Module], layers: list[int]
) -> nn.Module:
    network = ResNet(
        block=block,
        layers=layers,
        block_inplanes=channels,
        spatial_dims=config.spatial_dims,
        n_input_channels=config.in_channels,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        num_classes=config.out_channels,
    )
    network.fc = _head(network.fc.in_features, config)
    return adapt(network, config)


def build_densenet121(config: DenseNet121Config) -> nn.Module:
    """Return MONAI's DenseNet-121 (Huang et al., CVPR 2017, Table 1), as CheXNet is one too.

    [B, in_channels, *spatial] -> logits [B, out_channels].
    """
    network = DenseNet121(
        spatial_dims=config.spatial_dims,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        init_features=config.init_features,
        growth_rate=config.growth_rate,
        block_config=config.block_config,
        dropout_prob=config.dropout,
    )
    return adapt(network, config)


def _head(features: int, config: ModelConfig) -> nn.Module:
    linear = nn.Linear(features, config.out_channels)
    return nn.Sequential(nn.Dropout(config.dropout), linear) if config.dropout else linear
