"""The numerics of the two bounds on epsilon (common/accounting.py says what they promise)."""

import functools
import math

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, rfft
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp, ndtr

Floats = npt.NDArray[np.float64]
Merged = tuple[tuple[float, float, int], ...]
"""(noise multiplier, sample rate, steps), sorted; one entry for all plain Gaussians."""

ORDERS: Floats = 1.0 + 2.0 ** (np.arange(-72, 85) / 12.0)
"""Orders of the Renyi divergence, 1.016 to 129; their spacing costs about 0.1 % of epsilon."""
QUADRATURE_POINTS = 4096
"""Most points between the two means when a moment is integrated."""

CELLS = 2**16
"""Grid points of a privacy random variable; their distance doubles with the grid's reach."""
LARGEST_REACH = 512.0
"""Grids end here; beyond, rdp stands alone."""
ROUND_OFF = 1e-3
"""Part of delta set aside for round-off: prv is the epsilon at (1 - ROUND_OFF) * delta."""
ROUND_OFF_A_STEP = 1e-15
"""Round-off in delta that FFT and powers leave, per composed step."""
TAIL = 1e-6
"""Part of delta that may lie beyond the grid; it is inside what ROUND_OFF sets aside."""


@functools.lru_cache(maxsize=4096)
def log_moments(noise: float, rate: float) -> Floats:
    """Return log E[(P/Q)^a] under Q for each order a: (a - 1) times the Renyi divergence.

    Q = N(0, noise^2), P = (1 - rate) Q + rate N(1, noise^2) (Mironov, Talwar and Zhang, 2019,
    Theorem 4). The trapezoid rule is exact to round-off here: the integrand is analytic in a strip
    of half-width pi noise^2.
    """
    plain = ORDERS * (ORDERS - 1.0) / (2.0 * noise**2)
    if rate == 1.0:
        return plain
    distance = min(noise / 4.0, noise**2 / 2.0)
    reach = min(float(ORDERS[-1]), QUADRATURE_POINTS * distance)
    x = np.arange(-12.0 * noise, reach + 12.0 * noise, distance)
    log_ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * x - 1) / (2 * noise**2))
    log_density = -0.5 * (x / noise) ** 2 + math.log(distance / (noise * math.sqrt(2 * math.pi)))
    within = reach >= ORDERS
    # Beyond the reach of the points the mechanism that takes every patient is a bound.
    moments = plain.copy()
    moments[within] = logsumexp(ORDERS[within, None] * log_ratio + log_density, axis=1)
    return np.minimum(moments, plain)


def rdp_epsilon(moments: Floats, delta: float) -> float:
    """Return epsilon at delta by Balle et al. (AISTATS 2020, Theorem 21), at the best order."""
    less = ORDERS - 1.0
    log_delta = math.log(delta)
    bounds = (moments - log_delta - np.log(ORDERS)) / less + np.log(less / ORDERS)
    return max(0.0, float(bounds.min()))


def gaussian_epsilon(noise: float, delta: float, most: float) -> float:
    """Return the exact epsilon of a Gaussian mechanism (Balle and Wang, ICML 2018, Theorem 8)."""

    def excess(epsilon: float) -> float:
        near = float(ndtr(0.5 / noise - epsilon * noise))
        return near - math.exp(epsilon + log_ndtr(-0.5 / noise - epsilon * noise)) - delta

    if excess(0.0) <= 0.0:
        return 0.0
    return min(most, float(brentq(excess, 0.0, most, xtol=1e-12, rtol=1e-12)) * (1 + 1e-11))


