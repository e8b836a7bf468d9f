"""The networks by name: what may be asked for, and how it is built."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from common.models.attention_unet import AttentionUNetConfig, build_attention_unet
from common.models.classifiers import (
    CNNConfig,
    DenseNet121Config,
    ResNet18Config,
    build_cnn,
    build_densenet121,
    build_resnet18,
)
from common.models.config import ModelConfig
from common.models.layers import local_names
from common.models.scattering import ScatteringConfig, build_scattering
from common.models.unet import UNetConfig, build_unet
from common.registry import Entry, build, config_type

__all__ = ["MODELS", "build_model", "local_names", "model_config_type"]


MODELS: Mapping[str, Entry[ModelConfig, nn.Module]] = MappingProxyType(
    {
        "unet": Entry(UNetConfig, build_unet),
        "attention_unet": Entry(AttentionUNetConfig, build_attention_unet),
        "cnn": Entry(CNNConfig, build_cnn),
        "resnet18": Entry(ResNet18Config, build_resnet18),
        "densenet121": Entry(DenseNet121Config, build_densenet121),
        "scattering": Entry(ScatteringConfig, build_scattering),
    }
)
"""Every network that a study may ask for."""


def model_config_type(name: str) -> type[ModelConfig]:
    """Return the dataclass of a network's settings.

    Raises:
        ValueError: no network has this name; the message lists those that exist.
    """
    return config_type(MODELS, "model", name)


def build_model(config: ModelConfig, seed: int) -> nn.Module:
    """Return a new network on the CPU; equal settings and seeds give equal bytes.

    seed: in [0, 2^63). The default generator is left as it was found.

    Raises:
        ValueError: no network has this name, or the settings are those of another network.
    """
    # torch.manual_seed would also seed the GPUs' generators, and nothing here would restore them.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return build(MODELS, "model", config)
