"""Convolutions of 1, 2 and 3 dimensions, transposed ones too: each unit's weight gradient.

The backward pass makes the input's gradient and the units' weight gradients; the batch's weight
gradient, which clipping would throw away, is never made. Legend of shapes: as in tape.py, and
I and O channels in and out, K places of the kernel, T places of the output (of the input, where
transposed).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from client.privacy.engine.tape import Ghost, Tape

Convolution = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)
GHOST_PLACES = 32
"""Up to so many places of the output, or an eighth of its channels, the ghost norm is cheapest."""
GROUPED_FLOATS = 2_000_000
"""Up to so many weight gradients in all, one grouped call beats one call a unit ..."""
GROUPED_PLACES_2D = 4096
"""... but in one and two dimensions only below so many places."""
ROUNDING = 2e-5
"""Of the sizes of a ghost norm's terms, what rounding is allowed for."""
_backward = torch.ops.aten.convolution_backward


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """All of a convolution but its weights."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What follows the bias in aten.convolution."""
        return (
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
        )


class Pass(NamedTuple):
    """What a layer's backward pass has at hand."""

    output_RO: Tensor
    """Gradient of the layer's output."""
    image_RI: Tensor
    """The layer's input."""
    weight: Tensor
    """In the type of the pass."""
    geometry: Geometry


def convolve(layer: Convolution, tape: Tape, image_RI: Tensor, output_size: Any = None) -> Tensor:
    """Return the layer's output; its backward pass writes the units' gradients on the tape."""
    settings: Any = layer  # its attributes are typed as parameters, strings or tuples
    axes = len(settings.stride)
    padding, output_padding = settings.padding, (0,) * axes
    if settings.transposed:
        output_padding = settings._output_padding(
            image_RI,
            output_size,
            settings.stride,
            settings.padding,
            settings.kernel_size,
            axes,
            settings.dilation,
        )
    elif settings.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if settings.padding_mode == "zeros" else settings.padding_mode
        image_RI = F.pad(image_RI, settings._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * axes
    geometry = Geometry(
        stride=settings.stride,
        padding=tuple(padding),
        dilation=settings.dilation,
        transposed=settings.transposed,
        output_padding=tuple(output_padding),
        groups=settings.groups,
    )
    tape.use(settings.weight, settings.bias)
    output: Tensor = _Convolve.apply(  # type: ignore[no-untyped-call]
        autocast(image_RI), settings.weight, settings.bias, geometry, tape
    )
    return output


def autocast(values: Tensor) -> Tensor:
    """Return the values in the type that mixed precision computes in here, if it is on."""
    kind = values.device.type
    return values.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else values


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_RI: Tensor,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        geometry: Geometry,
        tape: Tape,
    ) -> Tensor:
        ctx.save_for_backward(image_RI, weight)
        ctx.parameters, ctx.geometry, ctx.tape = (weight, bias), geometry, tape
        with torch.autocast(image_RI.device.type, enabled=False):
            cast = None if bias is None else bias.to(image_RI.dtype)
            output: Tensor = torch.ops.aten.convolution(
                image_RI, weight.to(image_RI.dtype), cast, *geometry.arguments
            )
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_RO: Tensor) -> tuple[Tensor | None, ...]:
        # Detached: the tape may keep them, and what they come from keeps the tape.
        image_RI, weight = (tensor.detach() for tensor in ctx.saved_tensors)
        parameter, bias = ctx.parameters
        geometry, tape = ctx.geometry, ctx.tape
        weight = weight.to(output_RO.dtype)
        image_gradient = None
        if ctx.needs_input_grad[0]:
            image_gradient = gradients(output_RO, image_RI, weight, geometry, 0)
        if parameter.requires_grad:
            way = WAYS[method_for(tape, parameter, output_RO, image_RI, geometry)]
            way(tape, parameter, Pass(output_RO, image_RI, weight, geometry))
        if bias is not None and bias.requires_grad:
            tape.store(bias, tape.sum_rows(output_RO.flatten(2).sum(2)))
        return image_gradient, None, None, None, None


def gradients(
    output_RO: Tensor, image_RI: Tensor, weight: Tensor, geometry: Geometry, which: int
) -> Tensor:
    """Return the gradient of the images (which=0) or of the weight (which=1), and nothing else."""
    mask = [which == 0, which == 1, False]
    found = _backward(output_RO, image_RI, weight, None, *geometry.arguments, mask)
    gradient: Tensor = found[which]
    return gradient


