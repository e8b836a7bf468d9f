"""Which sites are asked in a round."""

import math
import random
from collections.abc import Collection

from common.seeding import seed


def cohort_of_round(
    sites: Collection[str], fraction: float, study_seed: int, round_number: int
) -> list[str]:
    """Return the names of the sites asked, sorted.

    ceil(fraction * sites) of them, at least one, drawn by a seed of study and round from the
    sorted names: the same whoever answered first.
    """
    names = sorted(sites)
    count = max(1, math.ceil(fraction * len(names)))
    draw = random.Random(seed(study_seed, round_number, "cohort"))
    return sorted(draw.sample(names, count)) if names else []
