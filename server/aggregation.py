"""How updates become one: pure functions on states, in float64."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.framed_files import BLOCK, blocks_of, layout_of
from common.state import Arrays


def refusal_of(update: Arrays, reference: Arrays) -> str | None:
    """Return why an update cannot be combined with the reference model, or None if it can.

    An update must have the reference's names, shapes and dtypes, and only finite numbers.
    """
    missing = sorted(set(reference) - set(update))
    extra = sorted(set(update) - set(reference))
    if missing or extra:
        return f"tensors missing: {_some(missing)}; not in the model: {_some(extra)}"
    layout = layout_of(update)
    for name, array in reference.items():
        shape, dtype = layout[name]
        if shape != array.shape:
            return f"{name} has shape {shape}, the model has {array.shape}"
        if dtype != array.dtype:
            return f"{name} has dtype {dtype}, the model has {array.dtype}"
        if not all(np.isfinite(block).all() for block in blocks_of(update, name)):
            bad = sum(int((~np.isfinite(block)).sum()) for block in blocks_of(update, name))
            return f"{name} holds {bad} values that are NaN or infinite"
    return None


def weighted_mean(updates: Iterable[tuple[Arrays, float]]) -> dict[str, Tensor] | None:
    """Return sum_k n_k w_k / sum_k n_k (McMahan et al., AISTATS 2017, Algorithm 1).

    Floats are returned in float64, integer tensors (counters) as weighted_sums does. Without any
    update there is no mean: None.

    Raises:
        ValueError: a weight that is not positive.
    """
    sums, total = weighted_sums(updates)
    if not sums:
        return None
    for array in sums.values():
        if array.dtype.kind == "f":
            array /= total
    return {name: torch.from_numpy(array) for name, array in sums.items()}


def weighted_sums(
    updates: Iterable[tuple[Arrays, float]],
) -> tuple[dict[str, NDArray[Any]], float]:
    """Return sum_k n_k w_k by tensor, and sum_k n_k.

    One update is in memory at a time; floats are summed in float64. Integer tensors (counters) take
    the largest value, in their own dtype. The caller fixes the order: the same updates in the same
    order give the same bytes.

    Raises:
        ValueError: a weight that is not positive.
    """
    sums: dict[str, Any] = {}
    total = 0.0
    for arrays, weight in updates:
        if not weight > 0:
            raise ValueError(f"an update of weight {weight} cannot be averaged; give it above 0")
        total += weight
        for name in arrays:
            _add(sums, arrays, name, weight)
    return sums, total


def weight_of(patients: int, weight_by: str) -> float:
    """Return a site's weight in the mean: its training patients, or 1."""
    return float(patients) if weight_by == "patients" else 1.0


def _add(sums: dict[str, Any], arrays: Arrays, name: str, weight: float) -> None:
    """Add an update's array to the sum of its name, a block at a time."""
    new = name not in sums
    if new:
        shape, dtype = layout_of(arrays)[name]
        sums[name] = np.empty(shape, np.float64 if dtype.kind == "f" else dtype)
    flat, at = sums[name].reshape(-1), 0
    # One that stays in the processor's cache.
    scratch = np.empty(min(BLOCK, flat.size))
    for block in blocks_of(arrays, name):
        part = flat[at : at + block.size]
        at += block.size
        more: Any = block
        if block.dtype.kind == "f":
            more = np.multiply(block, weight, out=scratch[: block.size], dtype=np.float64)
        if new:
            part[:] = more
        elif block.dtype.kind == "f":
            part += more
        else:
            np.maximum(part, more, out=part)


def _some(names: list[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + rest


def named_means(values: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return each metric's mean over the sites where it is defined; each site counts the same."""
    names = sorted({name for of_site in values.values() for name in of_site})
    means: dict[str, float | None] = {}
    for name in names:
        defined = [v for site in values.values() if (v := site.get(name)) is not None]
        means[name] = float(np.mean(defined)) if defined else None
    return means