def method_for(
    tape: Tape, parameter: nn.Parameter, output_RO: Tensor, image_RI: Tensor, geometry: Geometry
) -> str:
    """Return ghost, grouped, or call: the cheapest way to this layer's weight gradients.

    A rule by shape alone, so that a run can be repeated; the thresholds are the crossings that
    simulation/benchmark/convolution.py prints.
    """
    places = (image_RI if geometry.transposed else output_RO)[0, 0].numel()
    dilated = any(step > 1 for step in geometry.dilation)
    each_row = len(output_RO) == len(tape.images_of_unit)
    windows = not (geometry.transposed or geometry.groups > 1 or dilated)
    few_places = places <= max(GHOST_PLACES, output_RO.shape[1] // 8)
    if each_row and tape.once(parameter) and windows and few_places:
        return "ghost"
    small = len(output_RO) * parameter.numel() <= GROUPED_FLOATS
    if each_row and small and (len(geometry.stride) == 3 or places < GROUPED_PLACES_2D):
        return "grouped"
    return "call"


def _call(tape: Tape, parameter: nn.Parameter, made: Pass) -> None:
    """One call for the rows of each unit."""
    output_RO, image_RI, weight, geometry = made
    each = [
        gradients(output_RO[a:b], image_RI[a:b], weight, geometry, 1)
        for a, b in tape.spans(len(output_RO))
    ]
    tape.store(parameter, each)


def _grouped(tape: Tape, parameter: nn.Parameter, made: Pass) -> None:
    """One call, in which each row has groups of its own."""
    output_RO, image_RI, weight, geometry = made
    rows = len(output_RO)
    as_channels = [t.reshape(1, -1, *t.shape[2:]) for t in (output_RO, image_RI)]
    repeated = weight.repeat(rows, *[1] * (weight.ndim - 1))
    arguments = (*geometry.arguments[:-1], rows * geometry.groups)
    found: Tensor = _backward(*as_channels, repeated, None, *arguments, [False, True, False])[1]
    tape.store(parameter, found.view(rows, *weight.shape))


def _ghost(tape: Tape, parameter: nn.Parameter, made: Pass) -> None:
    """Norms from Gram matrices, and later one gradient of the batch, each row with its factor."""
    output_RO, image_RI, weight, geometry = made
    square_norm_U = _ghost_norms(made)
    exact = parameter.dtype

    def weighted_sum(factor_U: Tensor) -> Tensor:
        factor_R = tape.factors_of_rows(factor_U, len(output_RO)).to(exact)
        counted = factor_R > 0
        factors = factor_R[counted].view(-1, *[1] * (output_RO.ndim - 1))
        scaled, images = output_RO[counted].to(exact) * factors, image_RI[counted].to(exact)
        if not len(scaled):
            return torch.zeros_like(parameter)
        return gradients(scaled, images, weight.to(exact), geometry, 1)

    tape.store_ghost(parameter, Ghost(square_norm_U, weighted_sum))


def _ghost_norms(made: Pass) -> Tensor:
    """Return |sum over places of output x input window|^2 of each row, from two Gram matrices.

    <A A^T, G G^T> over the T places (Bu, Mao and Xu, NeurIPS 2022, Eq. 2.6), in float64, and what
    rounding can leave of the terms that cancel is added: see `safe_square_norms`.
    """
    output_RO, image_RI, weight, geometry = made
    windows = F.pad(image_RI, [p for p in reversed(geometry.padding) for _ in (0, 1)])
    axes = len(geometry.stride)
    for axis, step in enumerate(geometry.stride):
        windows = windows.unfold(2 + axis, weight.shape[2 + axis], step)
    order = [0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes)]
    places = output_RO[0, 0].numel()
    windows_RTK = windows.permute(order).reshape(len(image_RI), places, -1).double()
    output_ROT = output_RO.flatten(2).double()
    safe_R = safe_square_norms(windows_RTK, output_ROT.transpose(1, 2))
    # Never in bfloat16, which rounds a norm by up to 0.4 %.
    return safe_R.to(torch.promote_types(weight.dtype, torch.float32))


def safe_square_norms(values_RTI: Tensor, outputs_RTO: Tensor) -> Tensor:
    """Return the squared norm of the sum over T of output x value of each row, a little too large.

    The sum itself is later made in float32, where terms that cancel leave up to about 1e-7 of
    their size behind. ROUNDING of the sizes is added to the norm, so that what is left behind is
    clipped too, even where somebody chose the weights to make it large.
    """
    gram_RTT = values_RTI @ values_RTI.transpose(1, 2)
    squares_R = (gram_RTT * (outputs_RTO @ outputs_RTO.transpose(1, 2))).sum((1, 2)).clamp(min=0)
    sizes_R = (values_RTI.norm(dim=2) * outputs_RTO.norm(dim=2)).sum(1)
    safe_R: Tensor = (squares_R.sqrt() + ROUNDING * sizes_R).square()
    return safe_R


WAYS: dict[str, Callable[[Tape, nn.Parameter, Pass], None]] = {
    "call": _call,
    "grouped": _grouped,
    "ghost": _ghost,
}
"""How a layer's weight gradients are found; all agree."""
