"""SCAFFOLD's control variates, which travel beside the weights under names of their own.

Karimireddy et al., ICML 2020, Algorithm 1, option II. A site's variate c_i estimates its own
gradient, their mean c everybody's; each local step is corrected by c - c_i, so that sites of other
data do not drift apart. The server's mean of the c_i is c: it is combined as the weights are.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

PREFIX = "control/"
Value = TypeVar("Value")


def with_zero_controls(state: Mapping[str, Tensor], trained: frozenset[str]) -> dict[str, Tensor]:
    """Return the state with c = 0 beside each trained parameter."""
    zeros = {PREFIX + name: torch.zeros_like(state[name]) for name in state if name in trained}
    return {**state, **zeros}


def parted(tensors: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return weights and control variates, the latter by the names of their parameters."""
    weights = {name: value for name, value in tensors.items() if not name.startswith(PREFIX)}
    controls = {n.removeprefix(PREFIX): v for n, v in tensors.items() if n.startswith(PREFIX)}
    return weights, controls


def correction_of(
    model: nn.Module, everybodys: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> list[Tensor]:
    """Return c - c_i in the order of the trainable model.parameters(); 0 where none travels."""
    return [
        (everybodys[name] - own[name]).to(parameter) if name in everybodys else 0 * parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


def add_correction(model: nn.Module, correction: Sequence[Tensor]) -> None:
    """Add c - c_i to every p.grad (Eq. 3).

    Called after a private gradient is clipped, noised and scaled: it depends on the data by way of
    earlier private updates alone, so it costs no privacy.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter, change in zip(parameters, correction, strict=True):
        parameter.grad = change.clone() if parameter.grad is None else parameter.grad + change


def next_own(
    everybodys: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    steps: int,
    lr: float,
) -> dict[str, Tensor]:
    """Return c_i+ = c_i - c + (x - y) / (K lr) (Eq. 4, option II) after K steps from x to y."""
    return {
        name: own[name] - c + (before[name] - after[name]) / (steps * lr)
        for name, c in everybodys.items()
    }
