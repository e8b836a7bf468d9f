"""Epsilon over the life of an account, and the noise that a target asks for.

What is accounted is the Poisson-subsampled Gaussian mechanism; neighbours differ by one patient,
added or removed. A plain Gaussian mechanism is the one with sample rate 1. Two upper bounds:

rdp: Renyi moments (Mironov, Talwar and Zhang, 2019, Theorems 4 and 5; conversion by Balle et al.,
    AISTATS 2020, Theorem 21). Measured 3 to 20 % above the truth, many times it below 0.1.
prv: privacy random variables, composed by FFT (Koskela, Jalko and Honkela, AISTATS 2020; Gopi, Lee
    and Wutschitz, NeurIPS 2021) on a grid of pessimistic masses (Doroshenko et al., PoPETs 2022,
    Algorithm 1). Never below the truth; measured at most 0.3 % above it for sample rates from
    1e-3, and 8 % at 1e-4. Adding and removing a patient are composed apart, since the worse of
    the two need not be the same everywhere (Lebeda et al., arXiv 2405.20769).

prv takes the settings of each step as given beforehand; rdp holds also where they were chosen after
earlier private results (Feldman and Zrnic, NeurIPS 2021).

Opacus' PRVAccountant is not used: it composes the removal alone, calls its own guarantee unclear in
general (domain.py), raises or answers infinity where its grid does not fit, warns at sample rate 1,
and takes 17 s of one core for 50 different entries; here that takes 0.3 s.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, rfft
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp, ndtr

from common.checks import in_range, not_negative, positive

Floats = npt.NDArray[np.float64]
Merged = tuple[tuple[float, float, int], ...]
"""(noise multiplier, sample rate, steps), sorted; one entry for all plain Gaussians."""

NOISE_TOLERANCE = 1e-3
"""noise_for answers at most this much, relative, above the least noise."""
MOST_NOISE = 1e6
"""More noise than this counts as this much."""
LEAST_NOISE = 1e-3
"""Less noise than this counts as none: epsilon is infinite."""
MOST_STEPS = 10**7

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


@dataclass(frozen=True, kw_only=True)
class PrivateSteps:
    """Steps of one kind: what an account adds up."""

    noise_multiplier: float
    """Standard deviation of the noise over the largest norm of one patient's gradient."""
    sample_rate: float
    """Chance of a patient to be in a step; 1 is the plain Gaussian mechanism."""
    steps: int
    """How often the mechanism ran."""

    def __post_init__(self) -> None:
        positive(noise_multiplier=self.noise_multiplier)
        not_negative(steps=self.steps)
        in_range(0.0, 1.0, sample_rate=self.sample_rate)


@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """Upper bounds on one epsilon; each holds by itself."""

    rdp: float
    """By Renyi moments; infinite where there is no noise to speak of."""
    prv: float | None
    """By privacy random variables. None where round-off or the grid would spoil it (delta below
    1e-12 times the steps, epsilon above about 350), and where `exact` stands."""
    exact: float | None = None
    """The value itself, for histories of plain Gaussians only."""

    @property
    def value(self) -> float:
        """The tightest bound."""
        return min(bound for bound in (self.rdp, self.prv, self.exact) if bound is not None)


def gaussian_release(noise_multiplier: float) -> PrivateSteps:
    """Return the charge of one sum of L2 sensitivity 1 that leaves with Gaussian noise.

    noise_multiplier: standard deviation of the noise over the sensitivity.
    """
    return PrivateSteps(noise_multiplier=noise_multiplier, sample_rate=1.0, steps=1)


def epsilon_of(history: Iterable[PrivateSteps], delta: float) -> float:
    """Return the tightest epsilon at delta of all steps together; 0 for no steps.

    Raises:
        ValueError: delta is not between 0 and 1.
    """
    return epsilons_of(history, delta).value


