"""An alarm for a site whose images are no longer those that a study began with.

It reads the profiles that the sites tell after some rounds (evaluation.profile_every), so that it
costs no privacy of its own. Legend of shapes: R runs, N rounds.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.contract import Profile
from common.cusum import Scores, cumulative, first_above, threshold_of
from common.profile import ACQUISITION, APPEARANCE, INTENSITY, profiled_between
from common.seeding import seed
from common.study import Study

FALSE_ALARM_RATE = 0.01
"""Chance of an alarm at any site, over the whole study, if no site's images change."""
RUNS = 20_000
CACHED = 64
PARTS = (INTENSITY, APPEARANCE, ACQUISITION)
"""What of a profile is of the images alone, whatever the model."""
SAME = 1e-4
"""Exact profiles that are no further apart than this are of the same images."""


class Change(NamedTuple):
    """What the rounds say of one site."""

    first: int
    """Round after which its images were told of first: what the later ones are held against."""
    distances: dict[int, float]
    """By later round: how far its profile is from the first, less what noise adds on average."""
    round: int | None
    """The first round with an alarm."""


def alarm_of(
    profiles: Mapping[int, Mapping[str, Profile]], study: Study, sites: int
) -> dict[str, Any]:
    """Return what result.json tells of changed images; empty where no site told twice.

    profiles: by round and site. sites: how many take part; they share the rate of false alarms.
    """
    found = changes_of(profiles, study, sites)
    if not found:
        return {}
    return {
        "false_alarm_rate": FALSE_ALARM_RATE,
        "sites": {
            site: {
                "round": change.round,
                "since": change.first,
                "distance_after": {str(number): d for number, d in change.distances.items()},
            }
            for site, change in found.items()
        },
    }


def changes_of(
    profiles: Mapping[int, Mapping[str, Profile]], study: Study, sites: int
) -> dict[str, Change]:
    """Return by site, of those that told at least twice, what its rounds say."""
    rounds = sorted(profiles)
    told = {
        site: [r for r in rounds if site in profiles[r]] for r in rounds for site in profiles[r]
    }
    return {
        site: _change({r: profiles[r][site] for r in numbers}, study, sites)
        for site, numbers in sorted(told.items())
        if len(numbers) > 1
    }


def _change(told: Mapping[int, Profile], study: Study, sites: int) -> Change:
    (first, start), *later = told.items()
    numbers = sum(len(start.parts[part]) for part in PARTS)
    squares_N = np.array([_square(start, profile) for _, profile in later])
    stds = [start.noise_std, *(profile.noise_std for _, profile in later)]
    noise_N = numbers * (stds[0] ** 2 + np.square(stds[1:]))
    distances = np.sqrt(np.maximum(squares_N - noise_N, 0.0))
    # By all rounds that will be asked: one more may not make an alarm of an earlier one.
    looks = sum(profiled_between(study, number) for number in range(study.rounds))
    planned = [*stds, *[stds[-1]] * (looks - len(later))]
    threshold = _threshold(numbers, tuple(planned), sites, seed(study.seed, "alarm"))
    place = first_above(cumulative(scores_of(squares_N, numbers, stds)), threshold)
    return Change(
        first=first,
        distances={number: float(d) for (number, _), d in zip(later, distances, strict=True)},
        round=None if place is None else later[place][0],
    )


@functools.lru_cache(maxsize=CACHED)
def _threshold(numbers: int, stds: tuple[float, ...], sites: int, draws_seed: int) -> float:
    runs = unchanged(numbers, stds, np.random.default_rng(draws_seed))
    return threshold_of(runs, FALSE_ALARM_RATE / sites)


def scores_of(squares_N: Scores, numbers: int, stds: Sequence[float]) -> Scores:
    """Return squared distances from the first profile as scores of mean 0 and deviation 1.

    Of unchanged images the square over the variance of a number's difference is chi-squared with
    as many degrees of freedom as there are numbers. Without noise every score is below 0 until
    images change. squares_N: [..., N]; stds: of the noise, N + 1, that of the first profile first.
    """
    variance_N = np.maximum(stds[0] ** 2 + np.square(stds[1:]), SAME**2 / numbers)
    scores_N: Scores = (squares_N / variance_N - numbers) / np.sqrt(2 * numbers)
    return scores_N


def unchanged(numbers: int, stds: Sequence[float], draws: np.random.Generator) -> Scores:
    """Return [RUNS, N] scores of a site whose images stay the same, through noise alone.

    All rounds are held against one first profile, so its noise is in all of them: along its
    direction it is a number, and across it the rounds' own noise is chi-squared.
    """
    first_R1 = stds[0] * np.sqrt(draws.chisquare(numbers, (RUNS, 1)))
    later = np.asarray(stds[1:])
    along_RN = first_R1 + later * draws.normal(size=(RUNS, len(later)))
    across_RN = later**2 * draws.chisquare(numbers - 1, (RUNS, len(later)))
    return scores_of(along_RN**2 + across_RN, numbers, stds)


def _square(a: Profile, b: Profile) -> float:
    parts = (np.subtract(a.parts[part], b.parts[part]) for part in PARTS)
    return float(sum(np.sum(difference**2) for difference in parts))
