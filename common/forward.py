"""Forward models: what a poorer acquisition makes of an image, and the usual ways back.

Each is a named function of physics on images with values from 0 to 1. The classical ways back are
what a network that restores images is measured against.
Legend of shapes: B images, C channels, S spatial axes, X Y Z one by one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from common.forward_config import ForwardConfig
from common.sinogram import back_projected, projected

Degrade = Callable[[Tensor, ForwardConfig, torch.Generator], Tensor]
"""(images_BCS of 0 to 1, settings, draws) -> the same after the poorer acquisition, [B, C, S]."""
Classical = Callable[[Tensor, ForwardConfig], Tensor]
"""(degraded images_BCS, settings) -> images restored without a network."""
NLM_STRENGTH = 0.8
"""Cut-off over the noise's deviation, as scikit-image advises for its fast mode."""
DEPTH = 4.0
"""Attenuation, a natural logarithm, of a ray along the longer side of a slice of brightness 1: that
of 20 cm of water at 70 keV (0.19 a cm)."""


@dataclass(frozen=True)
class Forward:
    """One forward model."""

    degrade: Degrade
    arrives: str
    """What the degraded image is called beside those that were restored."""
    classical: Mapping[str, Classical] = field(default_factory=dict)
    """Ways back by name; what arrives counts as one."""

    @property
    def references(self) -> tuple[str, ...]:
        """What a network is measured against: the image as it arrives, and the ways back."""
        return (self.arrives, *self.classical)


def low_dose(images_BCS: Tensor, config: ForwardConfig, draws: torch.Generator) -> Tensor:
    """Return counts over photons: Poisson noise, `photons` expected where an image is 1.

    Barrett and Myers, Foundations of Image Science, 2004, Sec. 11.1, in the image itself.
    """
    photons = float(config.photons or 0.0)
    return torch.poisson(images_BCS.clamp(min=0.0) * photons, generator=draws) / photons


def low_dose_ct(images_BCS: Tensor, config: ForwardConfig, draws: torch.Generator) -> Tensor:
    """Return filtered back-projections of counts of photons, slice by slice in the plane X Y.

    A ray is weakened by Beer and Lambert's law, and the photons that arrive are Poisson (Kak and
    Slaney, 1988, Ch. 4). No photon counts as one.
    """
    photons, side_x, side_y = float(config.photons or 0.0), *images_BCS.shape[2:4]
    planes = images_BCS.movedim((2, 3), (-2, -1))
    slices = planes.reshape(-1, side_x, side_y)
    a_voxel = DEPTH / max(side_x, side_y)
    lost = a_voxel * projected(slices.clamp(min=0.0).cpu(), int(config.views or 1))
    counts = torch.poisson(photons * torch.exp(-lost), generator=draws).clamp(min=1.0)
    measured = (math.log(photons) - counts.log()) / a_voxel
    seen = back_projected(measured, side_x, side_y).reshape(planes.shape)
    return seen.movedim((-2, -1), (2, 3)).to(images_BCS)


def undersampled(images_BCS: Tensor, config: ForwardConfig, draws: torch.Generator) -> Tensor:
    """Return magnitudes of zero-filled k-space in which 1 of `acceleration` lines was acquired.

    Cartesian in the plane X Y, lines along X: the centre is whole, the others are drawn for each
    image (Zbontar et al., fastMRI, 2018, Sec. 4.9; zero-filling as in Bernstein et al., JMRI 2001).
    """
    lines = images_BCS.shape[3]
    acquired_BL = torch.stack([_lines(lines, config, draws) for _ in images_BCS])
    places = acquired_BL.reshape(len(images_BCS), 1, 1, lines, *[1] * (images_BCS.ndim - 4))
    kspace = torch.fft.fft2(images_BCS, dim=(2, 3)) * places.to(images_BCS.device)
    seen: Tensor = torch.fft.ifft2(kspace, dim=(2, 3)).abs()
    return seen


def _lines(lines: int, config: ForwardConfig, draws: torch.Generator) -> Tensor:
    """Return which lines are acquired, [lines], in the order of an FFT."""
    centre = max(1, round(lines * float(config.centre or 0.0)))
    more = max(0, round(lines / float(config.acceleration or 1)) - centre)
    # As fastMRI pads: an even number of lines has its frequency 0 right of the middle.
    first = (lines - centre + 1) // 2
    acquired = torch.zeros(lines)
    acquired[first : first + centre] = 1.0
    outer = (acquired == 0).nonzero()[:, 0]
    acquired[outer[torch.randperm(len(outer), generator=draws)[:more]]] = 1.0
    in_order: Tensor = torch.fft.ifftshift(acquired)
    return in_order


