"""Epsilon over the life of an account, and the noise that a target asks for.

What is accounted is the Poisson-subsampled Gaussian mechanism; neighbours differ by one patient,
added or removed. A plain Gaussian mechanism is the one with sample rate 1. Two upper bounds:

rdp: Renyi moments (Mironov, Talwar and Zhang, 2019, Theorems 4 and 5; conversion by Balle et al.,
    AISTATS 2020, Theorem 21). Measured 3 to 20 % above the truth, many times it below 0.1.
prv: privacy random variables, composed by FFT (Koskela, Jalko and Honkela, AISTATS 2020; Gopi, Lee
    and Wutschitz, NeurIPS 2021) on a grid of pessimistic masses (Doroshenko et al., PoPETs 2022,
    Algorithm 1). Never below the truth; measured at most 0.5 % above it for sample rates from
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
from collections.abc import Iterable
from dataclasses import dataclass

from common.checks import in_range, not_negative
from common.privacy_loss import Merged, gaussian_epsilon, log_moments, prv_epsilon, rdp_epsilon

NOISE_TOLERANCE = 1e-3
"""noise_for answers at most this much, relative, above the least noise."""
MOST_NOISE = 1e6
"""More noise than this counts as this much."""
LEAST_NOISE = 1e-3
"""Less noise than this counts as none: epsilon is infinite."""


@dataclass(frozen=True, kw_only=True)
class PrivateSteps:
    """Steps of one kind: what an account adds up."""

    noise_multiplier: float
    """Standard deviation of the noise over the largest norm of one patient's gradient; 0: none."""
    sample_rate: float
    """Chance of a patient to be in a step; 1 is the plain Gaussian mechanism."""
    steps: int
    """How often the mechanism ran."""

    def __post_init__(self) -> None:
        not_negative(noise_multiplier=self.noise_multiplier, steps=self.steps)
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


def unprotected_release() -> PrivateSteps:
    """Return the charge of what leaves without noise: epsilon is infinite from then on."""
    return gaussian_release(0.0)


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
    moments = [steps * log_moments(noise, rate) for noise, rate, steps in entries]
    rdp = rdp_epsilon(sum(moments[1:], moments[0]), delta)
    if all(rate == 1.0 for _, rate, _ in entries):
        return Epsilon(rdp=rdp, prv=None, exact=gaussian_epsilon(entries[0][0], delta, rdp))
    return Epsilon(rdp=rdp, prv=prv_epsilon(entries, delta))
