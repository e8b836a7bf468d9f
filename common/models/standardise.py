"""Convolutions whose weights are standardised, so that a step changes their direction alone.

What a group norm behind a convolution divides out again, the weights' scale, is then no longer a
place where the noise of differential privacy can gather.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

STABILITY = 1e-6
"""Added to the variance of an output's weights."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Standardised(nn.Module):
    """Scaled weight standardisation: gain x (w - mean) / sqrt(fan-in x variance), per output.

    Qiao et al., 2019 (arXiv 1903.10520), Eq. 5; with the fan-in and a learned gain, Brock, De and
    Smith, ICLR 2021, Eq. 1. weight: [O, I, ...], and [I, O, ...] where transposed.
    """

    def __init__(self, weight: Tensor, *, groups: int, transposed: bool) -> None:
        super().__init__()
        self._groups, self._transposed = groups, transposed
        self.gain = nn.Parameter(torch.ones_like(self._grouped(weight).mean(self._inputs(weight))))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights that the convolution works with, of the same shape."""
        axes = self._inputs(weight)
        grouped = self._grouped(weight)
        centred = grouped - grouped.mean(axes, keepdim=True)
        fan_in = grouped.numel() // self.gain.numel()
        scale = torch.rsqrt(fan_in * (centred.square().mean(axes, keepdim=True) + STABILITY))
        gain = self.gain.view(scale.shape)
        return (gain * scale * centred).reshape(weight.shape)

    def _grouped(self, weight: Tensor) -> Tensor:
        """Return [G, I / G, O / G, ...] where transposed: an output's inputs are of its group."""
        if not self._transposed:
            return weight
        return weight.view(self._groups, -1, *weight.shape[1:])

    def _inputs(self, weight: Tensor) -> tuple[int, ...]:
        """Return the axes of the grouped weight along which one output's inputs lie."""
        return (1, *range(3, weight.ndim + 1)) if self._transposed else tuple(range(1, weight.ndim))


def standardise(network: nn.Module) -> nn.Module:
    """Standardise every convolution of a network in place, and return the network.

    One with a single weight an output is left as it is: less its mean, nothing would be left.
    """
    for module in list(network.modules()):
        if not isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
            continue
        made = Standardised(
            module.weight, groups=module.groups, transposed=isinstance(module, _TRANSPOSED)
        )
        if made.gain.numel() < module.weight.numel():
            register_parametrization(module, "weight", made)
    return network
