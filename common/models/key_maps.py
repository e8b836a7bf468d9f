"""How other libraries name the tensors of the networks that are here; none of them is imported.

torchvision (BSD-3) and timm (Apache-2.0) name a checkpoint's tensors by their own modules; each
function here returns the tensors by the names of our network of that family.
"""

import re
from collections.abc import Iterator

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
    one level deeper here; its first checkpoints had `norm.1` for `norm1`.
    """
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
    the token itself, which is the same sum. timm's ResNets have torchvision's names.
    """
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
