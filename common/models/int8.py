"""A network in 8-bit whole numbers, for computers without a GPU: a quarter of the bytes.

Convolutions and linear layers get int8 weights, a scale an output channel, and 8-bit inputs whose
ranges are seen on calibration images (Jacob et al., CVPR 2018; PyTorch's static quantisation).
Norms and transposed convolutions stay as they are, since their sums need the digits, and so does
the last layer, which would else answer in 128 steps.
"""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from common.models.layers import head_keys
from common.tensor_files import read_tensors, write_tensors

NETWORKS = (
    "unet",
    "unet128",
    "attention_unet",
    "unet_volumes",
    "cnn",
    "vgg16",
    "resnet18",
    "resnet50",
    "densenet121",
    "chexnet",
    "efficientnet_b0",
)
"""Those of the catalogue that can be computed in 8 bits; the way of the others asks for values, or
they have no layer but the last."""
_LAYERS = (nn.Conv2d, nn.Conv3d, nn.Linear)
_WORKS = f"these can be computed in 8 bits: {', '.join(NETWORKS)}"
_SEEN, _SCALE = "seen/", "/scale"
_HALF = 127.0
_BATCH = 16


class Int8Error(ValueError):
    """A network that cannot be computed in 8 bits."""


def quantised(network: nn.Module, images: Tensor) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the network in int8 and what its file holds (write_int8); the network is left alone.

    images: [N, C, *size], on the CPU, like those it will see: their ranges become those of the
    numbers.

    Raises:
        Int8Error: the network's way depends on its values, so no graph of it can be drawn, or no
            layer of it becomes int8.
    """
    with _engine():
        watched = _watched(rounded(network), images[:1])
        with torch.inference_mode():
            for batch in images.split(_BATCH):  # type: ignore[no-untyped-call]
                watched(batch)
        return _converted(watched, network), _file_of(network, watched)


def write_int8(path: Path, tensors: dict[str, Tensor], about: object) -> None:
    """Write what `quantised` returned; about: a JSON value."""
    write_tensors(path, tensors, about)


def read_int8(path: Path, network: nn.Module, images: Tensor) -> nn.Module:
    """Return the network of a file in int8.

    network: of the same settings; its weights do not count. images: one image or more of the right
    size, whatever it shows.
    """
    tensors, _ = read_tensors(path)
    state = {}
    for name in network.state_dict():
        tensor = tensors[name]
        scale = tensors.get(f"{name}{_SCALE}")
        state[name] = tensor if scale is None else tensor.float() * scale.view(_per_output(tensor))
    copied = copy.deepcopy(network).eval()
    copied.load_state_dict(state)
    with _engine():
        watched = _watched(copied, images[:1])
        for name, observer in _observers(watched).items():
            observer.min_val = tensors[f"{_SEEN}{name}/low"]
            observer.max_val = tensors[f"{_SEEN}{name}/high"]
        return _converted(watched, network)


def rounded(network: nn.Module) -> nn.Module:
    """Return a copy whose int8 weights are already rounded, so that the file holds just these."""
    copied = copy.deepcopy(network).eval()
    with torch.no_grad():
        for module in _becoming(copied).values():
            whole, scale = _whole_numbers(module.weight)
            module.weight.copy_(whole.float() * scale.view(_per_output(whole)))
    return copied


def size_bytes(tensors: dict[str, Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _whole_numbers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 weights [O, ...] and the scale of each output [O]."""
    largest = weight.detach().flatten(1).abs().amax(1)
    scale = torch.where(largest > 0, largest / _HALF, 1.0)
    whole = (weight.detach() / scale.view(_per_output(weight))).round().clamp(-_HALF, _HALF)
    return whole.to(torch.int8), scale


def _per_output(weight: Tensor) -> list[int]:
    return [-1, *[1] * (weight.ndim - 1)]


def _file_of(network: nn.Module, watched: nn.Module) -> dict[str, Tensor]:
    tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    for prefix, module in _becoming(network).items():
        name = f"{prefix}.weight" if prefix else "weight"
        tensors[name], tensors[f"{name}{_SCALE}"] = _whole_numbers(module.weight)
    for name, observer in _observers(watched).items():
        tensors[f"{_SEEN}{name}/low"] = observer.min_val.clone()
        tensors[f"{_SEEN}{name}/high"] = observer.max_val.clone()
    return tensors


def _becoming(network: nn.Module) -> dict[str, Any]:
    """Return by name the layers that become int8: not the last, and none whose weight is made."""
    head = head_keys(network)
    return {
        name: module
        for name, module in network.named_modules()
        if type(module) in _LAYERS and f"{name}.weight" not in head
    }


def _observers(watched: nn.Module) -> dict[str, Any]:
    from torch.ao.quantization import MinMaxObserver

    return {
        name: module
        for name, module in watched.named_modules()
        if isinstance(module, MinMaxObserver)
    }


def _watched(network: nn.Module, example: Tensor) -> GraphModule:
    """Return the network's graph with an observer at each input of a layer that becomes int8."""
    from torch.ao.quantization import (
        MinMaxObserver,
        PerChannelMinMaxObserver,
        QConfig,
        QConfigMapping,
    )
    from torch.ao.quantization.quantize_fx import prepare_fx

    # Seven bits of inputs: a processor without VNNI adds pairs of products in 16 bits.
    inputs = MinMaxObserver.with_args(dtype=torch.quint8, reduce_range=True)
    weights = PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric
    )
    kind = QConfig(activation=inputs, weight=weights)  # type: ignore[no-untyped-call]
    chosen = QConfigMapping().set_global(None)
    becoming = _becoming(network)
    if not becoming:
        raise Int8Error(f"this network has no layer but its last to make smaller; {_WORKS}")
    for name in becoming:
        chosen.set_module_name(name, kind)
    try:
        watched: GraphModule = prepare_fx(network, chosen, (example,))
        with torch.inference_mode():
            copy.deepcopy(watched)(example)
    # PyTorch's tracer raises what it likes, and what it drew may be wrong.
    except Exception as error:
        raise Int8Error(
            f"this network cannot be drawn as a graph ({type(error).__name__}); {_WORKS}"
        ) from error
    return watched


def _converted(watched: GraphModule, network: nn.Module) -> nn.Module:
    from torch.ao.quantization.quantize_fx import convert_fx

    converted: nn.Module = convert_fx(watched)
    # The graph is of the layers alone: what is added to their answer is no part of it.
    for hook in network._forward_hooks.values():
        converted.register_forward_hook(hook)
    return converted


@contextmanager
def _engine() -> Iterator[None]:
    with warnings.catch_warnings():
        # It moves to another package one day; the pinned version has it.
        warnings.simplefilter("ignore")
        yield
