"""What a site may tell of how its images look: the parts of a profile, and their sizes.

A profile is the mean over the patients of one vector each, in parts of length 1 at most:

    intensity   shares of the voxels by intensity
    appearance  the image in coarse blocks, so that where things are bright is seen
    acquisition voxel size and matrix as the file came
    strata      in which stratum of the labels the patient is
    features    by stratum, the patient's place in the model's feature space
    moments     products of pairs of features, and of each with 1: their means
    amplitudes  those of the low spatial frequencies; only if evaluation.amplitudes asks
"""

import math
from collections.abc import Mapping, Sequence

from common.contract import Description, Profile
from common.frequencies import count_of
from common.study import Study

INTENSITY, APPEARANCE, ACQUISITION = "intensity", "appearance", "acquisition"
STRATA, FEATURES, MOMENTS = "strata", "features", "moments"
AMPLITUDES = "amplitudes"
AMPLITUDE_LIMIT = 2.0
"""Root of the sum of a patient's squared amplitudes at which they are cut, in intensities."""
BINS = 16
RANGES = {"zscore": (-3.0, 5.0), "minmax": (0.0, 1.0), "rank": (-4.0, 4.0), "matched": (-3.0, 5.0)}
"""By data.normalise: first and last edge of the intensities' bins; what is beyond counts there."""
BLOCKS = {2: 6, 3: 4}
"""Blocks of the image along each axis, by spatial dimensions."""
BLOCK_LIMIT = 2.0
"""Root mean square of a patient's blocks at which its part is cut, in units of the intensity."""
AXES = 3
FEATURE_NUMBERS = 8
MOST_NOISE_STD, SIGMAS = 1.0, 8.0
"""A profile's numbers are 1 at most, without noise; noise is hardly ever so many deviations."""
FOREGROUND_EDGES = (0.0, 0.005, 0.02)
"""Shares of foreground between the strata of a segmentation; none at all is a stratum too."""


def sizes_of(study: Study) -> Mapping[str, int]:
    """Return how many numbers each part of a study's profiles has."""
    strata, dims = strata_of(study), study.data.spatial_dims
    asked = study.evaluation is not None and study.evaluation.amplitudes
    return {
        INTENSITY: BINS,
        APPEARANCE: BLOCKS[dims] ** dims,
        ACQUISITION: 2 * AXES,
        STRATA: strata,
        FEATURES: strata * FEATURE_NUMBERS,
        MOMENTS: (1 + FEATURE_NUMBERS) ** 2,
        **({AMPLITUDES: count_of(dims)} if asked else {}),
    }


def profiled_between(study: Study, round_number: int) -> bool:
    """Return whether the sites tell a profile after this round, which is not the last."""
    every = study.evaluation.profile_every if study.evaluation is not None else None
    return every is not None and round_number % every == 0 and 0 < round_number < study.rounds


def strata_of(study: Study) -> int:
    """Return the number of strata: classes, labels and none of them, or ranges of foreground.

    Of times: whether the event is known to have happened.
    """
    # Not asked by its type, whose module loads torch: the gate reads this file.
    classes: list[str] | None = getattr(study.task, "classes", None)
    more = {"classification": 0, "multilabel": 1, "survival": 2}.get(study.task.name)
    return len(FOREGROUND_EDGES) + 1 if more is None else len(classes or []) + more


def noise_std(noise_multiplier: float, parts: int, patients: int) -> float:
    """Return the standard deviation of the noise on each number of a profile.

    Each part of a patient's vector has length 1 at most, so the totals of two sets of equally many
    patients, one of them another, differ by 2 sqrt(parts) at most.
    """
    return noise_multiplier * 2 * math.sqrt(parts) / patients


def told_patients(sides: Sequence[int], least: int) -> int:
    """Return how many patients a profile is of: a side of fewer than `least` is not told of."""
    return sum(count for count in sides if count >= least)


def impossible_profile(
    profile: Profile, sizes: Mapping[str, int], about: Description
) -> str | None:
    """Return what in a profile cannot be, or None.

    about: what its site told of itself. A profile so noised that it tells nothing is one that
    cannot be used: it would make every site look equal to it.
    """
    found = {name: len(numbers) for name, numbers in profile.parts.items()}
    if found != dict(sizes):
        return "it tells a profile of other parts than the study's"
    if profile.patients != about.patients_train + about.patients_held_out:
        return "it tells a profile of other patients than it has"
    if profile.noise_std > MOST_NOISE_STD:
        return f"its profile has a noise of {profile.noise_std:g}, more than there is to tell"
    most = 1 + SIGMAS * profile.noise_std
    for numbers in profile.parts.values():
        if not all(abs(number) <= most for number in numbers):
            return "it tells a number of a profile that is not possible"
    return None
