"""How far apart the sites' images are, from what their profiles tell (common/profile.py).

Every distance is 0 for equal profiles. Noise on a profile makes things look further apart than they
are: from a squared distance what noise adds to it on average is subtracted. Legend of shapes: K
strata, F features.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.contract import Profile
from common.domain import moments_of, normal_of
from common.newcomer import apart, far, root_of
from common.profile import (
    ACQUISITION,
    BINS,
    FEATURE_NUMBERS,
    FEATURES,
    INTENSITY,
    RANGES,
    STRATA,
)
from common.study import Study

Vector = NDArray[np.float64]
Distances = dict[str, dict[str, dict[str, float]]]
"""By measure, site and site."""
LEAST_SHARE = 0.05
"""A stratum with a smaller share of either site's patients says nothing of its mean."""


class Parts(NamedTuple):
    """A shift of the features' mean, as two vectors that add up to it."""

    label_F: Vector
    """Because other strata are more frequent."""
    covariate_F: Vector
    """Because patients of the same stratum look different."""


def distances_of(profiles: Mapping[str, Profile], study: Study) -> Distances:
    """Return every measure between every two sites, both ways."""
    low, high = RANGES[study.data.normalise]
    measures: dict[str, Callable[[Profile, Profile], float]] = {
        "intensity": lambda a, b: (high - low) / BINS * wasserstein(a, b),
        "appearance": far,
        "acquisition": lambda a, b: apart(a, b, ACQUISITION),
        "frechet": frechet,
        "mmd": mmd,
        "label_shift": lambda a, b: float(np.linalg.norm(parts_of(a, b).label_F)),
        "covariate_shift": lambda a, b: float(np.linalg.norm(parts_of(a, b).covariate_F)),
    }
    found: Distances = {name: {site: {} for site in profiles} for name in measures}
    for first, second in combinations(sorted(profiles), 2):
        for name, measure in measures.items():
            value = measure(profiles[first], profiles[second])
            found[name][first][second] = found[name][second][first] = value
    return found


def means_of(distances: Distances) -> dict[str, float]:
    """Return each measure's mean over every two sites. distances: of two sites or more."""
    return {
        name: float(np.mean([value for of in sites.values() for value in of.values()]))
        for name, sites in distances.items()
    }


def wasserstein(a: Profile, b: Profile) -> float:
    """Return the Wasserstein-1 distance of the intensities, in bins.

    The area between the distribution functions (Vallender, Theory Probab. Appl. 1974).
    """
    first, second = (np.cumsum(shares(profile.parts[INTENSITY])) for profile in (a, b))
    return float(np.abs(first - second).sum())


def shares(numbers: list[float]) -> Vector:
    """Return the nearest shares, none below 0 and 1 in all.

    The projection onto the simplex (Duchi et al., ICML 2008, Fig. 1).
    """
    values = np.asarray(numbers, dtype=np.float64)
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(values) + 1)
    kept = np.flatnonzero(falling > excess)[-1]
    nearest: Vector = np.maximum(values - excess[kept], 0.0)
    return nearest


def frechet(a: Profile, b: Profile) -> float:
    """Return |m - n|^2 + tr(A + B - 2 (A B)^1/2) of the features, as normal distributions.

    Dowson and Landau, J. Multivariate Analysis 1982, Eq. 4; of means m, n and covariances A, B.
    """
    (mean_a, cov_a), (mean_b, cov_b) = normal_of(a), normal_of(b)
    root = _matrix_root(cov_a)
    crossed = np.trace(_matrix_root(root @ cov_b @ root))
    spread = float(np.trace(cov_a) + np.trace(cov_b) - 2 * crossed)
    # A mean is twice the middle of two numbers that noise is on.
    noise = 2 * FEATURE_NUMBERS * (a.noise_std**2 + b.noise_std**2)
    means = float(np.sum((mean_a - mean_b) ** 2)) - noise
    return max(means + spread, 0.0)


def mmd(a: Profile, b: Profile) -> float:
    """Return the maximum mean discrepancy of the features with the kernel (x.y + 1)^2.

    Gretton et al., JMLR 2012, Eq. 1: of this kernel it is how far apart the moments are.
    """
    difference = moments_of(a) - moments_of(b)
    # Symmetric, so noise is on so many different numbers, and halved off the diagonal.
    count = len(difference) * (len(difference) + 1) / 2
    return root_of(float(np.sum(difference**2)) - 4 * count * (a.noise_std**2 + b.noise_std**2))


def parts_of(a: Profile, b: Profile) -> Parts:
    """Return the shift of the features' mean from a to b, told apart by the strata.

    With shares p_k and means m_k of the strata, the sum over k of p_k m_k changes by the sum of
    (change of p_k) x (mean m_k) and of (mean p_k) x (change of m_k), and by nothing else (Kitagawa,
    JASA 1955). A stratum that one of them hardly has counts for the label.
    """
    share_a, share_b = shares(a.parts[STRATA]), shares(b.parts[STRATA])
    joint_a, joint_b = _joint(a), _joint(b)
    both = (share_a >= LEAST_SHARE) & (share_b >= LEAST_SHARE)
    change_KF = joint_b - joint_a
    mean_a = joint_a / np.where(both, share_a, 1.0)[:, None]
    mean_b = joint_b / np.where(both, share_b, 1.0)[:, None]
    covariate_KF = ((share_a + share_b) / 2)[:, None] * (mean_b - mean_a)
    covariate_F = np.sum(covariate_KF[both], axis=0)
    return Parts(label_F=change_KF.sum(0) - covariate_F, covariate_F=covariate_F)


def _joint(profile: Profile) -> Vector:
    """Return [K, F]: a stratum's share times its mean."""
    return np.asarray(profile.parts[FEATURES], dtype=np.float64).reshape(-1, FEATURE_NUMBERS)


def _matrix_root(matrix_FF: Vector) -> Vector:
    values, vectors = np.linalg.eigh((matrix_FF + matrix_FF.T) / 2)
    root: Vector = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root
