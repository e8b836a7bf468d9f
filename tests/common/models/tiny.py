"""The smallest network of each family: every kind of layer, few weights."""

from typing import Any

from common.models.config import ModelConfig
from common.models.registry import model_config_type

SMALLEST: dict[str, dict[str, Any]] = {
    "unet": {"channels": [4, 6], "strides": [2]},
    "attention_unet": {"channels": [4, 6], "strides": [2]},
    "unet128": {"channels": [4, 6]},
    "unet_plus_plus": {"channels": [4, 4, 6, 6, 6]},
    "residual_unet": {"channels": [4, 6, 6]},
    "dynunet": {"channels": [4, 6, 6], "supervised_levels": 1},
    "deepmedic": {"channels": [4, 4, 6, 6], "dense": [6]},
    "unetr": {"hidden": 4, "mlp": 6, "heads": 2, "features": 4},
    "cnn": {"channels": [4, 6]},
    "vgg16": {"channels": [4, 4, 4, 6, 6]},
    "resnet18": {"channels": [4, 4, 6, 6]},
    "resnet50": {"channels": [4, 4, 4, 4]},
    "densenet121": {"init_features": 4, "growth_rate": 2, "block_config": [1, 2]},
    "chexnet": {"init_features": 4, "growth_rate": 2, "block_config": [1, 2]},
    "efficientnet_b0": {"width": 0.1},
    "vit": {"hidden": 4, "mlp": 6, "heads": 2, "layers": 2},
    "anfr": {"channels": [8, 16]},
    "unet_volumes": {"channels": [4, 6], "strides": [2]},
}


def tiny(name: str, dims: int = 2, norm: str = "group") -> ModelConfig:
    policy = "average" if norm == "batch" else None
    common: dict[str, Any] = {
        "name": name,
        "spatial_dims": dims,
        "norm": norm,
        "batch_norm_policy": policy,
    }
    if name in ("vit", "unetr"):
        common["image_size"] = [size_for(name)] * dims
    # Two channels a group, so that a group norm is not an instance norm.
    return model_config_type(name)(**common, norm_groups=2, **SMALLEST[name])


def size_for(name: str, norm: str = "group") -> int:
    # An instance norm needs more than one voxel, and these shrink an image 32-fold.
    if norm == "instance" and name in ("resnet18", "resnet50", "efficientnet_b0", "vgg16"):
        return 64
    wide = name in ("efficientnet_b0", "resnet50", "vgg16", "unetr")
    return 32 if wide or norm == "instance" else 16
