"""A model's state as a value: named tensors, and the arrays that stand for them on the wire."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

State = Mapping[str, Tensor]
"""Tensors by their state_dict name."""
Arrays = Mapping[str, NDArray[np.generic]]
"""The same as NumPy arrays."""


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's parameters and buffers, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def arrays_of(state: State) -> dict[str, NDArray[np.generic]]:
    """Return the tensors as arrays that share their memory."""
    return {name: tensor.numpy() for name, tensor in state.items()}


def numpy_dtype_of(tensor: Tensor) -> np.dtype[np.generic]:
    """Return the dtype of the array that a tensor of any device would be."""
    dtype: np.dtype[np.generic] = torch.empty(0, dtype=tensor.dtype).numpy().dtype
    return dtype


def tensors_of(arrays: Arrays) -> dict[str, Tensor]:
    """Return the arrays as tensors of their own memory (what arrives may be read-only)."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def digest_of(arrays: Arrays) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, whatever the order of the names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}\x1f{array.dtype.str}\x1f{array.shape}\x1f".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()
