"""Epsilon over the life of an account, and the noise that a target asks for.

Both rest on Renyi accounting of the Poisson-subsampled Gaussian mechanism (Mironov, Talwar and
Zhang, 2019; conversion by Balle et al., AISTATS 2020), as Opacus computes it.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier

EPSILON_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class PrivateSteps:
    """Steps of one kind: what an account adds up."""

    noise_multiplier: float
    """Standard deviation of the noise over the largest norm of one patient's gradient."""
    sample_rate: float
    """Chance of a patient to be in a step."""
    steps: int


def epsilon_of(history: Iterable[PrivateSteps], delta: float) -> float:
    """Return epsilon at delta of all steps together; 0 for no steps."""
    accountant = RDPAccountant()
    accountant.history = [(s.noise_multiplier, s.sample_rate, s.steps) for s in history]
    # The conversion from Renyi divergence can fall below zero, which promises nothing more.
    return max(0.0, float(accountant.get_epsilon(delta=delta)))


@functools.cache
def noise_for(target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the least noise multiplier with which the steps stay within the target.

    The search takes seconds; the answer is kept, since a site asks for it with every message.

    Raises:
        ValueError: no noise keeps the target.
    """
    try:
        return float(
            get_noise_multiplier(
                target_epsilon=target_epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=EPSILON_TOLERANCE,
            )
        )
    except ValueError as error:
        raise ValueError(
            f"privacy.target_epsilon={target_epsilon} cannot be met with delta={delta:.2g} over "
            f"{steps} steps at sample rate {sample_rate:.3f}; raise it, or take fewer rounds"
        ) from error
