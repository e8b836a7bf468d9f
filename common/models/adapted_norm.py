"""Batch norm that, where it is not trained, also looks at the image before it."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _AdaptedNorm(_BatchNorm):
    """Batch norm whose statistics in evaluation are (N mu_s + mu_t) / (N + 1), variances alike.

    mu_s: the running statistics; mu_t: those of the one image, over its places; N: the prior
    (Schneider et al., Improving robustness against common corruptions by covariate shift
    adaptation, NeurIPS 2020, Eq. 3, with a batch of one). Each image is normalised by itself, so no
    prediction depends on another patient. The state is a batch norm's.
    """

    prior: float = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """Return [B, C, *spatial], normalised; in training as batch norm does."""
        if self.training:
            return super().forward(input)
        places = list(range(2, input.ndim))
        shape = (1, -1, *(1 for _ in places))
        var_t, mean_t = torch.var_mean(input, places, correction=0, keepdim=True)
        mean, var = (
            (self.prior * source.view(shape) + target) / (self.prior + 1)
            for source, target in ((self.running_mean, mean_t), (self.running_var, var_t))
            if source is not None
        )
        scaled = (input - mean) * torch.rsqrt(var + self.eps)
        return scaled * self.weight.view(shape) + self.bias.view(shape)


class AdaptedNorm2d(_AdaptedNorm, nn.BatchNorm2d):
    """Of [B, C, H, W]."""


class AdaptedNorm3d(_AdaptedNorm, nn.BatchNorm3d):
    """Of [B, C, H, W, D]."""


def adapted_norm(spatial_dims: int, channels: int, prior: float) -> nn.Module:
    """Return a new layer; prior: how many images the running statistics count for."""
    layer = (AdaptedNorm2d if spatial_dims == 2 else AdaptedNorm3d)(channels)
    layer.prior = prior
    return layer
