"""How updates become one: pure functions on states, in float64."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.state import Arrays, State


def refusal_of(update: Arrays, reference: State) -> str | None:
    """Return why an update cannot be combined with the reference model, or None if it can.

    An update must have the reference's names, shapes and dtypes, and only finite numbers.
    """
    missing = sorted(set(reference) - set(update))
    extra = sorted(set(update) - set(reference))
    if missing or extra:
        return f"tensors missing: {_some(missing)}; not in the model: {_some(extra)}"
    for name, tensor in reference.items():
        array = update[name]
        expected = tensor.numpy().dtype
        if array.shape != tuple(tensor.shape):
            return f"{name} has shape {array.shape}, the model has {tuple(tensor.shape)}"
        if array.dtype != expected:
            return f"{name} has dtype {array.dtype}, the model has {expected}"
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            return f"{name} holds {bad} values that are NaN or infinite"
    return None


def weighted_mean(updates: Iterable[tuple[Arrays, float]]) -> dict[str, Tensor] | None:
    """Return sum_k n_k w_k / sum_k n_k (McMahan et al., AISTATS 2017, Algorithm 1).

    One update is in memory at a time; floats are summed and returned in float64. Integer tensors
    (counters) take the largest value, in their own dtype. The caller fixes the order: the same
    updates in the same order give the same bytes. Without any update there is no mean: None.

    Raises:
        ValueError: a weight that is not positive.
    """
    sums: dict[str, Tensor] = {}
    total = 0.0
    for arrays, weight in updates:
        if not weight > 0:
            raise ValueError(f"an update of weight {weight} cannot be averaged; give it above 0")
        total += weight
        for name, array in arrays.items():
            sums[name] = _added(sums.get(name), array, weight)
    if not sums:
        return None
    return {n: t / total if t.is_floating_point() else t for n, t in sums.items()}


def weight_of(patients: int, weight_by: str) -> float:
    """Return a site's weight in the mean: its training patients, or 1."""
    return float(patients) if weight_by == "patients" else 1.0


def _added(so_far: Tensor | None, array: NDArray[np.generic], weight: float) -> Tensor:
    tensor = torch.from_numpy(np.array(array))
    if not tensor.is_floating_point():
        return tensor if so_far is None else torch.maximum(so_far, tensor)
    scaled = tensor.to(torch.float64) * weight
    return scaled if so_far is None else so_far.add_(scaled)


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
