"""Tensors on disk, as safetensors; imports torch, which common/files.py does not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from common.files import write_pieces
from common.framing import pieces_of
from common.state import arrays_of


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: object = None) -> None:
    """Write tensors and a JSON value about them as one safetensors file."""
    # By name, so that equal tensors make equal files.
    arrays = arrays_of(dict(sorted(tensors.items())))
    _, pieces = pieces_of(arrays, {"about": json.dumps(about)})
    write_pieces(path, pieces)


def named_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with the prefix, named without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the value that write_tensors wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get("about", "null"))