def epsilons_of(history: Iterable[PrivateSteps], delta: float) -> Epsilon:
    """Return the bounds on epsilon at delta of all steps together.

    No bound falls when steps are added, and none depends on the order of the entries or on how
    steps are told apart into entries.

    Raises:
        ValueError: delta is not between 0 and 1.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta={delta} is not allowed; give a value between 0 and 1")
    entries = list(history)
    if any(entry.noise_multiplier < LEAST_NOISE for entry in entries):
        return Epsilon(rdp=math.inf, prv=None)
    return _epsilons(_merged(entries), delta)


@functools.cache
def noise_for(target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the least noise multiplier with which the steps stay within the target.

    Never below it, and at most NOISE_TOLERANCE above it. The answer is kept, since a site asks
    for it with every message.

    Raises:
        ValueError: no noise keeps the target.
    """

    def fits(noise: float) -> bool:
        entry = PrivateSteps(noise_multiplier=noise, sample_rate=sample_rate, steps=steps)
        return epsilon_of([entry], delta) <= target_epsilon

    high = 1.0
    while not fits(high):
        high *= 2.0
        if high > MOST_NOISE:
            raise ValueError(
                f"privacy.target_epsilon={target_epsilon} cannot be met with delta={delta:.2g} "
                f"over {steps} steps at sample rate {sample_rate:.3f}; raise it, or take fewer "
                "rounds"
            )
    low = high / 2.0
    while low > LEAST_NOISE and fits(low):
        low, high = low / 2.0, low
    while high > low * (1.0 + NOISE_TOLERANCE):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def steps_within(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    noise_multiplier: float,
    history: Sequence[PrivateSteps] = (),
) -> int:
    """Return how many more such steps keep epsilon within the target; at most MOST_STEPS.

    Raises:
        ValueError: a value is out of its range.
    """
    not_negative(target_epsilon=target_epsilon)

    def fits(steps: int) -> bool:
        more = PrivateSteps(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
        return epsilon_of([*history, more], delta) <= target_epsilon

    low, high = 0, 1
    while high <= MOST_STEPS and fits(high):
        low, high = high, 2 * high
    high = min(high, MOST_STEPS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _merged(history: Iterable[PrivateSteps]) -> Merged:
    steps: dict[tuple[float, float], int] = {}
    for entry in history:
        if entry.sample_rate > 0.0 and entry.steps > 0:
            kind = (min(entry.noise_multiplier, MOST_NOISE), entry.sample_rate)
            steps[kind] = steps.get(kind, 0) + entry.steps
    entries = sorted((noise, rate, count) for (noise, rate), count in steps.items())
    # Plain Gaussians compose to one of the summed precision, 1/sigma^2 = sum of steps/sigma_i^2.
    precision = math.fsum(count / noise**2 for noise, rate, count in entries if rate == 1.0)
    sampled = tuple(entry for entry in entries if entry[1] < 1.0)
    return (*sampled, (precision**-0.5, 1.0, 1)) if precision else sampled


@functools.lru_cache(maxsize=4096)
def _epsilons(entries: Merged, delta: float) -> Epsilon:
    if not entries:
        return Epsilon(rdp=0.0, prv=None, exact=0.0)
    moments = [steps * _log_moments(noise, rate) for noise, rate, steps in entries]
    rdp = _rdp_epsilon(np.sum(moments, axis=0), delta)
    if all(rate == 1.0 for _, rate, _ in entries):
        return Epsilon(rdp=rdp, prv=None, exact=_gaussian_epsilon(entries[0][0], delta, rdp))
    return Epsilon(rdp=rdp, prv=_prv_epsilon(entries, delta))


@functools.lru_cache(maxsize=4096)
def _log_moments(noise: float, rate: float) -> Floats:
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


def _rdp_epsilon(moments: Floats, delta: float) -> float:
    """Return epsilon at delta by Balle et al. (AISTATS 2020, Theorem 21), at the best order."""
    less = ORDERS - 1.0
    log_delta = math.log(delta)
    bounds = (moments - log_delta - np.log(ORDERS)) / less + np.log(less / ORDERS)
    return max(0.0, float(bounds.min()))


def _gaussian_epsilon(noise: float, delta: float, most: float) -> float:
    """Return the exact epsilon of a Gaussian mechanism (Balle and Wang, ICML 2018, Theorem 8)."""

    def excess(epsilon: float) -> float:
        near = float(ndtr(0.5 / noise - epsilon * noise))
        return near - math.exp(epsilon + log_ndtr(-0.5 / noise - epsilon * noise)) - delta

    if excess(0.0) <= 0.0:
        return 0.0
    return min(most, float(brentq(excess, 0.0, most, xtol=1e-12, rtol=1e-12)) * (1 + 1e-11))


def _prv_epsilon(entries: Merged, delta: float) -> float | None:
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
    moments = np.array([_log_moments(noise, rate) for noise, rate, _ in entries])
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
