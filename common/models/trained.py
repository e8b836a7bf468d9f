"""What of a network is trained: all of it, some layers, or small matrices added to its layers."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from common.models.config import ModelConfig
from common.models.layers import keys_named, local_names

_LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d)


class LowRank(nn.Module):
    """weight + up @ down, with up [O, r] and down [r, I x ...]; at the start up is 0.

    LoRA (Hu et al., ICLR 2022, Eq. 3), its alpha at r; a convolution's weight is taken as a matrix
    of its outputs.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = len(weight), weight[0].numel()
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the layer works with, of the same shape."""
        return weight + (self.up @ self.down).view_as(weight)


def restrict(network: nn.Module, config: ModelConfig) -> nn.Module:
    """Freeze what the settings do not train, in place, and return the network.

    Raises:
        ValueError: a pattern names no tensor, or no layer is large enough for the rank.
    """
    if config.trained is None and config.lora_rank is None:
        return network
    wanted: set[str] = set()
    for pattern in config.trained if config.trained is not None else ["head"]:
        named = keys_named(network, pattern)
        if not named:
            raise ValueError(
                f"model.trained has {pattern!r}, which no tensor of the network is called; give "
                "head, norms, or names with * for any letters"
            )
        wanted |= named
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in wanted)
    if config.lora_rank is not None:
        _add_low_rank(network, config.lora_rank)
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError(
            f"model.trained={config.trained} leaves nothing to be trained; name the head, norms or "
            "other parameters"
        )
    return network


def check_something_travels(network: nn.Module, config: ModelConfig) -> None:
    """Refuse a network of which nothing is learned together.

    Raises:
        ValueError: every parameter that is trained stays at its site.
    """
    free = {name for name, p in network.named_parameters() if p.requires_grad}
    if free <= local_names(network, config):
        raise ValueError(
            f"model.trained={config.trained} and model.local={config.local} leave nothing to be "
            "learned together; let a part that is trained travel"
        )


def _add_low_rank(network: nn.Module, rank: int) -> None:
    if any(is_parametrized(module) for module in network.modules()):
        raise ValueError(
            f"model.lora_rank={rank} adds to a layer's weight, and here weights are standardised; "
            "choose model.standardised=null and another model than anfr, or lora_rank=null"
        )
    added = 0
    for module in list(network.modules()):
        if not isinstance(module, _LAYERS) or "weight" not in dict(module.named_parameters()):
            continue
        weight = module.weight
        smaller = rank * (len(weight) + weight[0].numel()) < weight.numel()
        if smaller and not weight.requires_grad:
            register_parametrization(module, "weight", LowRank(weight, rank))
            added += 1
    if not added:
        raise ValueError(
            f"model.lora_rank={rank} makes no layer smaller than it is; give a lower rank, or null"
        )


def frozen_names(network: nn.Module) -> frozenset[str]:
    """Return the parameters that nothing trains: every place has them, and they never travel."""
    return frozenset(n for n, p in network.named_parameters() if not p.requires_grad)
