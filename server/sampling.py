"""Which sites are asked in a round."""

import math
import random
from collections.abc import Collection
from fractions import Fraction

from common.seeding import seed


def cohort_of_round(
    sites: Collection[str], fraction: float, study_seed: int, round_number: int
) -> list[str]:
    """Return the names of the sites asked, sorted.

    ceil(fraction * sites) of them, at least one, drawn by a seed of study and round from the
    sorted names: the same whoever answered first.
    """
    names = sorted(sites)
    # As it is written: in floats 0.07 * 100 is more than 7.
    count = max(1, math.ceil(Fraction(str(fraction)) * len(names)))
    draw = random.Random(seed(study_seed, round_number, "cohort"))
    return sorted(draw.sample(names, count)) if names else []
