"""Before a private training: proof that the gradients are right, and what memory they will take.

Legend of shapes: B images, C channels, ... the spatial axes.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from client.privacy.engine.attach import Engine

UNITS = (1, 2)
"""Images of the made-up units."""
TOLERANCE = 1e-5
"""Largest difference of a unit's gradient from the naive one, over the naive one's norm. Rounding
alone makes about 1e-14; a gradient that lands at another patient makes about 1."""
SHARE_OF_MEMORY = 0.5
"""Of the machine's memory; the rest is for data, and for what autograd does not keep."""


class WrongGradientError(ValueError):
    """A network mixes the images of a batch in a way that the engine does not follow."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What one image more in a pass takes, in bytes."""

    plain_bytes: int
    """What ordinary training keeps from the forward to the backward pass."""
    private_bytes: int
    """What private training keeps: the same, and the image's own gradients."""

    def images(self, wanted: int, memory_bytes: int) -> int:
        """Return how many images fit into one pass, at most `wanted`; 0 if not even one does."""
        return min(wanted, int(SHARE_OF_MEMORY * memory_bytes) // max(self.private_bytes, 1))


def prove(model: nn.Module, shape: Sequence[int], device: torch.device) -> None:
    """Compare the engine with one backward pass a unit, on three images of two units.

    shape: [C, ...] of an image. A copy in float64 is compared, without drop-out: in float32 a
    rectifier's input next to zero may fall on either side, which says nothing about the engine.

    Raises:
        WrongGradientError: the gradients differ.
    """
    model = _without_chance(copy.deepcopy(model).double())
    images_BC, loss_of = _made_up(model, shape, device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with closing(Engine(model)) as engine:
        with engine.recording(UNITS) as tape:
            loss_of(images_BC, 0).backward()  # type: ignore[no-untyped-call]
        for unit, (start, end) in enumerate(tape.spans(len(images_BC))):
            model.zero_grad(set_to_none=True)
            loss_of(images_BC[start:end], start).backward()  # type: ignore[no-untyped-call]
            naive = torch.cat([_gradient_of(p) for p in parameters])
            ours = torch.cat([tape.gradients(p)[unit].flatten() for p in parameters])
            away = float((ours - naive).norm() / naive.norm())
            if not away <= TOLERANCE:
                raise WrongGradientError(
                    f"the gradient of one patient differs by {away:.1e} of its norm from that of a "
                    f"backward pass of its own (most: {TOLERANCE:g}): this network mixes a batch's "
                    "images; train it with privacy=none, or choose another model"
                )


def memory_of(model: nn.Module, shape: Sequence[int], device: torch.device) -> Memory:
    """Return what one image more takes, from passes of one and of two images."""
    plain, private = (
        one_pass(model, shape, device, 2, way) - one_pass(model, shape, device, 1, way)
        for way in (False, True)
    )
    return Memory(plain_bytes=plain, private_bytes=private)


def one_pass(
    model: nn.Module, shape: Sequence[int], device: torch.device, count: int, private: bool
) -> int:
    """Return the bytes that a forward and backward pass of so many made-up images keeps."""
    model = _without_chance(copy.deepcopy(model))
    images_BC, loss_of = _made_up(model, shape, device)
    total, seen = 0, {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
        return tensor

    recorded = Engine(model).recording([1] * count) if private else nullcontext()
    with recorded as tape:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = loss_of(images_BC[:count], 0)
        loss.backward()  # type: ignore[no-untyped-call]
    return total + (tape.stored_bytes if tape is not None else 0)


def memory_bytes(device: torch.device) -> int:
    """Return the memory of the device, or of the machine for the CPU.

    All of it, not what is free now: the same request must be cut into the same passes again.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return int(psutil.virtual_memory().total)


def _without_chance(model: nn.Module) -> nn.Module:
    """Return the network as it trains, less drop-out: with deep supervision, or by segments."""
    model.eval()
    for module in model.modules():
        if getattr(module, "deep_supervision", False) or getattr(module, "by_segments", False):
            module.training = True
    return model


def _made_up(
    model: nn.Module, shape: Sequence[int], device: torch.device
) -> tuple[Tensor, Callable[[Tensor, int], Tensor]]:
    """Return three random images, and the sum over some of them, from a given one on."""
    draws = torch.Generator().manual_seed(0)
    dtype = next(model.parameters()).dtype
    images_BC = torch.randn(sum(UNITS), *shape, generator=draws).to(device, dtype)
    with torch.no_grad():
        outputs = model(images_BC)
    weights = torch.randn(outputs.shape, generator=draws).to(device, dtype)
    return images_BC, lambda some, start: (model(some) * weights[start : start + len(some)]).sum()


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    return torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
