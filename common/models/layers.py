"""What every network has in common: its normalisation, and activations that leave inputs intact.

MONAI cannot be asked for either. Its ResNet passes `norm` and `act` to the stem alone, its
AttentionUnet fixes batch norm, and a GroupNorm takes one number of groups for all layers. So each
builder asks MONAI for its defaults and the layers are exchanged here.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from common.models.adapted_norm import adapted_norm
from common.models.config import ModelConfig
from common.models.standardise import standardise

_CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_MEAN_POOLS = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_BATCH_NORMS: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
_INSTANCE_NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def convolution(dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """Return the convolution of two or three dimensions."""
    return _CONVOLUTIONS[dims]


def batch_norm(dims: int) -> type[nn.BatchNorm2d] | type[nn.BatchNorm3d]:
    """Return the batch norm of two or three dimensions, which `adapt` exchanges."""
    return _BATCH_NORMS[dims]


def mean_pool(dims: int) -> nn.Module:
    """Return the mean over an image: [B, C, *spatial] -> [B, C] (Lin et al., ICLR 2014)."""
    return nn.Sequential(_MEAN_POOLS[dims](1), nn.Flatten())


def group_count(channels: int, largest: int) -> int:
    """Return the largest divisor of channels that is at most `largest`."""
    return max(count for count in range(1, min(channels, largest) + 1) if channels % count == 0)


def norm_layer(config: ModelConfig, channels: int) -> nn.Module:
    """Return the configured normalisation of [B, channels, *spatial], with a scale and a shift.

    group: Wu and He, ECCV 2018. instance: Ulyanov et al., 2016, without running statistics.
    batch: Ioffe and Szegedy, ICML 2015.
    """
    if config.norm == "group":
        return nn.GroupNorm(group_count(channels, config.norm_groups), channels)
    if config.norm == "instance":
        return _INSTANCE_NORMS[config.spatial_dims](channels, affine=True)
    if config.test_time_prior is not None:
        return adapted_norm(config.spatial_dims, channels, config.test_time_prior)
    return _BATCH_NORMS[config.spatial_dims](channels)


def adapt(network: nn.Module, config: ModelConfig) -> nn.Module:
    """Exchange a MONAI network's layers in place, and return the network.

    Every batch or instance norm becomes the configured norm, convolutions are standardised if that
    is configured, and nothing works in place any more: the engine of privacy needs the inputs of a
    layer as they were in the forward pass.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm | _InstanceNorm):
                setattr(parent, name, norm_layer(config, child.num_features))
    module: Any
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return standardise(network) if config.standardised else network


def batch_norm_keys(model: nn.Module) -> frozenset[str]:
    """Return the state_dict keys of every batch norm, parameters and running statistics.

    They are what model.batch_norm_policy speaks of; without batch norm the set is empty.
    """
    return _keys_of(model, _BatchNorm)


def norm_keys(model: nn.Module) -> frozenset[str]:
    """Return the state_dict keys of every norm layer."""
    return _keys_of(model, _NormBase, nn.GroupNorm, nn.LayerNorm)


def head_keys(model: nn.Module) -> frozenset[str]:
    """Return the state_dict keys of what gives the logits: the last layer that has weights.

    A network whose last one is another says so itself, in `head_prefixes`.
    """
    prefixes: tuple[str, ...] | None = getattr(model, "head_prefixes", None)
    if prefixes is not None:
        return frozenset(key for key in model.state_dict() if key.startswith(prefixes))
    *_, last = (
        prefix
        for prefix, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    )
    # What a weight is made of lies in modules of its own below the layer.
    head = last.partition(".parametrizations")[0]
    return frozenset(key for key in model.state_dict() if key.startswith(f"{head}."))


def _keys_of(model: nn.Module, *kinds: type[nn.Module]) -> frozenset[str]:
    return frozenset(
        f"{prefix}.{key}" if prefix else key
        for prefix, module in model.named_modules()
        if isinstance(module, kinds)
        for key in module.state_dict()
    )


_PARTS = {"head": head_keys, "norms": norm_keys}


def keys_named(model: nn.Module, pattern: str) -> frozenset[str]:
    """Return the state_dict keys of a part (head, norms) or of a pattern (* for any letters)."""
    named = _PARTS[pattern](model) if pattern in _PARTS else frozenset()
    return named | {key for key in model.state_dict() if fnmatchcase(key, pattern)}


def lr_factors_of(model: nn.Module, factors: Mapping[str, float] | None) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter that is trained, 1 by default.

    Raises:
        ValueError: a pattern names no such parameter.
    """
    found = {name: 1.0 for name, p in model.named_parameters() if p.requires_grad}
    for pattern, factor in (factors or {}).items():
        named = keys_named(model, pattern) & found.keys()
        if not named:
            raise ValueError(
                f"training.lr_factors has {pattern!r}, which no parameter that is trained is "
                "called; give head, norms, or names with * for any letters"
            )
        found |= dict.fromkeys(named, factor)
    return found


def local_names(model: nn.Module, config: ModelConfig) -> frozenset[str]:
    """Return the state_dict keys that never travel: local batch norms, and those of config.local.

    Raises:
        ValueError: a pattern names no tensor of the network, or nothing is left to travel.
    """
    keys = list(model.state_dict())
    found = batch_norm_keys(model) if config.batch_norm_policy == "local" else frozenset()
    for pattern in config.local or []:
        named = keys_named(model, pattern)
        if not named:
            raise ValueError(
                f"model.local has {pattern!r}, which no tensor of the network is called; give "
                f"{' or '.join(sorted(_PARTS))}, or names of: {', '.join(keys)}"
            )
        found |= named
    if len(found) == len(keys):
        raise ValueError(
            f"model.local={list(config.local or [])} keeps the whole network at the sites; leave "
            "something to be learned together"
        )
    return found
