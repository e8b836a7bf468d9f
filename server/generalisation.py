"""FedDG-GA: sites where averaging costs most come to count for more.

Zhang et al., Federated Domain Generalization with Generalization Adjustment, CVPR 2023, Eq. 8
and 9. The gap of a site is how much worse the averaged model is there than the site's own update
was: where it is large, the mean passes that site's images by.
"""

from collections.abc import Mapping
from statistics import mean

LEAST = 1e-3
"""Share of a site that the adjustment would leave nothing: its images stay in the mean."""

Gaps = Mapping[str, float | None]


def adjusted(shares: Mapping[str, float], gaps: Gaps, step: float) -> dict[str, float]:
    """Return a_k + step (G_k - mean G) / max_j |G_j - mean G|, not below LEAST, as shares of 1.

    The largest is taken without its sign, so that one site far below the mean moves no other by
    more than the step.

    shares: a_k by site; they add up to 1. gaps: G_k; a site whose gap is not known, as it was
    missing, keeps its share until all are made to add up to 1 again.
    """
    known = {site: gap for site, gap in gaps.items() if gap is not None and site in shares}
    apart = {site: gap - mean(known.values()) for site, gap in known.items()}
    largest = max((abs(gap) for gap in apart.values()), default=0.0)
    if largest:
        shares = {
            site: max(share + step * apart.get(site, 0.0) / largest, LEAST)
            for site, share in shares.items()
        }
    total = sum(shares.values())
    return {site: share / total for site, share in shares.items()}


def step_of(first: float, round_number: int, rounds: int) -> float:
    """Return d (1 - r/R), which the adjustment after round r of R moves by (Eq. 9)."""
    return first * (1 - round_number / rounds)
