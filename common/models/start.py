"""Weights to start from: a file that every place has, into the network that a study names.

The file is found by its name in the folder WARDROUND_WEIGHTS (else ~/.wardround/weights), nothing
is fetched, and its SHA-256 stands in the study: every site starts from the same bytes.
"""

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from common.models.config import StartConfig
from common.models.key_maps import State, of_monai, of_timm, of_torchvision, unwrapped
from common.models.late_fusion import COVARIATES, IMAGE
from common.models.layers import keys_named
from common.models.volumes import MAPS

FOLDER = "WARDROUND_WEIGHTS"
USUAL_FOLDER = Path.home() / ".wardround" / "weights"
ORIGINAL = ".parametrizations.weight.original"
"""What PyTorch calls a weight from which another is made."""
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
Layout = Callable[[str, State], State]
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {"wardround": of_monai, "monai": of_monai, "torchvision": of_torchvision, "timm": of_timm}
)
"""From a family's name and a file's tensors to the names that the network here gives them."""


class StartError(ValueError):
    """The weights that a study starts from are not here, are others, or do not fit."""


@dataclass(frozen=True)
class Report:
    """What of a file came into a network, and what did not."""

    taken: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    """Tensors of the network that start at random, as the study says."""
    left: list[str] = field(default_factory=list)
    """Tensors of the file that the network has no place for."""

    def __str__(self) -> str:
        """Return what was taken in one line."""
        whole = len(self.taken) + len(self.fresh)
        told = [f"{len(self.taken)} of {whole} tensors"]
        told += [f"at random: {_first(self.fresh)}"] if self.fresh else []
        told += [f"not used of the file: {_first(self.left)}"] if self.left else []
        return "; ".join(told)


def load_start(network: nn.Module, family: str, start: StartConfig) -> Report:
    """Put a file's tensors into the network, in place.

    family: the network's name in the registry.

    Raises:
        StartError: the file is not there, is another one, or leaves more at random than the study
            names in `fresh` (and covariates that the file has none of).
    """
    path = Path(os.environ.get(FOLDER) or USUAL_FOLDER) / start.file
    found = _renamed(network, family, _read(path, start.sha256), LAYOUTS[start.layout])
    report = _put(network, found, start)
    if not report.taken:
        raise StartError(
            f"{start.file} gives model.name={family} no tensor: the file's are "
            f"{', '.join(sorted(found)[:5]) or 'none'}; choose the file's own network and "
            "model.start.layout, name less in model.start.fresh, or leave model.start out"
        )
    added = {name for name in report.fresh if name.startswith(COVARIATES)} - found.keys()
    allowed = {name for name in report.fresh if _is_fresh(name, network, start)} | added
    missing = [name for name in report.fresh if name not in allowed]
    if missing:
        raise StartError(
            f"{start.file} has no tensor of the right shape for {len(missing)} of "
            f"{len(network.state_dict())} of model.name={family}: "
            f"{_some(missing, network, found)}; name those that are to start at random in "
            "model.start.fresh, or choose the file's own network and model.start.layout"
        )
    return report


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StartError(
            f"model.start.file={path.name} is not in {path.parent}: {error.strerror}; put it "
            f"there, or name its folder in {FOLDER}"
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise StartError(
            f"{path} has the SHA-256 {actual}, and model.start.sha256={sha256}: it is another "
            "file; fetch the right one, or name this one's in the study"
        )
    try:
        tensors = _tensors(path.suffix, content)
    except Exception as error:
        raise StartError(
            f"{path} cannot be read as weights ({type(error).__name__}: {error}); give a "
            "safetensors file, or a state dict that torch.load reads with weights_only=True"
        ) from error
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def _tensors(suffix: str, content: bytes) -> dict[str, Any]:
    if suffix == ".safetensors":
        return dict(load(content))
    loaded: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    while isinstance(loaded, dict) and (inner := [k for k in _WRAPPERS if k in loaded]):
        loaded = loaded[inner[0]]
    if not isinstance(loaded, dict):
        raise TypeError(f"it holds a {type(loaded).__name__}, not a state dict")
    return loaded


def _renamed(network: nn.Module, family: str, state: State, layout: Layout) -> State:
    """Return the tensors by the network's own names, without what a wrapper put before them."""
    known = {_plain(name) for name in network.state_dict()}
    named = [
        {_plain(name): tensor for name, tensor in layout(family, without).items()}
        for without in unwrapped(state)
    ]
    # A network that is told covariates may begin with one that was told none, and one that counts
    # voxels with one that segments them.
    within = [
        {f"{part}{name}": tensor for name, tensor in of.items()}
        for of in named
        for part in (IMAGE, MAPS, f"{IMAGE}{MAPS}")
    ]
    # Of equals the first: as they are named.
    return max([*named, *within], key=lambda found: len(known & set(found)))


def _plain(name: str) -> str:
    """Return what a weight is called whether or not another is made from it."""
    return name.replace(ORIGINAL, ".weight")


def _put(network: nn.Module, found: Mapping[str, Tensor], start: StartConfig) -> Report:
    own = network.state_dict()
    named = {_plain(name): name for name in own}
    report, taken = Report(), {}
    for plain, name in named.items():
        tensor = found.get(plain)
        tensor = None if tensor is None else _as_grey(tensor, own[name])
        fits = tensor is not None and tensor.shape == own[name].shape
        if fits and tensor is not None and not _is_asked_fresh(name, network, start):
            taken[name] = tensor.to(own[name].dtype)
            report.taken.append(name)
        else:
            report.fresh.append(name)
    report.left.extend(sorted(set(found) - {n for n in named if named[n] in taken}))
    network.load_state_dict({**own, **taken})
    return report


def _as_grey(tensor: Tensor, own: Tensor) -> Tensor:
    """Return a first convolution for colour as one for grey: the same answer to a grey image."""
    colour = tensor.ndim == own.ndim > 2 and tensor.shape[1] == 3 and own.shape[1] == 1
    return tensor.sum(1, keepdim=True) if colour else tensor


def _is_fresh(name: str, network: nn.Module, start: StartConfig) -> bool:
    # A gain that standardisation adds begins at 1, statistics of a norm at 0 and 1.
    made = ".parametrizations." in name and not name.endswith(ORIGINAL)
    return made or name.endswith(_STATISTICS) or _is_asked_fresh(name, network, start)


def _is_asked_fresh(name: str, network: nn.Module, start: StartConfig) -> bool:
    asked = ["head"] if start.fresh is None else start.fresh
    return any(name in keys_named(network, pattern) for pattern in asked)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _some(names: list[str], network: nn.Module, found: Mapping[str, Tensor]) -> str:
    own = network.state_dict()
    told = []
    for name in names[:5]:
        there = found.get(_plain(name))
        shape = "none" if there is None else str(list(there.shape))
        told.append(f"{name} {list(own[name].shape)} (in the file: {shape})")
    return "; ".join(told) + ("; ..." if len(names) > 5 else "")
