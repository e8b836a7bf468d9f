"""How other libraries name the tensors of the networks that are here; none of them is imported.

torchvision (BSD-3) and timm (Apache-2.0) name a checkpoint's tensors by their own modules; each
function here returns the tensors by the names of our network of that family.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

State = dict[str, Tensor]
PREFIXES = ("module.", "_orig_mod.", "network.", "model.")
"""What wrappers put before every name. MONAI's U-Nets have the last one themselves."""
_DENSE = re.compile(r"(features\.denseblock\d+\.denselayer\d+)\.(norm\d|conv\d)\.")
_OLD_DENSE = re.compile(r"(norm|conv)\.(\d)\.")
_DENSE_FAMILIES = ("densenet121", "chexnet")


def of_monai(family: str, state: State) -> State:
    """Return the tensors of a MONAI bundle, or of a model of our own; the names are the same."""
    del family
    return state


def unwrapped(state: State) -> Iterator[State]:
    """Yield the tensors as they are named, and without each prefix that all of them have."""
    yield state
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            yield from unwrapped({n.removeprefix(prefix): tensor for n, tensor in state.items()})


def of_torchvision(family: str, state: State) -> State:
    """Return the tensors of torchvision's model of the family.

    resnet18, resnet50 and vgg16 (its vgg16_bn) have the same names here. densenet121's layers lie
    one level deeper here; its first checkpoints had `norm.1` for `norm1`. Its EfficientNet pads
    strided convolutions alike on both sides, MONAI's as TensorFlow does: a start, and not the same
    answer.
    """
    if family == "efficientnet_b0":
        return _renamed(state, _efficientnet_of_torchvision)
    if family not in _DENSE_FAMILIES:
        return state

    def renamed(name: str) -> str:
        name = _OLD_DENSE.sub(r"\1\2.", name) if ".denselayer" in name else name
        name = _DENSE.sub(r"\1.layers.\2.", name)
        return name.replace("classifier.", "class_layers.out.")

    return {renamed(name): tensor for name, tensor in state.items()}


_TIMM_VIT = (
    ("patch_embed.proj.", "patch_embedding.patch_embeddings."),
    (".attn.proj.", ".attn.out_proj."),
    (".mlp.fc1.", ".mlp.linear1."),
    (".mlp.fc2.", ".mlp.linear2."),
    ("head.", "classification_head."),
)


def of_timm(family: str, state: State) -> State:
    """Return the tensors of timm's model of the family.

    Of a ViT timm keeps the class token's position with those of the patches; here it is added to
    the token itself, which is the same sum. timm's ResNets have torchvision's names. Of its
    EfficientNets tf_efficientnet_b0 pads as MONAI's does.
    """
    if family == "efficientnet_b0":
        return _renamed(state, _efficientnet_of_timm)
    if family != "vit":
        return of_torchvision(family, state)
    found = {}
    for name, tensor in state.items():
        for theirs, ours in _TIMM_VIT:
            name = name.replace(theirs, ours)
        found[f"vit.{name}"] = tensor
    places = found.pop("vit.pos_embed", None)
    token = found.get("vit.cls_token")
    if places is not None and token is not None:
        found["vit.cls_token"] = token + places[:, :1]
        found["vit.patch_embedding.position_embeddings"] = places[:, 1:]
    return found


REPEATS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of the seven stages of EfficientNet-B0 (Tan and Le, ICML 2019, Table 1); MONAI numbers
them through."""
OUTSIDE = ("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc")
_EXPAND, _DEPTHWISE, _PROJECT = (
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
)


def _renamed(state: State, name_of: Callable[[str], str]) -> State:
    return {name_of(name): tensor for name, tensor in state.items()}


def _block(stage: int, block: int) -> str:
    return f"_blocks.{stage}.{sum(REPEATS[:stage]) + block}"


def _outside_the_blocks(name: str, theirs: Sequence[str]) -> str:
    """Return our name of a tensor before or behind the blocks. theirs: in the order of OUTSIDE."""
    layer, _, tensor = name.rpartition(".")
    return f"{OUTSIDE[theirs.index(layer)]}.{tensor}" if layer in theirs else name


def _efficientnet_of_timm(name: str) -> str:
    found = re.fullmatch(r"blocks\.(\d)\.(\d)\.(.+)\.(\w+)", name)
    if found is None:
        return _outside_the_blocks(name, ("conv_stem", "bn1", "conv_head", "bn2", "classifier"))
    stage, part = int(found[1]), found[3]
    # The first stage does not expand: its blocks have two convolutions.
    layers = (_DEPTHWISE, _PROJECT) if stage == 0 else (_EXPAND, _DEPTHWISE, _PROJECT)
    names = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
    called = dict(zip(names, (convolution for convolution, _ in layers), strict=True))
    called |= {f"bn{place}": norm for place, (_, norm) in enumerate(layers, start=1)}
    called |= {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    return f"{_block(stage, int(found[2]))}.{called.get(part, part)}.{found[4]}"


def _efficientnet_of_torchvision(name: str) -> str:
    found = re.fullmatch(r"features\.([1-7])\.(\d)\.block\.(\d)\.(\w+)\.(\w+)", name)
    if found is None:
        return _outside_the_blocks(
            name, ("features.0.0", "features.0.1", "features.8.0", "features.8.1", "classifier.1")
        )
    stage, layer, part = int(found[1]) - 1, int(found[3]), found[4]
    layers = [_DEPTHWISE, ("_se_reduce", "_se_expand"), _PROJECT]
    layers = layers if stage == 0 else [_EXPAND, *layers]
    places = {"0": 0, "1": 1, "fc1": 0, "fc2": 1}
    if layer >= len(layers) or part not in places:
        # Of a larger EfficientNet: it fits nowhere here, and is told so.
        return name
    ours = layers[layer][places[part]]
    return f"{_block(stage, int(found[2]))}.{ours}.{found[5]}"
