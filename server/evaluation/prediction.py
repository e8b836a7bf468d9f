"""How much worse a model will do at a new site, from how far its images are from the others'.

A straight line through what the other sites show (ordinary least squares), with its prediction
interval. Scored by leaving out each site in turn: a line that does not know the site is asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from common.contract import Profile
from common.profile import APPEARANCE, BLOCK_LIMIT
from common.study import Study
from common.tasks.task import Metric
from server.evaluation.distance import apart, distances_of

LEAST_SITES = 3
"""Sites that a line with an interval needs."""
COVERAGE = 0.95
MEASURE = APPEARANCE
"""The distance that drops are predicted from: in simulation it orders scanners best."""


class Predicted(NamedTuple):
    """An expected drop with its 95 % prediction interval."""

    drop: float
    low: float
    high: float


def told_by_profiles(
    profiles: Mapping[str, Profile], values: Mapping[str, float], study: Study, metric: Metric
) -> dict[str, Any]:
    """Return how far apart the sites are, and how well that predicts where the model does worse.

    values: the model's metric at each site that has one. Empty where fewer than two sites told how
    their images look.
    """
    if len(profiles) < 2:
        return {}
    to_others = {
        site: BLOCK_LIMIT
        * apart(profiles[site], mixture_of([p for s, p in profiles.items() if s != site]), MEASURE)
        for site in profiles
    }
    drops = drops_of({site: values[site] for site in profiles if site in values}, metric)
    return {
        "distance": distances_of(profiles, study),
        "noise": {site: profile.noise_std for site, profile in sorted(profiles.items())},
        "prediction": {"measure": MEASURE, **scored(to_others, drops)},
    }


def predicted_drop(distances: Sequence[float], drops: Sequence[float], new: float) -> Predicted:
    """Return the drop to expect at a new distance.

    The prediction interval of simple linear regression (Draper and Smith, Applied Regression
    Analysis, 1998, Section 3.1).

    Raises:
        ValueError: fewer than three sites, or all at one distance.
    """
    x, y = np.asarray(distances, dtype=np.float64), np.asarray(drops, dtype=np.float64)
    if len(x) < LEAST_SITES or np.ptp(x) == 0:
        raise ValueError(f"{len(x)} sites at {len(set(x.tolist()))} distances give no line")
    centre, spread = float(x.mean()), float(np.sum((x - x.mean()) ** 2))
    slope = float(np.sum((x - centre) * (y - y.mean()))) / spread
    value = float(y.mean()) + slope * (new - centre)
    residual = y - y.mean() - slope * (x - centre)
    free = len(x) - 2
    error = np.sqrt(np.sum(residual**2) / free * (1 + 1 / len(x) + (new - centre) ** 2 / spread))
    half = float(stats.t.ppf((1 + COVERAGE) / 2, free) * error)
    return Predicted(value, value - half, value + half)


def drops_of(values: Mapping[str, float], metric: Metric) -> dict[str, float]:
    """Return by how much each site is worse than the mean of all others; below 0: better."""
    sign = 1.0 if metric.higher_is_better else -1.0
    found = {}
    for site, value in values.items() if len(values) > 1 else ():
        others = [other for name, other in values.items() if name != site]
        found[site] = sign * (float(np.mean(others)) - value)
    return found


def mixture_of(profiles: Sequence[Profile]) -> Profile:
    """Return the profile of all their patients together."""
    patients = sum(profile.patients for profile in profiles)
    weights = [profile.patients / patients for profile in profiles]
    parts = {
        name: np.sum(
            [w * np.asarray(p.parts[name]) for w, p in zip(weights, profiles, strict=True)], axis=0
        ).tolist()
        for name in profiles[0].parts
    }
    noise = [w * p.noise_std for w, p in zip(weights, profiles, strict=True)]
    return Profile(patients=patients, noise_std=float(np.linalg.norm(noise)), parts=parts)


def scored(distances: Mapping[str, float], drops: Mapping[str, float]) -> dict[str, Any]:
    """Return each site's drop as the others predict it, and how well that went.

    covered: sites whose drop is in its interval. mean_error: mean of |predicted - drop|;
    mean_error_without: of the same without distances, by the mean of the others' drops.
    """
    sites: dict[str, dict[str, float]] = {}
    without = []
    for site in sorted(drops):
        known = [name for name in sorted(drops) if name != site]
        far, fell = [distances[name] for name in known], [drops[name] for name in known]
        try:
            told = predicted_drop(far, fell, distances[site])
        except ValueError:
            continue
        sites[site] = {"distance": distances[site], "drop": drops[site], **_named(told)}
        without.append(abs(float(np.mean(fell)) - drops[site]))
    if not sites:
        return {"sites": {}, "covered": 0, "mean_error": None, "mean_error_without": None}
    covered = sum(of["low"] <= of["drop"] <= of["high"] for of in sites.values())
    errors = [abs(of["predicted"] - of["drop"]) for of in sites.values()]
    return {
        "sites": sites,
        "covered": covered,
        "mean_error": float(np.mean(errors)),
        "mean_error_without": float(np.mean(without)),
    }


def _named(told: Predicted) -> dict[str, float]:
    return {"predicted": told.drop, "low": told.low, "high": told.high}
