"""What the parts of the report read from result.json (docs of its form: server/records.py)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Result = Mapping[str, Any]
"""The content of result.json."""


def site_names(result: Result) -> list[str]:
    """Return every site that the result mentions anywhere, in order."""
    names = set(result.get("sites") or {})
    for part in ("initial", "final"):
        names |= set(estimates(result, part)) | set((result.get(part) or {}).get("missing") or {})
    for record in result.get("rounds") or []:
        names |= {*record["participants"], *record["missing"], *record["sites"]}
    return sorted(names)


def comparison(result: Result) -> Mapping[str, Any] | None:
    """Return the result's `shift`; None where it does not hold the models against each other.

    A study that did not ask for it may have a `shift` that tells of sites left out alone.
    """
    shift: Mapping[str, Any] = result.get("shift") or {}
    return shift if "matrix" in shift else None


def estimates(result: Result, part: str) -> Mapping[str, Any]:
    """Return the estimates by site and metric of the initial or the final model."""
    return (result.get(part) or {}).get("sites") or {}


def estimate(of_site: Mapping[str, Any] | None, metric: str) -> Mapping[str, Any]:
    """Return a site's estimate of a metric; one without a value where there is none, or NaN."""
    found: Mapping[str, Any] = (of_site or {}).get(metric) or {}
    value, low, high = (_defined(found.get(key)) for key in ("value", "low", "high"))
    return {"value": value, "low": low, "high": high, "n": found.get("n", 0)}


def before(record: Mapping[str, Any], site: str, metric: str) -> float | None:
    """Return the metric of a round's incoming model at a site; None where it was not asked."""
    value: float | None = estimate(record["sites"].get(site, {}).get("before"), metric)["value"]
    return value


def epsilon_after(record: Mapping[str, Any], site: str) -> float | None:
    """Return a site's epsilon after a round; None without differential privacy."""
    part = record["sites"].get(site, {})
    epsilon: float | None = (part.get("privacy") or part).get("epsilon")
    return epsilon


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are defined, each counted the same; None of none."""
    defined = [known for value in values if (known := _defined(value)) is not None]
    return float(np.mean(defined)) if defined else None


def higher_is_better(result: Result, metric: str) -> bool:
    """Return the direction of a metric."""
    return bool(result["metrics"][metric]["higher_is_better"])


def is_private(result: Result) -> bool:
    """Return whether the study asks for differential privacy."""
    return bool((result["study"].get("privacy") or {}).get("mechanism", "none") != "none")


def last_exposure(result: Result) -> tuple[str, float] | None:
    """Return the site with the largest epsilon at the end, and that epsilon."""
    spent = {site: about["epsilon"] for site, about in (result.get("privacy") or {}).items()}
    site = max(spent, key=lambda name: spent[name], default=None)
    return None if site is None else (site, spent[site])


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
