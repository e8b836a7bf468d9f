"""The networks by name: what may be asked for, and how it is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from common.checks import one_of
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
from common.models.layers import batch_norm_keys
from common.models.unet import UNetConfig, build_unet

__all__ = ["MODELS", "Family", "batch_norm_keys", "build_model", "model_config_type"]


@dataclass(frozen=True)
class Family:
    """A kind of network."""

    config: type[ModelConfig]
    """Its settings."""
    build: Callable[..., nn.Module]
    """From its settings to a network; draws its weights from the default generator."""


MODELS: Mapping[str, Family] = MappingProxyType(
    {
        "unet": Family(UNetConfig, build_unet),
        "attention_unet": Family(AttentionUNetConfig, build_attention_unet),
        "cnn": Family(CNNConfig, build_cnn),
        "resnet18": Family(ResNet18Config, build_resnet18),
        "densenet121": Family(DenseNet121Config, build_densenet121),
    }
)
"""Every network that a study may ask for."""


def model_config_type(name: str) -> type[ModelConfig]:
    """Return the dataclass of a network's settings.

    Raises:
        ValueError: no network has this name; the message lists those that exist.
    """
    one_of(MODELS, **{"model.name": name})
    return MODELS[name].config


def build_model(config: ModelConfig, seed: int) -> nn.Module:
    """Return a new network on the CPU; equal settings and seeds give equal bytes.

    seed: in [0, 2^63). The default generator is left as it was found.

    Raises:
        ValueError: no network has this name, or the settings are those of another network.
    """
    expected = model_config_type(config.name)
    if not isinstance(config, expected):
        raise ValueError(
            f"model.name={config.name!r} came with {type(config).__name__}; "
            f"give the settings as {expected.__name__}"
        )
    # torch.manual_seed would also seed the GPUs' generators, and nothing here would restore them.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return MODELS[config.name].build(config)
