import torch
from torch import nn

from common.proximal import add_proximal_gradient, proximal_term


def _net_and_reference() -> tuple[nn.Module, list[torch.Tensor]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    return net, [torch.randn_like(p) for p in net.parameters()]


def test_proximal_term_is_half_mu_times_the_squared_distance() -> None:
    net, reference = _net_and_reference()
    flat = torch.cat([(p - r).flatten() for p, r in zip(net.parameters(), reference, strict=True)])
    torch.testing.assert_close(proximal_term(net, reference, 0.3), 0.15 * flat.dot(flat))


def test_proximal_gradient_is_mu_times_distance() -> None:
    net, reference = _net_and_reference()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    add_proximal_gradient(net, reference, 0.3)
    for parameter, w_t in zip(net.parameters(), reference, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, 1 + 0.3 * (parameter.detach() - w_t))


def test_frozen_parameters_have_no_part() -> None:
    net, reference = _net_and_reference()
    frozen = next(iter(net.parameters()))
    frozen.requires_grad_(False)
    add_proximal_gradient(net, reference[1:], 1.0)
    assert frozen.grad is None