def downsampled(images_BCS: Tensor, config: ForwardConfig, draws: torch.Generator) -> Tensor:
    """Return images of voxels `factor` times as large along each axis, back on the old grid.

    A large voxel is the mean of the small ones. The way back is cubic convolution (Keys, IEEE TASSP
    1981, with PyTorch's a = -3/4 where Keys has -1/2), which is what a network for super-resolution
    begins with (Dong et al., PAMI 2016).
    """
    del draws
    dims, factor = images_BCS.ndim - 2, int(config.factor or 1)
    pool = F.avg_pool2d if dims == 2 else F.avg_pool3d
    small = pool(images_BCS, factor)
    if dims == 2:
        return _cubic(small, (factor, factor))
    # Cubic convolution works axis by axis: the plane, then along Z.
    count, channels, *_, slices = small.shape
    plane = _cubic(small.movedim(-1, 2).flatten(1, 2), (factor, factor))
    plane = plane.reshape(count, channels, slices, *plane.shape[2:]).movedim(2, -1)
    wide = _cubic(plane.flatten(2, 3), (1, factor))
    return wide.reshape(*plane.shape[:-1], slices * factor)


def _cubic(images_BCXY: Tensor, factors: tuple[int, int]) -> Tensor:
    wanted = [n * factor for n, factor in zip(images_BCXY.shape[2:], factors, strict=True)]
    return F.interpolate(images_BCXY, size=wanted, mode="bicubic", align_corners=False)


def non_local_means(images_BCS: Tensor, config: ForwardConfig) -> Tensor:
    """Return images without Poisson noise by non-local means (Buades et al., CVPR 2005).

    On the square root of counts, whose noise has the deviation 1 everywhere (Anscombe, Biometrika
    1948), with scikit-image's fast version, as strong as it advises for a known noise.
    """
    photons = float(config.photons or 0.0)
    even = 2 * np.sqrt(images_BCS.double().numpy() * photons + 3 / 8)
    found = _without_noise(even, lambda _: 1.0)
    return torch.from_numpy(((found / 2) ** 2 - 1 / 8) / photons).float()


def non_local_means_ct(images_BCS: Tensor, config: ForwardConfig) -> Tensor:
    """Return the images by non-local means, as strong as the noise that each is seen to have.

    That is estimated from the image alone (Immerkaer, CVIU 1996), where structure has cancelled.
    """
    del config
    found = _without_noise(images_BCS.double().numpy(), _noise_of)
    return torch.from_numpy(found).float()


def _noise_of(image_S: NDArray[np.float64]) -> float:
    """Return the standard deviation of the noise: Immerkaer's mask over each slice."""
    mask = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0])
    mask = mask.reshape(3, 3, *[1] * (image_S.ndim - 2))
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(ndimage.convolve(image_S, mask)).mean())


def _without_noise(
    images_BCS: NDArray[np.float64], noise_of: Callable[[NDArray[np.float64]], float]
) -> NDArray[np.float64]:
    # Half a second to load, and most studies restore nothing.
    from skimage.restoration import denoise_nl_means

    patch, distance = (5, 6) if images_BCS.ndim == 4 else (3, 2)
    found = np.empty_like(images_BCS)
    for place in np.ndindex(*images_BCS.shape[:2]):
        sigma = max(noise_of(images_BCS[place]), 1e-6)
        found[place] = denoise_nl_means(
            images_BCS[place],
            patch_size=patch,
            patch_distance=distance,
            h=NLM_STRENGTH * sigma,
            sigma=sigma,
        )
    return found


def hann(images_BCS: Tensor, config: ForwardConfig) -> Tensor:
    """Return what filtered back-projection with Hann's window would have given.

    A window over each view's frequencies is the same window over the distance from frequency 0 of
    the slice (the Fourier slice theorem; Kak and Slaney, 1988, Sec. 3.2).
    """
    del config
    x, y = (torch.fft.fftfreq(n, dtype=torch.float64) for n in images_BCS.shape[2:4])
    radius = torch.hypot(x[:, None], y[None]).clamp(max=0.5)
    window = (0.5 + 0.5 * torch.cos(2 * math.pi * radius)).reshape(
        *radius.shape, *[1] * (images_BCS.ndim - 4)
    )
    seen = torch.fft.ifft2(torch.fft.fft2(images_BCS.double(), dim=(2, 3)) * window, dim=(2, 3))
    found: Tensor = seen.real.float()
    return found


FORWARD: Mapping[str, Forward] = MappingProxyType(
    {
        "low_dose": Forward(low_dose, "noisy", {"non_local_means": non_local_means}),
        "low_dose_ct": Forward(
            low_dose_ct, "back_projected", {"hann": hann, "non_local_means": non_local_means_ct}
        ),
        "undersampled": Forward(undersampled, "zero_filled"),
        "downsampled": Forward(downsampled, "bicubic"),
    }
)
"""Every forward model that a study may ask for."""


def degraded(images_BCS: Tensor, config: ForwardConfig, draws: torch.Generator) -> Tensor:
    """Return the images after the forward model that the settings name; none stay none."""
    if not len(images_BCS):
        return images_BCS
    return FORWARD[config.name].degrade(images_BCS, config, draws)


def references(arrived_BCS: Tensor, config: ForwardConfig) -> list[Tensor]:
    """Return what arrived and what each classical way back makes of it, cut to 0 to 1."""
    ways = FORWARD[config.name].classical.values()
    found = [arrived_BCS, *(way(arrived_BCS, config) for way in ways)]
    return [each.clamp(0.0, 1.0) for each in found]
