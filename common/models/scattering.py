"""Fixed wavelet features and one linear layer: few weights, so that little noise protects them.

With a few hundred patients and differential privacy, a linear model on features that nobody had to
learn beats networks that learn their own (Tramer and Boneh, ICLR 2021). Legend of shapes: B images,
C channels, F filters, P places along each axis.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.checks import positive
from common.models.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class ScatteringConfig(ModelConfig):
    """Settings of the wavelet features; they have no norm and no drop-out."""

    orientations: int = 8
    """Orientations of the wavelets over half a turn."""
    wavelength: float = 4.0
    """Wavelength in pixels at the finest scale, above 2."""
    octaves: int = 3
    """Scales, each on an image of half the size of the one before."""
    places: int = 8
    """The modulus of each wavelet is averaged to places x places, the image to twice as many."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(**{"model.orientations": self.orientations, "model.places": self.places})
        positive(**{"model.octaves": self.octaves})
        if self.spatial_dims != 2:
            raise ValueError(
                f"model.spatial_dims={self.spatial_dims} has no wavelets here; give 2, or choose "
                "model=cnn"
            )
        if self.wavelength <= 2:
            raise ValueError(
                f"model.wavelength={self.wavelength} cannot be seen on a grid of pixels; "
                "give a length above 2"
            )
        if self.dropout or self.norm != "group" or self.standardised:
            raise ValueError(
                f"model.dropout={self.dropout}, model.norm={self.norm} and model.standardised="
                f"{self.standardised} have no effect on wavelets; leave them at 0, group and null"
            )


class Scattering(nn.Module):
    """[B, C, H, W] -> logits [B, out_channels]; an image of any size."""

    def __init__(self, config: ScatteringConfig) -> None:
        super().__init__()
        self.places, self.octaves = config.places, config.octaves
        # Not of the state: they are the same everywhere, and nothing trains them.
        filters = gabor_filters(config.orientations, config.wavelength)
        self.register_buffer("filters", filters, persistent=False)
        wavelets = config.orientations * config.octaves * config.places**2
        features = config.in_channels * (wavelets + (2 * config.places) ** 2)
        self.head = nn.Linear(features, config.out_channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.features(images_BCHW))
        return logits

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Return [B, features] of norm 1: averaged moduli of wavelets, and averaged intensities.

        First-order scattering (Bruna and Mallat, TPAMI 2013, Eq. 4) of each image by itself; each
        of the two parts has mean 0 and variance 1 over an image.
        """
        images = images_BCHW.flatten(0, 1).unsqueeze(1)
        moduli, octave = [], images
        for _ in range(self.octaves):
            filters: Tensor = self.get_buffer("filters")
            real, imaginary = F.conv2d(octave, filters, padding="same").chunk(2, dim=1)
            modulus = torch.sqrt(real.square() + imaginary.square() + 1e-12)
            moduli.append(F.adaptive_avg_pool2d(modulus, self.places))
            octave = F.avg_pool2d(octave, 2, ceil_mode=True)
        wavelets = _standardised(torch.cat(moduli, 1).log1p().flatten(1))
        intensities = _standardised(F.adaptive_avg_pool2d(images, 2 * self.places).flatten(1))
        parts = torch.cat([wavelets, intensities], 1)
        return (parts / math.sqrt(parts.shape[1])).reshape(images_BCHW.shape[0], -1)


def gabor_filters(orientations: int, wavelength: float) -> Tensor:
    """Return [2 F, 1, K, K]: real parts, then imaginary parts, of complex waves in a Gaussian.

    Its standard deviation is 0.4 wavelengths (about one octave; Daugman, JOSA A 1985); each part
    has mean 0, so that a flat image has no answer.
    """
    reach = math.ceil(2 * 0.4 * wavelength * 1.25)
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(at, at, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * (0.4 * wavelength) ** 2))
    waves = []
    for wave in (torch.cos, torch.sin):
        for number in range(orientations):
            angle = math.pi * number / orientations
            along = x * math.cos(angle) + y * math.sin(angle)
            filtered = window * wave(2 * math.pi * along / wavelength)
            waves.append(filtered - filtered.mean())
    return torch.stack(waves).unsqueeze(1).float()


def _standardised(values_BN: Tensor) -> Tensor:
    centred = values_BN - values_BN.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()


def build_scattering(config: ScatteringConfig) -> nn.Module:
    """Return the wavelets and their linear layer, which starts at 0."""
    return Scattering(config)
