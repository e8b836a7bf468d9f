"""The naive way: one backward pass a unit."""

import copy
from collections.abc import Callable, Sequence
from contextlib import closing

import torch
from torch import Tensor, nn

from client.privacy.engine.attach import Engine
from client.privacy.engine.tape import Tape


def projected(outputs: Tensor) -> Tensor:
    """Return the mean over the images of a bent sum of each, so that no gradient is special."""
    # Small numbers: the sine of a large one has few digits in float32.
    places = (torch.arange(outputs[0].numel()) % 7).to(outputs).view(outputs.shape[1:])
    return torch.sin(outputs + places).flatten(1).sum(1).mean()


def recorded(network: nn.Module, inputs: Tensor, units: Sequence[int]) -> Tape:
    """Return the tape of one pass."""
    with closing(Engine(network)) as engine, engine.recording(units) as tape:
        projected(network(inputs)).backward()
    return tape


def one_by_one(
    network: nn.Module, inputs: Tensor, units: Sequence[int], loss: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Return each unit's gradient of the loss over its own images, one vector each."""
    gradients = []
    start = 0
    for count in units:
        network.zero_grad(set_to_none=True)
        loss(network(inputs[start : start + count])).backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
        gradients.append(torch.cat([part.flatten() for part in parts]))
        start += count
    network.zero_grad(set_to_none=True)
    return gradients


def assert_each_units_gradient(
    network: nn.Module, inputs: Tensor, units: Sequence[int], tolerance: float
) -> None:
    """Assert that every unit's gradient is the naive one, within a share of the largest norm.

    Of the largest: where a gradient of one weight happens to be near 0, float32 has no digits left.
    The naive ones are taken in float64: in float32 they are further from the truth than ours.
    """
    tape = recorded(network, inputs, units)
    gradients = [tape.gradients(p).detach().flatten(1) for p in network.parameters()]
    ours = torch.cat(gradients, dim=1)
    exact = copy.deepcopy(network).double()
    wide = inputs.double() if inputs.is_floating_point() else inputs
    naive = one_by_one(exact, wide, units, projected)
    largest = max(float(gradient.norm()) for gradient in naive)
    for unit, (count, expected) in enumerate(zip(units, naive, strict=True)):
        found = ours[unit] * len(inputs) / count
        assert float((found - expected).norm()) <= tolerance * largest