def prv_epsilon(entries: Merged, delta: float) -> float | None:
    """Return the bound by privacy random variables; None where it cannot be trusted."""
    if delta * ROUND_OFF < ROUND_OFF_A_STEP * sum(steps for _, _, steps in entries):
        return None
    reach = _reach(entries, delta)
    if reach is None:
        return None
    removed, added = np.ones(CELLS // 2 + 1, complex), np.ones(CELLS // 2 + 1, complex)
    for noise, rate, steps in entries:
        first, second = _masses(noise, rate, reach)
        removed *= rfft(first) ** steps
        added *= rfft(second) ** steps
    target = delta * (1.0 - ROUND_OFF)
    return max(_epsilon_at(target, spectrum, reach) for spectrum in (removed, added))


def _reach(entries: Merged, delta: float) -> float | None:
    """Return the least power of two beyond which losses have no mass to speak of, or None.

    Chernoff's bound from the moments (as in Koskela et al., AISTATS 2021), for the sum and for
    each single loss. Moving mass to the ends of cells of width h adds at most a (a - 1) h^2 / 8 to
    a log moment of order a: the second derivative of a cell's log moments is at most h^2 / 4.
    """
    moments = np.array([log_moments(noise, rate) for noise, rate, _ in entries])
    steps = np.array([steps for _, _, steps in entries], float)
    reach = 2.0**-6
    while reach <= LARGEST_REACH:
        width = 2.0 * reach / CELLS
        inflated = moments + ORDERS * (ORDERS - 1.0) * width**2 / 8.0
        log_single = (inflated - (ORDERS - 1.0) * reach).min(axis=1)
        log_sum = float((steps @ inflated - (ORDERS - 1.0) * reach).min())
        singles = float(steps @ np.exp(np.minimum(log_single, 0.0)))
        if singles + math.exp(min(log_sum, 0.0)) <= delta * TAIL:
            return reach
        reach *= 2.0
    return None


def _masses(noise: float, rate: float, reach: float) -> tuple[Floats, Floats]:
    """Return the masses of the loss of removing and of adding a patient, loss 0 first.

    The mass of a cell goes to its two ends so that its probability under P and under Q stays as it
    is: then the discrete pair dominates (P, Q) (Doroshenko et al., PoPETs 2022, Algorithm 1). What
    lies below the grid is moved up to it; what lies above is left out (see _reach).
    """
    width = 2.0 * reach / CELLS
    loss = width * np.arange(-CELLS // 2, CELLS // 2)
    likelihood = np.exp(loss)
    with np.errstate(divide="ignore", over="ignore"):
        # The place where log P/Q is the loss, in units of the noise; -inf where it nowhere is.
        place = noise * np.log1p(np.maximum(np.expm1(loss) / rate, -1.0)) + 0.5 / noise
    absent = _normal_masses(place)
    present = (1.0 - rate) * absent + rate * _normal_masses(place - 1.0 / noise)
    p, q = present[1:-1], absent[1:-1]
    removed, added = np.zeros(CELLS), np.zeros(CELLS)
    up = np.clip((p - likelihood[:-1] * q) / -math.expm1(-width), 0.0, p)
    removed[1:] = up
    removed[:-1] += p - up
    removed[0] += present[0]
    up = np.clip((q - p / likelihood[1:]) / -math.expm1(-width), 0.0, q)
    # The losses of adding are the negatives, in falling order; cell 0 ends beyond the grid.
    added[1:] = (q - up)[::-1]
    added[2:] += up[:0:-1]
    added[1] += absent[-1]
    return np.fft.ifftshift(removed), np.fft.ifftshift(added)


def _normal_masses(ends: Floats) -> Floats:
    """Return the standard normal's masses below, between and above the rising ends.

    Taken from the nearer tail, so that small masses keep their digits.
    """
    tails = ndtr(-np.abs(ends))
    same_side = np.signbit(ends[1:]) == np.signbit(ends[:-1])
    between = np.where(same_side, np.abs(np.diff(tails)), 1.0 - tails[1:] - tails[:-1])
    return np.concatenate([ndtr(ends[:1]), between, ndtr(-ends[-1:])])


def _epsilon_at(delta: float, spectrum: npt.NDArray[np.complex128], reach: float) -> float:
    """Return the least epsilon >= 0 with E[max(0, 1 - e^(epsilon - loss))] <= delta."""
    masses = np.maximum(irfft(spectrum, CELLS)[: CELLS // 2], 0.0)
    loss = 2.0 * reach / CELLS * np.arange(CELLS // 2)
    above = np.cumsum(masses[::-1])[::-1]
    above_discounted = np.cumsum((masses * np.exp(-loss))[::-1])[::-1]
    first = int(np.argmax(above - np.exp(loss) * above_discounted <= delta))
    if first == 0:
        return 0.0
    return math.log((above[first] - delta) / above_discounted[first])
