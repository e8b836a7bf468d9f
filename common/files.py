"""Files that are whole or absent, whenever the power fails."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor


def write_atomic(path: Path, content: bytes) -> None:
    """Write to a temporary name, fsync, rename, fsync the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, whole or not at all; NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON has no type before it is checked
    """Return the value that write_json wrote."""
    return json.loads(path.read_text())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: object = None) -> None:
    """Write tensors and a JSON value about them as one safetensors file."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(contiguous, metadata={"about": json.dumps(about)}))


def named_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with the prefix, named without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the value that write_tensors wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get("about", "null"))
