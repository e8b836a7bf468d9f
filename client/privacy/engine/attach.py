"""The engine: takes over the layers of a network, so that backward leaves each unit's gradient.

A layer that has no rule here goes by Opacus's own sampler (functorch), and a log line says so.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from client.privacy.engine.convolution import convolve
from client.privacy.engine.dense import attend, embed, linear, spread
from client.privacy.engine.derived import with_made_weights
from client.privacy.engine.normalisation import (
    group_normalise,
    instance_normalise,
    layer_normalise,
    prelu,
)
from client.privacy.engine.tape import Tape

Rule = Callable[..., Any]
"""(layer, tape, *inputs) -> the layer's output."""

RULES: dict[type[nn.Module], Rule] = {
    nn.Conv1d: convolve,
    nn.Conv2d: convolve,
    nn.Conv3d: convolve,
    nn.ConvTranspose1d: convolve,
    nn.ConvTranspose2d: convolve,
    nn.ConvTranspose3d: convolve,
    nn.Linear: linear,
    nn.Embedding: embed,
    nn.GroupNorm: group_normalise,
    nn.InstanceNorm1d: instance_normalise,
    nn.InstanceNorm2d: instance_normalise,
    nn.InstanceNorm3d: instance_normalise,
    nn.LayerNorm: layer_normalise,
    nn.PReLU: prelu,
    nn.MultiheadAttention: attend,
}
_log = logging.getLogger(__name__)


class UnknownLayerError(ValueError):
    """A layer whose gradients of a unit nobody here can compute."""


class Engine:
    """Per-unit gradients of a network; while no tape runs, the network is as it was."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._tape: Tape | None = None
        self._taken: list[nn.Module] = []
        self._take(model, "")

    @contextmanager
    def recording(self, images_of_unit: Sequence[int]) -> Iterator[Tape]:
        """Record one forward and backward pass of a batch whose units have so many images."""
        self._tape = Tape(images_of_unit)
        try:
            yield self._tape
        finally:
            self._tape = None

    def close(self) -> None:
        """Give the layers back."""
        for module in self._taken:
            del module.__dict__["forward"]
            module.__dict__.pop("ft_compute_sample_grad", None)
        self._taken.clear()

    def _take(self, module: nn.Module, name: str) -> None:
        if any(module is taken for taken in self._taken):
            # A network may hold one module under two names.
            return
        if not any(p.requires_grad for p in module.parameters()):
            return
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        rule = _rule_of(module)
        if rule is not None and any(p.requires_grad for p in module.parameters()):
            if is_parametrized(module):
                self._put(module, with_made_weights(rule, module))
            else:
                self._put(module, lambda tape, *args, **more: rule(module, tape, *args, **more))
            return
        if is_parametrized(module):
            raise _unknown(module, "its weights are made from other parameters")
        if own and not all(p.ndim > 1 and len(p) == 1 for p in own):
            _log.warning(
                "no rule for the gradients of %s (%s): Opacus computes them, slower",
                name or "the network",
                type(module).__name__,
            )
            _check_opacus_can(module)
            prepare_layer(module)
            original = module.forward
            self._put(module, lambda tape, *args: _by_opacus(module, original, tape, *args))
            return
        if own:
            original = module.forward
            self._put(
                module,
                lambda tape, *args, **more: _with_bare(module, original, tape, *args, **more),
            )
        for child_name, child in module.named_children():
            self._take(child, f"{name}.{child_name}".lstrip("."))

    def _put(self, module: nn.Module, recorded: Callable[..., Any]) -> None:
        original = module.forward

        def forward(*arguments: Any, **more: Any) -> Any:
            if self._tape is None:
                return original(*arguments, **more)
            return recorded(self._tape, *arguments, **more)

        module.__dict__["forward"] = forward
        self._taken.append(module)


def _rule_of(module: nn.Module) -> Rule | None:
    rule = RULES.get(type_before_parametrizations(module))
    if isinstance(module, nn.MultiheadAttention):
        plain = module.batch_first and module.in_proj_weight is not None
        plain = plain and module.bias_k is None and not module.add_zero_attn
        return rule if plain else None
    if isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
        return None if module.track_running_stats else rule
    if isinstance(module, nn.Embedding):
        return rule if module.max_norm is None and not module.scale_grad_by_freq else None
    if isinstance(module, nn.LayerNorm):
        return rule if module.elementwise_affine else None
    return rule


def _with_bare(
    module: nn.Module, original: Callable[..., Any], tape: Tape, *arguments: Any, **more: Any
) -> Any:
    """Run a module that owns parameters [1, ...], position embeddings or a class token, say.

    For the time of the call each is one a row, [R, ...], which broadcasts in the same way.
    """
    rows = len(next(a for a in (*arguments, *more.values()) if isinstance(a, Tensor)))
    bare = [(n, p) for n, p in module.named_parameters(recurse=False) if p.requires_grad]
    for name, parameter in bare:
        module.__dict__[name] = spread(parameter, tape, rows).flatten(0, 1)
    try:
        return original(*arguments, **more)
    finally:
        for name, _ in bare:
            del module.__dict__[name]


def _check_opacus_can(module: nn.Module) -> None:
    if any(True for _ in module.buffers()):
        raise _unknown(module, "it keeps buffers")
    if isinstance(module, nn.EmbeddingBag):
        raise _unknown(module, "it sums over bags")


def _unknown(module: nn.Module, reason: str) -> UnknownLayerError:
    return UnknownLayerError(
        f"{type(module).__name__} has no rule for the gradient of one patient, and Opacus cannot "
        f"compute it ({reason}); train this network with privacy=none, or choose another model"
    )


def _by_opacus(module: nn.Module, original: Callable[..., Any], tape: Tape, *arguments: Any) -> Any:
    inputs = [a.detach() if isinstance(a, Tensor) else a for a in arguments]
    output = original(*arguments)
    if not isinstance(output, Tensor) or len(arguments) != 1:
        raise _unknown(module, "it has not one input and one output")
    tape.use(*module.parameters())

    def record(gradient: Tensor) -> None:
        with torch.enable_grad():
            found = ft_compute_per_sample_gradient(module, inputs, gradient)
        for parameter, gradients_R in found.items():
            if parameter.requires_grad:
                tape.store(parameter, tape.sum_rows(gradients_R.detach()))

    if output.requires_grad:
        output.register_hook(record)  # type: ignore[no-untyped-call]
    return output
