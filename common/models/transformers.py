"""Networks of self-attention: the ViT for a label an image, the UNETR for one a voxel."""

from dataclasses import dataclass, field

from monai.networks.nets import UNETR, ViT
from monai.networks.nets.vit import TransformerBlock
from torch import Tensor, nn

from common.checks import positive
from common.models.config import ModelConfig
from common.models.layers import adapt

UNETR_PATCH = 16


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(ModelConfig):
    """What both have. Tokens have layer norm; `norm` is that of the UNETR's convolutions."""

    image_size: list[int] = field(default_factory=lambda: [64, 64])
    """Size of the images, to which the position embeddings belong: data.size."""
    hidden: int = 192
    """Features of a token."""
    mlp: int = 768
    """Features between the two layers of a block."""
    heads: int = 3
    """Attention heads; they divide `hidden`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(**{f"model.{n}": getattr(self, n) for n in ("hidden", "mlp", "heads")})
        if self.hidden % self.heads:
            raise ValueError(
                f"model.heads={self.heads} does not divide model.hidden={self.hidden}; give heads "
                "that do"
            )

    def check_patches(self, side: int) -> None:
        """Raise ValueError unless images are cut into whole patches of so many voxels a side."""
        sizes = list(self.image_size)
        if len(sizes) != self.spatial_dims or any(n < 1 or n % side for n in sizes):
            raise ValueError(
                f"model.image_size={sizes} is not cut into whole patches of {side} along "
                f"{self.spatial_dims} axes; give data.size in multiples of {side}"
            )


@dataclass(frozen=True, kw_only=True)
class ViTConfig(TransformerConfig):
    """Settings of the vision transformer; the defaults are ViT-Tiny's with smaller patches."""

    patch: int = 8
    """Side of a patch in voxels."""
    layers: int = 12
    """Transformer blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(**{"model.patch": self.patch, "model.layers": self.layers})
        self.check_patches(self.patch)


@dataclass(frozen=True, kw_only=True)
class UNETRConfig(TransformerConfig):
    """Settings of the UNETR: twelve transformer blocks on patches of 16, and a decoder."""

    features: int = 16
    """Channels of the decoder's finest level."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(**{"model.features": self.features})
        self.check_patches(UNETR_PATCH)


class _Logits(nn.Module):
    """MONAI's ViT returns its hidden states too."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.vit(images)[0]
        return logits


def build_vit(config: ViTConfig) -> nn.Module:
    """Return MONAI's vision transformer (Dosovitskiy et al., ICLR 2021).

    [B, in_channels, *image_size] -> logits [B, out_channels], from the class token.
    """
    network = ViT(
        in_channels=config.in_channels,
        img_size=config.image_size,
        patch_size=config.patch,
        hidden_size=config.hidden,
        mlp_dim=config.mlp,
        num_layers=config.layers,
        num_heads=config.heads,
        classification=True,
        num_classes=config.out_channels,
        dropout_rate=config.dropout,
        spatial_dims=config.spatial_dims,
        post_activation="",
        qkv_bias=True,
    )
    return _without_what_nothing_trains(_Logits(network))


def build_unetr(config: UNETRConfig) -> nn.Module:
    """Return MONAI's UNETR (Hatamizadeh et al., WACV 2022).

    [B, in_channels, *image_size] -> logits [B, out_channels, *image_size].
    """
    network = UNETR(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        img_size=config.image_size,
        feature_size=config.features,
        hidden_size=config.hidden,
        mlp_dim=config.mlp,
        num_heads=config.heads,
        norm_name="batch",
        dropout_rate=config.dropout,
        spatial_dims=config.spatial_dims,
        qkv_bias=True,
    )
    return adapt(_without_what_nothing_trains(network), config)


def _without_what_nothing_trains(network: nn.Module) -> nn.Module:
    # MONAI's block owns a norm for cross-attention even where it has none.
    for module in network.modules():
        if isinstance(module, TransformerBlock):
            module.norm_cross_attn = nn.Identity()
    return network
