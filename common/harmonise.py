"""Grey values made alike before a network sees them: a coil's bias removed, a histogram matched.

Shape suffixes: C channels, S spatial axes, P voxels, K polynomials, H bins.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

DEGREE = 3
"""Largest total degree of the polynomials that a bias is made of: a coil's is as smooth."""
ITERATIONS, ENOUGH = 30, 1e-3
"""Most rounds of sharpening, and the change of the field in the log below which they end."""
BINS, FWHM, WIENER = 200, 0.15, 0.01
"""Of the log histogram, of the blur that a bias is taken to be, and its noise (Sled et al.)."""
MOST_VOXELS = 50_000
"""About so many voxels, evenly spaced, are enough to find a field that is so smooth."""
_PADDED = 512


def without_bias(image_CS: Tensor) -> Tensor:
    """Return the image divided by a smooth field that spreads each tissue's grey values.

    The field is found as in N3 and N4 (Sled, Zijdenbos and Evans, IEEE TMI 1998; Tustison et al.,
    IEEE TMI 2010): the log histogram is sharpened, each voxel's sharpened value taken from its own,
    and a smooth function fitted to what is left, until it stands still. Here the smooth function is
    a polynomial of the third degree in the place of splines, the tissue is what is brighter than
    the mean, and of a large image evenly spaced voxels stand for all. The log field has the mean 0
    over the tissue. A channel without tissue (nothing above 0 that differs) is left as it is.
    """
    return torch.stack([_without_bias(channel) for channel in image_CS])


def matched(shares: Tensor, reference: Sequence[float]) -> Tensor:
    """Return the reference's values at these shares of darker voxels, from 0 to 1, any shape.

    reference: the values at equal steps of the share, from the darkest to the brightest; between
    them a straight line (Nyul, Udupa and Zhang, IEEE TMI 2000, with every quantile as a landmark).
    """
    at = np.linspace(0.0, 1.0, len(reference))
    return torch.from_numpy(np.interp(shares.numpy(), at, np.asarray(reference)))


def _without_bias(image_S: Tensor) -> Tensor:
    values = image_S.double().numpy()
    step = math.ceil((values.size / MOST_VOXELS) ** (1 / values.ndim)) if values.size else 1
    some = values[tuple(slice(None, None, step) for _ in values.shape)]
    tissue = some > max(float(some.mean()), 0.0)
    if not tissue.any() or np.ptp(some[tissue]) <= 1e-6 * float(some.max()):
        return image_S
    log = np.log(some[tissue])
    degrees = [d for d in product(range(DEGREE + 1), repeat=values.ndim) if sum(d) <= DEGREE]
    axes = [np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1) for n in values.shape]
    basis_PK = np.stack(
        [_field({d: 1.0}, [axis[::step] for axis in axes])[tissue] for d in degrees], axis=1
    )
    inverse_KP = np.linalg.pinv(basis_PK)
    coefficients, field = np.zeros(len(degrees)), np.zeros_like(log)
    for _ in range(ITERATIONS):
        coefficients = inverse_KP @ (log - _sharpened(log - field))
        before, field = field, basis_PK @ coefficients
        middle = float(field.mean())
        field -= middle
        if float(np.abs(field - before).max()) < ENOUGH:
            break
    smooth = _field(dict(zip(degrees, coefficients.tolist(), strict=True)), axes) - middle
    # Beyond the tissue a polynomial runs away; nothing there says how bright the coil is.
    smooth = np.clip(smooth, field.min(), field.max())
    return torch.from_numpy(values / np.exp(smooth)).to(image_S.dtype)


def _field(coefficients: Mapping[tuple[int, ...], float], axes: Sequence[Floats]) -> Floats:
    """Return a sum of products of Legendre polynomials of the axes, on their grid."""
    table = np.zeros((DEGREE + 1,) * len(axes))
    for degrees, value in coefficients.items():
        table[degrees] = value
    for axis in axes:
        # The table's first axis becomes the grid's last: after all of them the order is right.
        table = np.tensordot(table, np.polynomial.legendre.legvander(axis, DEGREE).T, axes=(0, 0))
    return table


def _sharpened(log_P: Floats) -> Floats:
    """Return each voxel's expected value before a blur of the log histogram (Sled et al., Eq. 12).

    The histogram is deconvolved by a Wiener filter with a Gaussian of FWHM.
    """
    low, high = float(log_P.min()), float(log_P.max())
    if high - low < 1e-9:
        return log_P
    counts, edges = np.histogram(log_P, BINS, (low, high))
    width = float(edges[1] - edges[0])
    start = (_PADDED - BINS) // 2
    histogram = np.zeros(_PADDED)
    histogram[start : start + BINS] = counts
    offsets = width * np.fft.fftfreq(_PADDED, 1 / _PADDED)
    blur = np.exp(-4 * np.log(2) * (offsets / FWHM) ** 2)
    blur_f = np.fft.fft(blur / blur.sum())
    wiener = np.conj(blur_f) / (np.abs(blur_f) ** 2 + WIENER)
    sharp = np.maximum(np.fft.ifft(wiener * np.fft.fft(histogram)).real, 0.0)
    centres = low + (np.arange(_PADDED) - start + 0.5) * width
    weights = np.fft.ifft(blur_f * np.fft.fft(sharp)).real
    sums = np.fft.ifft(blur_f * np.fft.fft(sharp * centres)).real
    expected = np.where(weights > 1e-9 * weights.max(), sums / np.maximum(weights, 1e-300), centres)
    inside = slice(start, start + BINS)
    return np.interp(log_P, centres[inside], expected[inside])
