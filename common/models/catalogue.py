"""What there is to say of each network: where it comes from, and what it is for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from common.models.config import ModelConfig
from common.models.registry import model_config_type, sketch

VOXELS = ("segmentation", "restoration", "pretraining")
IMAGE = ("classification", "multilabel", "survival", "pretraining")
SIDE = 64
"""Of the images for which parameters are counted, where their number depends on it."""


@dataclass(frozen=True)
class Card:
    """One network. All train with differential privacy by default; a test proves it of each."""

    tasks: tuple[str, ...]
    """The tasks whose answers it gives: one a voxel, or one an image."""
    source: str
    """Authors, venue, year."""
    dims: tuple[int, ...] = (2, 3)
    """Of the images that it takes."""


CARDS: Mapping[str, Card] = MappingProxyType(
    {
        "unet": Card(VOXELS, "Ronneberger et al., MICCAI 2015; Kerfoot et al., STACOM 2018"),
        "unet128": Card(VOXELS, "Ronneberger et al., MICCAI 2015; levels of 64, 128, 256"),
        "attention_unet": Card(VOXELS, "Oktay et al., MIDL 2018"),
        "unet_plus_plus": Card(VOXELS, "Zhou et al., DLMIA 2018"),
        "residual_unet": Card(VOXELS, "Zhang et al., GRSL 2018; Isensee et al., 2021"),
        "dynunet": Card(VOXELS, "Isensee et al., Nature Methods 2021 (nnU-Net)"),
        "deepmedic": Card(VOXELS, "Kamnitsas et al., Medical Image Analysis 2017"),
        "unetr": Card(VOXELS, "Hatamizadeh et al., WACV 2022"),
        "cnn": Card(IMAGE, "four convolutions; Lin et al., ICLR 2014"),
        "vgg16": Card(IMAGE, "Simonyan and Zisserman, ICLR 2015"),
        "resnet18": Card(IMAGE, "He et al., CVPR 2016"),
        "resnet50": Card(IMAGE, "He et al., CVPR 2016"),
        "densenet121": Card(IMAGE, "Huang et al., CVPR 2017"),
        "chexnet": Card(IMAGE, "Rajpurkar et al., 2017 (arXiv 1711.05225)"),
        "efficientnet_b0": Card(IMAGE, "Tan and Le, ICML 2019"),
        "vit": Card(IMAGE, "Dosovitskiy et al., ICLR 2021"),
        "anfr": Card(IMAGE, "Siomos et al., 2024 (arXiv 2410.02006)"),
        "scattering": Card(IMAGE, "Tramer and Boneh, ICLR 2021", dims=(2,)),
        "unet_volumes": Card(IMAGE, "linear in the volumes that unet finds"),
    }
)
"""Every network of the registry."""


def catalogue() -> list[dict[str, Any]]:
    """Return name, dims, tasks, parameters, dp and source of every network.

    parameters, parameters_3d: of the default settings, for one channel, two classes and images of
    SIDE voxels; null where it does not take volumes.
    dp: whether the default settings train with differential privacy; every network does, and with
    norm=batch none, which is refused.
    """
    return [
        {
            "name": name,
            "dims": list(card.dims),
            "tasks": list(card.tasks),
            "parameters": parameters_of(name, 2),
            "parameters_3d": parameters_of(name, 3) if 3 in card.dims else None,
            "dp": True,
            "source": card.source,
        }
        for name, card in CARDS.items()
    ]


def usual_config(name: str, dims: int, side: int) -> ModelConfig:
    """Return a network's default settings for images of so many voxels a side."""
    kind = model_config_type(name)
    needs_size = "image_size" in kind.__dataclass_fields__
    sized: dict[str, Any] = {"image_size": [side] * dims} if needs_size else {}
    return kind(name=name, spatial_dims=dims, **sized)


def parameters_of(name: str, dims: int) -> int:
    """Return how many weights the network has by default."""
    network = sketch(usual_config(name, dims, SIDE))
    return sum(parameter.numel() for parameter in network.parameters())
