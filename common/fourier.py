"""Low spatial frequencies: a scanner's style, which images of other sites may be seen in.

Liu, Chen, Qin, Dou and Heng, FedDG: Federated Domain Generalization on Medical Image Segmentation
via Episodic Learning in Continuous Frequency Space, CVPR 2021, Section 3.2. There amplitudes of
single images are shared; here the mean of a site's, which noise covers.
Shape suffixes: B images, C channels, S spatial axes, K sites, F low frequencies.
"""

import torch
from torch import Tensor

from common.frequencies import HIGHEST

_LEAST = 1e-12


def low_amplitudes(images_BCS: Tensor) -> Tensor:
    """Return [B, C, F]: the amplitudes of the low frequencies, over the number of voxels.

    In the unit of the images. By Parseval their squares add up to the mean square at most.
    """
    spectrum = _spectrum(images_BCS)
    return spectrum[_low(spectrum)].flatten(2).abs() / images_BCS[0, 0].numel()


def mixed(images_BCS: Tensor, amplitudes_KF: Tensor, draws: torch.Generator) -> Tensor:
    """Return the images with low amplitudes on the way to those of a site, each by its own share.

    (1 - l) A_image + l A_site with l uniform in 0 to 1 and the site drawn (Eq. 2); phases, the
    image's mean and all higher frequencies stay. amplitudes_KF: means of sites, as of
    low_amplitudes.
    """
    dims = images_BCS.ndim - 2
    shares_B = torch.rand(len(images_BCS), generator=draws)
    chosen_B = torch.randint(len(amplitudes_KF), (len(images_BCS),), generator=draws)
    # An image is real, so a frequency and its opposite have one amplitude; noise knows no such law.
    even_KF = (amplitudes_KF + amplitudes_KF.flip(1)).clamp(min=0) / 2
    spectrum = _spectrum(images_BCS)
    low = _low(spectrum)
    block = spectrum[low]
    own = block.abs().clamp(min=_LEAST)
    sites = even_KF[chosen_B].to(own) * images_BCS[0, 0].numel()
    others = sites.reshape(len(images_BCS), 1, *block.shape[2:])
    # The mean stays: of a normalised image it is next to nothing, with a sign of chance.
    is_mean = torch.arange(sites.shape[1]).reshape(block.shape[2:]) == sites.shape[1] // 2
    others = torch.where(is_mean.to(own.device), own, others)
    share = shares_B.to(own).reshape(-1, *[1] * (block.ndim - 1))
    spectrum[low] = block * ((1 - share) + share * others / own)
    made: Tensor = torch.fft.ifftn(spectrum, dim=_axes(dims)).real
    return made.to(images_BCS.dtype)


def _spectrum(images_BCS: Tensor) -> Tensor:
    spectrum: Tensor = torch.fft.fftn(images_BCS.float(), dim=_axes(images_BCS.ndim - 2))
    return spectrum


def _axes(dims: int) -> list[int]:
    return list(range(2, 2 + dims))


def _low(spectrum_BCS: Tensor) -> tuple[slice | Tensor, ...]:
    """Return the index of the low frequencies, from -HIGHEST to HIGHEST along each axis."""
    dims = spectrum_BCS.ndim - 2
    highest = HIGHEST[dims]
    along = [torch.arange(-highest, highest + 1) % n for n in spectrum_BCS.shape[2:]]
    return (slice(None), slice(None), *torch.meshgrid(*along, indexing="ij"))
