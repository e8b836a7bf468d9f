"""Instance, group and layer normalisation, and PReLU: each unit's scale and shift gradients.

Legend of shapes: as in tape.py, and C channels, G groups, S places of the image.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from client.privacy.engine.tape import Tape

_aten = torch.ops.aten


def instance_normalise(layer: nn.InstanceNorm2d, tape: Tape, image_RC: Tensor) -> Tensor:
    """Return the layer's output (Ulyanov et al., 2016), as group normalisation with G = C."""
    return _group_normalised(layer, tape, image_RC, image_RC.shape[1])


def group_normalise(layer: nn.GroupNorm, tape: Tape, image_RC: Tensor) -> Tensor:
    """Return the layer's output (Wu and He, ECCV 2018)."""
    return _group_normalised(layer, tape, image_RC, layer.num_groups)


def _group_normalised(layer: Any, tape: Tape, image_RC: Tensor, groups: int) -> Tensor:
    tape.use(layer.weight, layer.bias)
    output: Tensor = _GroupNormalise.apply(  # type: ignore[no-untyped-call]
        image_RC.to(layer.weight.dtype), layer.weight, layer.bias, groups, layer.eps, tape
    )
    return output


class _GroupNormalise(torch.autograd.Function):
    # All rows are taken for the channels of one image. The gradients of their scales are then the
    # rows' own, from the call that makes the input's gradient anyway.
    @staticmethod
    def forward(
        ctx: Any,
        image_RC: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        tape: Tape,
    ) -> Tensor:
        rows, channels = image_RC.shape[:2]
        sizes = (1, rows * channels, image_RC[0, 0].numel(), rows * groups)
        image_RC = image_RC.contiguous()
        output, mean, inverse = _aten.native_group_norm(
            image_RC.view(1, rows * channels, -1),
            weight.repeat(rows),
            bias.repeat(rows),
            *sizes,
            eps,
        )
        ctx.save_for_backward(image_RC, weight, mean, inverse)
        ctx.parameters, ctx.sizes, ctx.tape = (weight, bias), sizes, tape
        # No view: a network may add to it in place, which autograd forbids for views made here.
        normalised_RC: Tensor = _aten._unsafe_view(output, image_RC.shape)
        return normalised_RC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_RC: Tensor) -> tuple[Tensor | None, ...]:
        image_RC, weight, mean, inverse = ctx.saved_tensors
        rows, channels = image_RC.shape[:2]
        flat = (1, rows * channels, -1)
        image, scales, shifts = _aten.native_group_norm_backward(
            output_RC.contiguous().view(flat),
            image_RC.view(flat),
            mean,
            inverse,
            weight.repeat(rows),
            *ctx.sizes,
            [ctx.needs_input_grad[0], True, True],
        )
        for parameter, gradients in zip(ctx.parameters, (scales, shifts), strict=True):
            ctx.tape.store(parameter, ctx.tape.sum_rows(gradients.view(rows, channels)))
        image = image.view_as(image_RC) if ctx.needs_input_grad[0] else None
        return image, None, None, None, None, None


def layer_normalise(layer: nn.LayerNorm, tape: Tape, values_R: Tensor) -> Tensor:
    """Return the layer's output (Ba, Kiros and Hinton, 2016)."""
    tape.use(layer.weight, layer.bias)
    normalised_R = F.layer_norm(
        values_R.to(layer.weight.dtype), layer.normalized_shape, eps=layer.eps
    )
    output: Tensor = _ScaleAndShift.apply(normalised_R, layer.weight, layer.bias, tape)  # type: ignore[no-untyped-call]
    return output


class _ScaleAndShift(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values_R: Tensor, weight: Tensor, bias: Tensor | None, tape: Tape
    ) -> Tensor:
        ctx.save_for_backward(values_R, weight)
        ctx.parameters, ctx.tape = (weight, bias), tape
        scaled_R = values_R * weight
        return scaled_R if bias is None else scaled_R + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_R: Tensor) -> tuple[Tensor | None, ...]:
        values_R, weight = ctx.saved_tensors
        inner = tuple(range(1, values_R.ndim - weight.ndim))
        parameter, bias = ctx.parameters
        scales_R = output_R * values_R
        ctx.tape.store(parameter, ctx.tape.sum_rows(scales_R.sum(inner) if inner else scales_R))
        if bias is not None:
            ctx.tape.store(bias, ctx.tape.sum_rows(output_R.sum(inner) if inner else output_R))
        return output_R * weight, None, None, None


def prelu(layer: nn.PReLU, tape: Tape, values_RC: Tensor) -> Tensor:
    """Return the layer's output (He et al., ICCV 2015)."""
    tape.use(layer.weight)
    output: Tensor = _PReLU.apply(values_RC, layer.weight, tape)  # type: ignore[no-untyped-call]
    return output


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_RC: Tensor, weight: Tensor, tape: Tape) -> Tensor:
        shaped = weight.to(values_RC.dtype).view(-1, *[1] * max(values_RC.ndim - 2, 0))
        ctx.save_for_backward(values_RC, shaped)
        ctx.parameter, ctx.tape = weight, tape
        output: Tensor = _aten._prelu_kernel(values_RC, shaped)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_RC: Tensor) -> tuple[Tensor | None, ...]:
        values_RC, shaped = ctx.saved_tensors
        values, slopes = _aten._prelu_kernel_backward(output_RC, values_RC, shaped)
        slopes_RC = slopes.flatten(2).sum(2) if slopes.ndim > 2 else slopes
        if ctx.parameter.numel() == 1:
            slopes_RC = slopes_RC.sum(1, keepdim=True)
        ctx.tape.store(ctx.parameter, ctx.tape.sum_rows(slopes_RC))
        return values, None, None
