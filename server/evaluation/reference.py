"""What images of another study can be made alike with, from what the sites tell of theirs."""

from collections.abc import Sequence

import numpy as np

from common.contract import Profile
from common.profile import AMPLITUDE_LIMIT, AMPLITUDES, BINS, INTENSITY, RANGES
from common.study import Study

STEPS = 20
"""Steps of the share of darker voxels."""
DECIMALS = 4


def amplitudes_of(profiles: Sequence[Profile]) -> list[list[float]]:
    """Return the amplitudes of the sites' low frequencies, for data.amplitudes; no site is named.

    In the order of their sums, so that a place in the list does not tell whose they are.
    """
    told = [AMPLITUDE_LIMIT * np.maximum(of.parts[AMPLITUDES], 0.0) for of in profiles]
    ordered = sorted(told, key=lambda of: float(of.sum()))
    return [[round(float(value), DECIMALS) for value in of] for of in ordered]


def reference_of(profiles: Sequence[Profile], study: Study) -> list[float]:
    """Return the values at equal shares of darker voxels of all sites' images together.

    Padding counts with them, as it does where images are matched. A site counts by its patients. It
    is made of the profiles alone, which have paid for themselves, so it costs no privacy. In the
    unit of the study's own normalised images.
    """
    low, high = RANGES[study.data.normalise]
    counts = sum(of.patients * np.asarray(of.parts[INTENSITY]) for of in profiles)
    # Noise makes an empty bin negative.
    shares = np.maximum(counts, 0.0)
    # Nothing lies beyond the outermost bins that hold any.
    held = np.flatnonzero(shares)
    shares = shares[held[0] : held[-1] + 1]
    darker = np.concatenate([[0.0], np.cumsum(shares / shares.sum())])
    edges = np.linspace(low, high, BINS + 1)[held[0] : held[-1] + 2]
    values = np.interp(np.linspace(0.0, 1.0, STEPS + 1), darker, edges)
    return [round(float(value), DECIMALS) for value in values]
