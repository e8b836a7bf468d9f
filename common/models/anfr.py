"""ANFR: no norm at all. Standardised convolutions, and channel attention that recalibrates.

Siomos et al., 2024 (arXiv 2410.02006): sites whose images differ share no statistics of activations
then, and a patient's gradient is its own, so that it trains under differential privacy as it is.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.models.config import ModelConfig, check_widths
from common.models.layers import convolution, mean_pool
from common.models.standardise import standardise

ALPHA = 0.2
"""How much each residual branch adds to the variance (Brock et al., ICLR 2021, Sec. 3)."""
GAIN = 1.7139588594436646
"""Of the ReLU: 1 / sqrt(variance of max(0, x)) of a standard normal x (ibid., Eq. 4)."""
REDUCTION = 4
"""Squeeze of the channel attention."""


@dataclass(frozen=True, kw_only=True)
class ANFRConfig(ModelConfig):
    """Settings of the norm-free residual network; it has no norm to choose."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    """Channels of each stage of two blocks; each but the first halves the image, the stem too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels)
        if self.norm != "group" or self.standardised is not None:
            raise ValueError(
                f"model.norm={self.norm} and model.standardised={self.standardised}: model=anfr "
                "has no norm and always standardises its weights; leave them at group and null"
            )


class _Attention(nn.Module):
    """Squeeze and excitation (Hu et al., CVPR 2018): each channel by a factor from all of them."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        hidden = max(channels // REDUCTION, 1)
        self.factors = nn.Sequential(
            mean_pool(dims), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, image: Tensor) -> Tensor:
        factors: Tensor = self.factors(image)
        # Twice a sigmoid keeps the variance where it begins, at a factor of 1 / 2.
        return image * 2 * factors.sigmoid().view(*factors.shape, *[1] * (image.ndim - 2))


class _Block(nn.Module):
    """x + alpha f(x / beta), pre-activated (Brock et al., 2021, Eq. 3)."""

    def __init__(self, dims: int, before: int, after: int, stride: int, beta: float) -> None:
        super().__init__()
        conv = convolution(dims)
        self.beta = beta
        self.shortcut = (
            conv(before, after, 1, stride=stride) if stride > 1 or before != after else None
        )
        self.first = conv(before, after, 3, stride=stride, padding=1)
        self.second = conv(after, after, 3, padding=1)
        self.attention = _Attention(dims, after)

    def forward(self, image: Tensor) -> Tensor:
        active = _active(image) / self.beta
        shortcut = image if self.shortcut is None else self.shortcut(active)
        branch = self.attention(self.second(_active(self.first(active))))
        total: Tensor = shortcut + ALPHA * branch
        return total


class ANFR(nn.Module):
    """[B, in_channels, *spatial] -> logits [B, out_channels]; an image of any size."""

    def __init__(self, config: ANFRConfig) -> None:
        super().__init__()
        dims, widths = config.spatial_dims, config.channels
        self.stem = convolution(dims)(config.in_channels, widths[0], 3, stride=2, padding=1)
        blocks, before, variance = [], widths[0], 1.0
        for stage, width in enumerate(widths):
            for place in range(2):
                changes = place == 0
                stride = 2 if changes and stage > 0 else 1
                blocks.append(_Block(dims, before, width, stride, variance**0.5))
                fresh = changes and (stride > 1 or before != width)
                variance = (1.0 if fresh else variance) + ALPHA**2
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = mean_pool(dims)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(before, config.out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        seen = _active(self.blocks(self.stem(images)))
        logits: Tensor = self.head(self.dropout(self.pool(seen)))
        return logits


def _active(image: Tensor) -> Tensor:
    return torch.relu(image) * GAIN


def build_anfr(config: ANFRConfig) -> nn.Module:
    """Return the network; every convolution's weights are standardised."""
    return standardise(ANFR(config))
