"""What a backward pass leaves behind: every unit's gradient, or what is needed to clip it.

A unit is what privacy protects: the images of one patient, or one image. Its images lie next to
each other in the batch. Legend of shapes: U units, R rows of a layer's input (a whole number an
image, the image's own rows together), ... the shape of a parameter.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

STABILITY = 1e-6
"""Added to a norm before the division, as Opacus does; it clips a hair more, never less."""

Gradients = Tensor | list[Tensor]
"""One gradient a unit: stacked, [U, ...], or apart. Apart saves the copy into one tensor."""

Pull = Callable[[Tensor], dict[nn.Parameter, Tensor]]
"""gradient_U of a weight -> those of the parameters that it was made from."""


@dataclass(frozen=True)
class Ghost:
    """Gradients that were never made (Li et al., ICLR 2022), in one pass (Bu et al., ICML 2023)."""

    square_norm_U: Tensor
    """Squared norm of each unit's gradient."""
    weighted_sum: Callable[[Tensor], Tensor]
    """factor_U -> the sum over the units of factor x gradient, of the parameter's shape; a unit of
    factor 0 is left out, whatever its gradient."""


class Tape:
    """Collects the gradients of one batch, a parameter at a time."""

    def __init__(self, images_of_unit: Sequence[int]) -> None:
        """images_of_unit: images of each unit, one or more, in the order of the batch."""
        self.images_of_unit = tuple(images_of_unit)
        self.images = sum(self.images_of_unit)
        self._uses: Counter[int] = Counter()
        self._stored: dict[nn.Parameter, Gradients] = {}
        self._ghosts: dict[nn.Parameter, Ghost] = {}
        self._pulls: dict[nn.Parameter, Pull] = {}

    def use(self, *parameters: Tensor | None) -> None:
        """Note in the forward pass that a layer reads the parameters."""
        self._uses.update(id(p) for p in parameters if p is not None)

    def derive(self, weight: nn.Parameter, pull: Pull) -> None:
        """Note that a weight was made from parameters, whose gradients are to be kept instead."""
        self._pulls[weight] = pull

    def once(self, parameter: nn.Parameter) -> bool:
        """Return whether one layer alone reads the parameter; norms of a sum do not add up.

        Nor do they pass through the making of a weight, so a made one counts as read again.
        """
        return self._uses[id(parameter)] == 1 and parameter not in self._pulls

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Return first and last + 1 of the rows of each unit."""
        each = rows // self.images
        return list(pairwise(accumulate((each * n for n in self.images_of_unit), initial=0)))

    def sum_rows(self, values_R: Tensor) -> Tensor:
        """Return the sums over the rows of each unit: [R, ...] -> [U, ...]."""
        if len(values_R) == len(self.images_of_unit):
            return values_R
        return torch.stack([values_R[a:b].sum(0) for a, b in self.spans(len(values_R))])

    def factors_of_rows(self, factor_U: Tensor, rows: int) -> Tensor:
        """Return each unit's factor at each of its rows."""
        counts = torch.tensor([b - a for a, b in self.spans(rows)], device=factor_U.device)
        return factor_U.repeat_interleave(counts)

    def store(self, parameter: nn.Parameter, gradients: Gradients) -> None:
        """Keep each unit's gradient; gradients of one parameter add up.

        What is not trained has none: in a unit's norm it would take from what is.
        """
        if not parameter.requires_grad:
            return
        if parameter in self._pulls:
            stacked_U = gradients if isinstance(gradients, Tensor) else torch.stack(gradients)
            sources = self._pulls[parameter](stacked_U.to(parameter.dtype))
            for source, gradients_U in sources.items():
                self.store(source, gradients_U)
            return
        if isinstance(gradients, Tensor):
            gradients = gradients.to(parameter.dtype)
        else:
            gradients = [gradient.to(parameter.dtype) for gradient in gradients]
        known = self._stored.get(parameter)
        if known is not None:
            gradients = [a + b for a, b in zip(known, gradients, strict=True)]
        self._stored[parameter] = gradients

    def store_ghost(self, parameter: nn.Parameter, ghost: Ghost) -> None:
        """Keep the norms alone, and the way to the sum."""
        if not parameter.requires_grad:
            return
        self._ghosts[parameter] = ghost

    @property
    def stored_bytes(self) -> int:
        """Bytes of the gradients that are kept."""
        kept = (g if isinstance(g, list) else [g] for g in self._stored.values())
        return sum(g.numel() * g.element_size() for gradients in kept for g in gradients)

    def gradients(self, parameter: nn.Parameter) -> Tensor:
        """Return each unit's part of the gradient of the batch's loss, [U, ...]; zero if unused."""
        if parameter in self._ghosts:
            ghost = self._ghosts[parameter]
            alone = torch.eye(len(self.images_of_unit)).to(ghost.square_norm_U)
            return torch.stack([ghost.weighted_sum(row) for row in alone])
        known = self._stored.get(parameter)
        if known is None:
            return parameter.new_zeros((len(self.images_of_unit), *parameter.shape))
        return torch.stack(list(known))

    def clipped_sums(self, max_norm: float) -> dict[nn.Parameter, Tensor]:
        """Return the sum over the units of each one's clipped gradient, by parameter.

        The loss of the batch is the mean over its images, the loss of a unit the mean over the
        unit's own: the gradient of the latter is clipped to max_norm (Abadi et al., CCS 2016). A
        unit whose gradient is not finite counts for nothing: if it spoiled the sum, the sum would
        tell that it was there.
        """
        squares = [_square_norms(gradients) for gradients in self._stored.values()]
        squares += [ghost.square_norm_U for ghost in self._ghosts.values()]
        norm_U = torch.stack([square.float() for square in squares]).sum(0).sqrt()
        share = [self.images / n for n in self.images_of_unit]
        scale_U = torch.tensor(share, device=norm_U.device)
        factor_U = scale_U * (max_norm / (scale_U * norm_U + STABILITY)).clamp(max=1.0)
        factor_U = torch.where(norm_U.isfinite(), factor_U, 0.0)
        # Mixed precision is for the passes: a sum in bfloat16 can be longer than its parts say.
        with torch.autocast(norm_U.device.type, enabled=False):
            sums = {p: _weighted_sum(g, factor_U) for p, g in self._stored.items()}
            return {**sums, **{p: g.weighted_sum(factor_U) for p, g in self._ghosts.items()}}


def _square_norms(gradients: Gradients) -> Tensor:
    if isinstance(gradients, Tensor):
        return gradients.flatten(1).float().square().sum(1)
    norms = torch._foreach_norm(gradients)
    return torch.stack(norms).float().square()


def _weighted_sum(gradients: Gradients, factor_U: Tensor) -> Tensor:
    if isinstance(gradients, Tensor):
        counted = factor_U > 0
        if not counted.all():
            gradients, factor_U = gradients[counted], factor_U[counted]
        return (factor_U.to(gradients.dtype) @ gradients.flatten(1)).view(gradients.shape[1:])
    total = torch.zeros_like(gradients[0])
    for gradient, factor in zip(gradients, factor_U.tolist(), strict=True):
        if factor > 0:
            total.add_(gradient, alpha=factor)
    return total
