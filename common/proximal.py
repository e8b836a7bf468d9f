"""The proximal term of FedProx."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def proximal_term(model: nn.Module, reference: Sequence[Tensor], mu: float) -> Tensor:
    """Return mu/2 * ||w - w_t||^2 over the trainable parameters (Li et al., MLSys 2020, Eq. 2).

    reference: w_t in the order of the trainable model.parameters(), detached.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    squares = [(w - w_t).square().sum() for w, w_t in zip(parameters, reference, strict=True)]
    return mu / 2 * torch.stack(squares).sum()


def add_proximal_gradient(model: nn.Module, reference: Sequence[Tensor], mu: float) -> None:
    """Add the gradient of proximal_term to every p.grad.

    Called after a private gradient is clipped, noised and scaled: a term in the loss would be
    thrown away there. The term does not depend on the data given w, so it costs no privacy.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    term = proximal_term(model, reference, mu)
    for parameter, gradient in zip(parameters, torch.autograd.grad(term, parameters), strict=True):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
