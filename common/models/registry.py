"""The networks by name: what may be asked for, and how it is built."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from common.covariates import width_of
from common.models.anfr import ANFRConfig, build_anfr
from common.models.attention_unet import AttentionUNetConfig, build_attention_unet
from common.models.classifiers import (
    CheXNetConfig,
    CNNConfig,
    DenseNet121Config,
    ResNet18Config,
    ResNet50Config,
    build_cnn,
    build_densenet121,
    build_resnet18,
    build_resnet50,
)
from common.models.config import ModelConfig
from common.models.deepmedic import DeepMedicConfig, build_deepmedic
from common.models.dynunet import (
    DynUNetConfig,
    ResidualUNetConfig,
    build_dynunet,
    build_residual_unet,
)
from common.models.efficientnet import EfficientNetB0Config, build_efficientnet_b0
from common.models.late_fusion import LateFusion
from common.models.layers import head_keys, local_names
from common.models.nested_unet import NestedUNetConfig, build_nested_unet
from common.models.plain_unet import PlainUNetConfig, build_plain_unet
from common.models.scattering import ScatteringConfig, build_scattering
from common.models.start import load_start
from common.models.trained import restrict
from common.models.transformers import (
    UNETRConfig,
    ViTConfig,
    build_unetr,
    build_vit,
)
from common.models.unet import UNetConfig, build_unet
from common.models.vgg import VGG16Config, build_vgg16
from common.models.volumes import UNetVolumesConfig, build_unet_volumes
from common.registry import Entry, build, config_type

__all__ = ["MODELS", "build_model", "local_names", "model_config_type"]


MODELS: Mapping[str, Entry[ModelConfig, nn.Module]] = MappingProxyType(
    {
        "unet": Entry(UNetConfig, build_unet),
        "attention_unet": Entry(AttentionUNetConfig, build_attention_unet),
        "cnn": Entry(CNNConfig, build_cnn),
        "resnet18": Entry(ResNet18Config, build_resnet18),
        "densenet121": Entry(DenseNet121Config, build_densenet121),
        "vgg16": Entry(VGG16Config, build_vgg16),
        "resnet50": Entry(ResNet50Config, build_resnet50),
        "chexnet": Entry(CheXNetConfig, build_densenet121),
        "efficientnet_b0": Entry(EfficientNetB0Config, build_efficientnet_b0),
        "vit": Entry(ViTConfig, build_vit),
        "anfr": Entry(ANFRConfig, build_anfr),
        "unet128": Entry(PlainUNetConfig, build_plain_unet),
        "unet_plus_plus": Entry(NestedUNetConfig, build_nested_unet),
        "residual_unet": Entry(ResidualUNetConfig, build_residual_unet),
        "dynunet": Entry(DynUNetConfig, build_dynunet),
        "deepmedic": Entry(DeepMedicConfig, build_deepmedic),
        "unetr": Entry(UNETRConfig, build_unetr),
        "scattering": Entry(ScatteringConfig, build_scattering),
        "unet_volumes": Entry(UNetVolumesConfig, build_unet_volumes),
    }
)
"""Every network that a study may ask for."""


def model_config_type(name: str) -> type[ModelConfig]:
    """Return the dataclass of a network's settings.

    Raises:
        ValueError: no network has this name; the message lists those that exist.
    """
    return config_type(MODELS, "model", name)


def sketch(config: ModelConfig) -> nn.Module:
    """Return the network without weights, on PyTorch's meta device: shapes alone.

    Raises:
        ValueError: as build_model.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return restrict(_whole(build(MODELS, "model", config), config), config)


def build_model(config: ModelConfig, seed: int) -> nn.Module:
    """Return a new network on the CPU; equal settings and seeds give equal bytes.

    Of an ensemble (config.members) a list of networks; whoever asks them puts their answers
    together. seed: in [0, 2^63). The default generator is left as it was found.

    Raises:
        ValueError: no network has this name, or the settings are those of another network.
        StartError: the weights that it is to start from are not here, or do not fit.
    """
    if config.members is not None:
        alone = replace(config, members=None)
        return nn.ModuleList(build_model(alone, seed) for _ in range(config.members))
    # torch.manual_seed would also seed the GPUs' generators, and nothing here would restore them.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        network = _whole(build(MODELS, "model", config), config)
        if config.start is not None:
            load_start(network, config.name, config.start)
        return restrict(network, config)


def _whole(network: nn.Module, config: ModelConfig) -> nn.Module:
    """Return the network with what the settings add to its answer, whatever its family."""
    if config.residual:
        # It begins with the image itself: the last layer adds nothing yet.
        for name, tensor in network.state_dict().items():
            if name in head_keys(network):
                tensor.zero_()
        network.register_forward_hook(_with_image)
    if config.covariates is not None:
        return LateFusion(network, width_of(config.covariates), config.out_channels)
    return network


def _with_image(_: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
    image = inputs[0][:, : answer.shape[-inputs[0].ndim + 1]]
    # Deeply supervised answers have an axis of depths behind that of the images.
    return answer + (image if answer.ndim == image.ndim else image[:, None])


def told_start(config: ModelConfig) -> str | None:
    """Return in a line what a file of weights gives the network; None where there is none.

    Raises:
        StartError: as build_model.
    """
    if config.start is None:
        return None
    network = _whole(build(MODELS, "model", config), config)
    report = load_start(network, config.name, config.start)
    return f"{config.start.file}: {report}"
