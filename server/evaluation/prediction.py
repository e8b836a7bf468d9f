"""How much worse a model will do at a new site, from how far its images are from the others'.

A straight line through what the other sites show (ordinary least squares), with its prediction
interval. Scored by leaving out each site in turn: a line that does not know the site is asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.contract import MAX_PATIENTS, Profile
from common.domain import domain_of
from common.newcomer import LEAST_SITES, MEASURE, Joined, Shown, far, predicted_drop
from common.profile import AMPLITUDES
from common.study import Study
from common.tasks.task import Metric
from server.evaluation.distance import distances_of, means_of
from server.evaluation.plane import places_of
from server.evaluation.reference import amplitudes_of, reference_of

FLOOR_DRAWS = 25


def told_by_profiles(
    profiles: Mapping[str, Profile], values: Mapping[str, float], study: Study, metric: Metric
) -> dict[str, Any]:
    """Return how far apart the sites are, and how well that predicts where the model does worse.

    values: the model's metric at each site that has one. Empty where fewer than two sites told how
    their images look.
    """
    if len(profiles) < 2:
        return {}
    told = list(profiles.values())
    known = {site: value for site, value in sorted(values.items()) if site in profiles}
    asked = all(AMPLITUDES in of.parts for of in told)
    styles = {"amplitudes": amplitudes_of(told)} if asked else {}
    distances = distances_of(profiles, study)
    places = places_of(distances[MEASURE])
    return {
        "reference": reference_of(told, study),
        **styles,
        "distance": distances,
        "distance_mean": means_of(distances),
        **({"map": {"measure": MEASURE, "sites": places}} if places else {}),
        "floor": floors_of(told, study),
        "noise": {site: profile.noise_std for site, profile in sorted(profiles.items())},
        "domain": domain_of(mixture_of(told)).told(),
        **_newcomer(profiles, known, metric),
        "prediction": {"measure": MEASURE, **scored(profiles, known, metric)},
    }


def over_time(profiles: Mapping[int, Mapping[str, Profile]], study: Study) -> dict[str, Any]:
    """Return how far apart the sites were after each round that asked; empty where none did."""
    found = {
        str(number): distances_of(of_sites, study)
        for number, of_sites in sorted(profiles.items())
        if len(of_sites) > 1
    }
    if not found:
        return {}
    means = {number: means_of(of) for number, of in found.items()}
    return {"distance_after": found, "distance_mean_after": means}


def drop_of(site: str, values: Mapping[str, float], metric: Metric) -> float:
    """Return by how much a site is worse than the mean of all others; below 0: better."""
    others = [value for name, value in values.items() if name != site]
    sign = 1.0 if metric.higher_is_better else -1.0
    return sign * (float(np.mean(others)) - values[site])


def far_from_others(site: str, profiles: Mapping[str, Profile]) -> float:
    """Return how far a site is from all the others' patients together."""
    others = mixture_of([profile for name, profile in profiles.items() if name != site])
    return far(profiles[site], others)


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
    told = min(patients, MAX_PATIENTS)
    return Profile(patients=told, noise_std=float(np.linalg.norm(noise)), parts=parts)


def _newcomer(
    profiles: Mapping[str, Profile], values: Mapping[str, float], metric: Metric
) -> dict[str, Any]:
    """Return what a hospital that has not joined needs for its expected drop; empty of few sites.

    Of two sites each could take itself out of the mean, and would have the other's.
    """
    if len(values) < LEAST_SITES:
        return {}
    told = {site: profiles[site] for site in values}
    sites = {
        site: Shown(far_from_others(site, told), drop_of(site, values, metric)) for site in values
    }
    everybody, mean = mixture_of(list(told.values())), float(np.mean(list(values.values())))
    return {"newcomer": Joined(everybody=everybody, sites=sites, mean=mean).told()}


def scored(
    profiles: Mapping[str, Profile], values: Mapping[str, float], metric: Metric
) -> dict[str, Any]:
    """Return each site's drop as the others predict it, and how well that went.

    The line for a site is made as if it did not exist: of the others' drops against each other,
    over their distances from each other (`others`). The model has seen the site's data all the
    same; scored_outside asks one that has not.
    """
    told = {site: profiles[site] for site in values}
    sites: dict[str, dict[str, Any]] = {}
    for site in values:
        theirs = {name: told[name] for name in values if name != site}
        if len(theirs) < LEAST_SITES:
            continue
        others = {name: far_from_others(name, theirs) for name in theirs}
        found = _asked(site, far_from_others(site, told), others, values, metric)
        if found is not None:
            sites[site] = {**found, "others": others}
    return _score_of(sites)


def scored_outside(
    told: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, float]],
    metric: Metric,
) -> dict[str, Any] | None:
    """Return the same of models that were trained without the site; None where there are none.

    told: `prediction.sites` of the study with all of them: distances are of images, whatever model
    looks. values: by site that was left out, the model's metric at every site, itself too.
    """
    sites: dict[str, dict[str, Any]] = {}
    for site, at in values.items():
        others = told.get(site, {}).get("others", {})
        # Without one of them the distances to the others together would be other ones.
        if not others or not {site, *others} <= set(at):
            continue
        found = _asked(site, told[site]["distance"], others, at, metric)
        if found is not None:
            sites[site] = found
    return _score_of(sites) if sites else None


def _asked(
    site: str,
    distance: float,
    others: Mapping[str, float],
    values: Mapping[str, float],
    metric: Metric,
) -> dict[str, Any] | None:
    """Return what a line through the others says of a site; None where they give no line.

    others: by site, how far it is from the others.
    """
    known = {name: values[name] for name in others}
    drops = [drop_of(name, known, metric) for name in known]
    try:
        line = predicted_drop(list(others.values()), drops, distance)
    except ValueError:
        return None
    return {
        "distance": distance,
        "drop": drop_of(site, {**known, site: values[site]}, metric),
        "predicted": line.drop,
        "low": line.low,
        "high": line.high,
    }


def _score_of(sites: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how well the drops were predicted.

    covered: sites whose drop is in its interval. mean_error: mean of |predicted - drop|;
    mean_error_without: of the same with no drop predicted at all.
    """
    if not sites:
        return {"sites": {}, "covered": 0, "mean_error": None, "mean_error_without": None}
    errors = [abs(of["predicted"] - of["drop"]) for of in sites.values()]
    return {
        "sites": dict(sites),
        "covered": sum(of["low"] <= of["drop"] <= of["high"] for of in sites.values()),
        "mean_error": float(np.mean(errors)),
        "mean_error_without": float(np.mean([abs(of["drop"]) for of in sites.values()])),
    }


def floors_of(profiles: Sequence[Profile], study: Study) -> dict[str, float]:
    """Return what each measure would show between two equal sites, through noise alone.

    A parametric bootstrap: the mean of all profiles twice, each time with new noise of the sites'
    middle size; the median over the draws.
    """
    mean, std = mixture_of(profiles), float(np.median([p.noise_std for p in profiles]))
    draws = np.random.default_rng(0)

    def noised() -> Profile:
        parts = {
            name: (np.asarray(numbers) + draws.normal(0, std, len(numbers))).tolist()
            for name, numbers in mean.parts.items()
        }
        return Profile(patients=mean.patients, noise_std=std, parts=parts)

    found = [distances_of({"a": noised(), "b": noised()}, study) for _ in range(FLOOR_DRAWS)]
    return {name: float(np.median([of[name]["a"]["b"] for of in found])) for name in found[0]}
