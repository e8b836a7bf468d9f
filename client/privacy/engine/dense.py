"""Linear layers, embeddings, attention and bare parameters: each unit's gradients.

Legend of shapes: as in tape.py, and T tokens of a row, I and O features in and out, E features of a
token, H heads.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from client.privacy.engine.convolution import autocast, safe_square_norms
from client.privacy.engine.tape import Ghost, Tape


def linear(layer: nn.Linear, tape: Tape, values_RI: Tensor) -> Tensor:
    """Return the layer's output, [R, ..., I] -> [R, ..., O]."""
    tape.use(layer.weight, layer.bias)
    output: Tensor = _Linear.apply(autocast(values_RI), layer.weight, layer.bias, tape)  # type: ignore[no-untyped-call]
    return output


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values_RI: Tensor, weight: Tensor, bias: Tensor | None, tape: Tape
    ) -> Tensor:
        ctx.save_for_backward(values_RI, weight)
        ctx.parameters, ctx.tape = (weight, bias), tape
        with torch.autocast(values_RI.device.type, enabled=False):
            cast = None if bias is None else bias.to(values_RI.dtype)
            return F.linear(values_RI, weight.to(values_RI.dtype), cast)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_RO: Tensor) -> tuple[Tensor | None, ...]:
        # Detached: the tape may keep them, and what they come from keeps the tape.
        values_RI, weight = (tensor.detach() for tensor in ctx.saved_tensors)
        parameter, bias = ctx.parameters
        rows = len(values_RI)
        values_RTI = values_RI.reshape(rows, -1, values_RI.shape[-1])
        output_RTO = output_RO.reshape(rows, -1, output_RO.shape[-1])
        if parameter.requires_grad:
            _linear_weight(ctx.tape, parameter, values_RTI, output_RTO)
        if bias is not None and bias.requires_grad:
            ctx.tape.store(bias, ctx.tape.sum_rows(output_RTO.sum(1)))
        values = output_RO @ weight.to(output_RO.dtype) if ctx.needs_input_grad[0] else None
        return values, None, None, None


def _linear_weight(
    tape: Tape, parameter: nn.Parameter, values_RTI: Tensor, output_RTO: Tensor
) -> None:
    rows, tokens = values_RTI.shape[:2]
    each_row = rows == len(tape.images_of_unit)
    # Two Gram matrices of T x T against one gradient of O x I (Li et al., ICLR 2022, Sec. 4).
    if each_row and tape.once(parameter) and 2 * tokens**2 <= parameter.numel():
        exact = parameter.dtype
        square = safe_square_norms(values_RTI.double(), output_RTO.double()).to(exact)

        def weighted_sum(factor_U: Tensor) -> Tensor:
            counted = factor_U > 0
            factors = factor_U[counted].to(exact).view(-1, 1, 1)
            scaled, values = output_RTO[counted].to(exact) * factors, values_RTI[counted].to(exact)
            return scaled.flatten(0, 1).T @ values.flatten(0, 1)

        tape.store_ghost(parameter, Ghost(square, weighted_sum))
        return
    tape.store(
        parameter,
        [
            output_RTO[a:b].flatten(0, 1).T @ values_RTI[a:b].flatten(0, 1)
            for a, b in tape.spans(rows)
        ],
    )


def embed(layer: nn.Embedding, tape: Tape, places_R: Tensor) -> Tensor:
    """Return the rows of the table that places_R names, [R, ...] -> [R, ..., E]."""
    tape.use(layer.weight)
    output: Tensor = _Embed.apply(layer.weight, places_R, layer.padding_idx, tape)  # type: ignore[no-untyped-call]
    return output


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, places_R: Tensor, padding: int | None, tape: Tape
    ) -> Tensor:
        ctx.save_for_backward(places_R)
        ctx.parameter, ctx.padding, ctx.tape = weight, padding, tape
        return F.embedding(places_R, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_R: Tensor) -> tuple[None, ...]:
        (places_R,) = ctx.saved_tensors
        spans = ctx.tape.spans(len(places_R))
        gradients_U = output_R.new_zeros((len(spans), *ctx.parameter.shape))
        for gradients, (a, b) in zip(gradients_U, spans, strict=True):
            values = output_R[a:b].reshape(-1, output_R.shape[-1])
            gradients.index_add_(0, places_R[a:b].flatten(), values)
        if ctx.padding is not None:
            gradients_U[:, ctx.padding] = 0
        ctx.tape.store(ctx.parameter, gradients_U)
        return None, None, None, None


def spread(parameter: nn.Parameter, tape: Tape, rows: int) -> Tensor:
    """Return the parameter once a row, [R, *parameter.shape]; each row's gradient is its own."""
    tape.use(parameter)
    output: Tensor = _Spread.apply(parameter, rows, tape)  # type: ignore[no-untyped-call]
    return output


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, rows: int, tape: Tape) -> Tensor:
        ctx.parameter, ctx.tape = parameter, tape
        return parameter.detach().expand(rows, *parameter.shape).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_R: Tensor) -> tuple[None, None, None]:
        ctx.tape.store(ctx.parameter, ctx.tape.sum_rows(output_R))
        return None, None, None


def attend(
    layer: nn.MultiheadAttention,
    tape: Tape,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the layer's output (Vaswani et al., NeurIPS 2017, Sec. 3.2.2); batch_first only.

    The projections of query, key and value are one bare parameter, spread over the rows.
    """
    rows, features, heads = len(query), layer.embed_dim, layer.num_heads
    weight_RPE = spread(layer.in_proj_weight, tape, rows)
    projected = [
        x @ w.transpose(1, 2)
        for x, w in zip((query, key, value), weight_RPE.chunk(3, dim=1), strict=True)
    ]
    if layer.in_proj_bias is not None:
        shift_RP = spread(layer.in_proj_bias, tape, rows)
        shifts = shift_RP.unsqueeze(1).chunk(3, dim=2)
        projected = [x + b for x, b in zip(projected, shifts, strict=True)]
    q, k, v = (x.view(rows, -1, heads, features // heads).transpose(1, 2) for x in projected)
    scores_RHTT = q @ k.transpose(2, 3) / math.sqrt(features // heads)
    if attn_mask is not None:
        if attn_mask.ndim == 3:
            attn_mask = attn_mask.view(rows, heads, *attn_mask.shape[1:])
        scores_RHTT = _masked(scores_RHTT, attn_mask)
    if key_padding_mask is not None:
        scores_RHTT = _masked(scores_RHTT, key_padding_mask[:, None, None, :])
    weights_RHTT = scores_RHTT.softmax(-1)
    mixed = F.dropout(weights_RHTT, layer.dropout, layer.training) @ v
    output = linear(layer.out_proj, tape, mixed.transpose(1, 2).flatten(2))
    if not need_weights:
        return output, None
    return output, weights_RHTT.mean(1) if average_attn_weights else weights_RHTT


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return scores.masked_fill(mask, -math.inf)
    return scores + mask
