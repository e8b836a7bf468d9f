"""Layers whose weights are made from other parameters (torch.nn.utils.parametrize).

A layer's rule finds each unit's gradient for the weight that it sees; the chain rule, once a unit,
carries it on to what the weight was made from.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from client.privacy.engine.tape import Pull, Tape


def with_made_weights(rule: Callable[..., Any], module: nn.Module) -> Callable[..., Any]:
    """Return the rule, for a module some of whose weights are made anew at each call."""
    lists: Any = module.parametrizations

    def recorded(tape: Tape, *arguments: Any, **more: Any) -> Any:
        seen = _Seen(module)
        for name, makers in lists.items():
            made, pull = _made(makers)
            tape.derive(made, pull)
            tape.use(*makers.parameters())
            seen.weights[name] = made
        return rule(seen, tape, *arguments, **more)

    return recorded


class _Seen:
    """A layer as a rule sees it, with weights of its own for one call."""

    def __init__(self, module: nn.Module) -> None:
        self.weights: dict[str, nn.Parameter] = {}
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return self.weights[name] if name in self.weights else getattr(self._module, name)


def _made(makers: nn.Module) -> tuple[nn.Parameter, Pull]:
    """Return a weight as made now, and the way of its units' gradients back to its sources."""
    sources = [p for p in makers.parameters() if p.requires_grad]
    with torch.enable_grad():
        made: Tensor = makers()

    def pull(gradients_U: Tensor) -> dict[nn.Parameter, Tensor]:
        found_U = torch.autograd.grad(made, sources, gradients_U, is_grads_batched=True)
        return dict(zip(sources, found_U, strict=True))

    return nn.Parameter(made.detach(), requires_grad=bool(sources)), pull
