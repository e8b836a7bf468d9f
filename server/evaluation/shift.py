"""Whether joining helps each hospital: result.json's `shift`.

A cell of the matrix is a model at a site: the headline metric on the site's held-out patients, or
why there is none. The benefit of a site is the federated model minus the site's own, turned so that
more is better, with a paired bootstrap interval by patient that the site has worked out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean, pstdev
from typing import Any

import numpy as np
from scipy.stats import rankdata

from common.contract import LOCAL, OTHERS, Estimate
from common.tasks.task import Metric
from server.records import Estimates, Outcome, Progress, RoundRecord

FEDERATED, POOLED, ENSEMBLE = "federated", "pooled", "ensemble"
HELPED, HARMED, UNDECIDED, UNKNOWN = "helped", "harmed", "undecided", "unknown"
OK, SUPPRESSED, FAILED, REFUSED = "ok", "suppressed", "failed", "refused"
Cell = dict[str, Any]
"""value, low, high, n, status; also `why` where there is no value."""


def shift_of(progress: Progress, outcome: Outcome, name: str, metric: Metric) -> dict[str, Any]:
    """Return matrix, benefit and summary of the metric of this name."""
    sites = sorted({*progress.roster, *outcome.final_missing, *progress.absent})
    models = [FEDERATED, *(m for m in OTHERS if any(m in of for of in outcome.others.values()))]
    matrix = {
        model: {site: _cell(progress, outcome, model, site, name) for site in sites}
        for model in models
    }
    return {
        "metric": name,
        "matrix": matrix,
        "benefit": {site: benefit_of(outcome.gains.get(site, {}), name, metric) for site in sites},
        "summary": {model: summary_of(cells, metric) for model, cells in matrix.items()},
        "concordance": concordance(matrix),
        "reliability": {
            site: [asdict(point) for point in curve] for site, curve in outcome.reliability.items()
        },
    }


def _cell(progress: Progress, outcome: Outcome, model: str, site: str, name: str) -> Cell:
    found = outcome.final if model == FEDERATED else _of_model(outcome, model)
    estimate = found.get(site, {}).get(name)
    why = {**progress.absent, **outcome.final_missing}.get(site)
    if model != FEDERATED:
        why = outcome.not_compared.get(site, why)
    if why is None or estimate is not None:
        return _told(estimate)
    return _without(why)


def _of_model(outcome: Outcome, model: str) -> Estimates:
    return {site: of_site.get(model, {}) for site, of_site in outcome.others.items()}


def _without(why: str) -> Cell:
    return _empty(REFUSED if why.startswith("policy:") else FAILED, why)


def _empty(status: str, why: str) -> Cell:
    return {"value": None, "low": None, "high": None, "n": 0, "status": status, "why": why}


def with_models(
    shift: Mapping[str, Any], rows: Mapping[str, Mapping[str, Cell]], metric: Metric
) -> dict[str, Any]:
    """Return the shift with more models; rows: their cells by model and site."""
    matrix, summary = {**shift["matrix"], **rows}, dict(shift["summary"])
    for model, cells in rows.items():
        summary[model] = summary_of(cells, metric)
    gaps = _gaps_to_pooled(summary, metric)
    return {
        **shift,
        "matrix": matrix,
        "summary": {model: {**of, "gap_to_pooled": gaps[model]} for model, of in summary.items()},
        "concordance": concordance(matrix),
    }


def cells_of(found: Estimates, sites: Iterable[str], name: str) -> dict[str, Cell]:
    """Return a model's cells from its estimates; a site without one is suppressed."""
    return {site: _told(found.get(site, {}).get(name)) for site in sites}


def cells_of_result(result: Mapping[str, Any], sites: Iterable[str], name: str) -> dict[str, Cell]:
    """Return the cells of a model that had a study of its own, from its result.json."""
    final, cells = result["final"], {}
    for site in sites:
        told = final["sites"].get(site, {}).get(name)
        why = final["missing"].get(site)
        if why is None and site not in result["sites"]:
            why = result["reason"] or "it took no part"
        estimate = None if told is None else Estimate(**told)
        cells[site] = _told(estimate) if why is None else _without(why)
    return cells


def subgroups_of(
    groups: Sequence[str], sites: Iterable[str], outcome: Outcome, name: str
) -> dict[str, dict[str, Cell]]:
    """Return the final model's cell by subgroup and site; a site that tells none is suppressed."""
    told = outcome.subgroups
    return {
        group: {site: _told(told.get(site, {}).get(group, {}).get(name)) for site in sites}
        for group in groups
    }


def _gaps_to_pooled(
    summary: Mapping[str, Mapping[str, Any]], metric: Metric
) -> dict[str, float | None]:
    """Return by how much each model's mean is better than that of all data put together."""
    sign = 1.0 if metric.higher_is_better else -1.0
    best = summary.get(POOLED, {}).get("mean")
    known = {model: of["mean"] for model, of in summary.items()}
    return {
        model: None if best is None or value is None else sign * (value - best)
        for model, value in known.items()
    }


def concordance(matrix: Mapping[str, Mapping[str, Cell]]) -> float | None:
    """Return how far the sites agree on which model is better: 1 if all rank them alike, 0 if not.

    Kendall's W (Kendall and Babington Smith, Ann. Math. Stat. 1939, with their correction for ties)
    over the sites where every model has a value; None for fewer than two sites or models.
    """
    sites = [s for s in next(iter(matrix.values()), {}) if all(s in of for of in matrix.values())]
    known = [s for s in sites if all(of[s]["status"] == OK for of in matrix.values())]
    if len(known) < 2 or len(matrix) < 2:
        return None
    ranks_SM = np.array([rankdata([of[s]["value"] for of in matrix.values()]) for s in known])
    count, models = ranks_SM.shape
    alike = [np.unique(ranks_M, return_counts=True)[1] for ranks_M in ranks_SM]
    tied = sum(float(np.sum(counts**3 - counts)) for counts in alike)
    sums_M = ranks_SM.sum(0)
    most = count**2 * (models**3 - models) - count * tied
    return float(12 * np.sum((sums_M - sums_M.mean()) ** 2) / most) if most else None


def _told(estimate: Estimate | None) -> Cell:
    if estimate is None or estimate.value is None:
        return _empty(SUPPRESSED, "too few patients to tell, or the metric is not defined for them")
    return {**asdict(estimate), "status": OK}


def benefit_of(
    gains: Mapping[str, Mapping[str, Estimate]], name: str, metric: Metric
) -> dict[str, Any]:
    """Return what the federation is to a site beside its own model.

    verdict: helped or harmed where the interval lies on one side of 0, undecided where it does not
    or there is none, unknown where the site has no model of its own or told nothing.
    """
    gain = gains.get(LOCAL, {}).get(name)
    if gain is None or gain.value is None:
        return {"gap": None, "low": None, "high": None, "verdict": UNKNOWN}
    sign = 1.0 if metric.higher_is_better else -1.0
    ends = [sign * end for end in (gain.low, gain.high) if end is not None]
    low, high = (min(ends), max(ends)) if len(ends) == 2 else (None, None)
    verdict = UNDECIDED
    if low is not None and high is not None and (low > 0 or high < 0):
        verdict = HELPED if low > 0 else HARMED
    return {"gap": sign * gain.value, "low": low, "high": high, "verdict": verdict}


def benefit_after(
    progress: Progress, outcome: Outcome, name: str, metric: Metric
) -> dict[str, dict[str, float]]:
    """Return by round and site by how much the model after it is better than the site's own.

    The site's own is that of the study's end, so that a site sees after how many rounds joining
    begins to help. Empty where no site told of a model of its own.
    """
    sign = 1.0 if metric.higher_is_better else -1.0
    own = {site: of.get(LOCAL, {}).get(name) for site, of in outcome.others.items()}
    models = {record.round - 1: _before(record) for record in progress.rounds}
    models |= {0: progress.initial, len(progress.rounds): outcome.final}
    found: dict[str, dict[str, float]] = {}
    for number, told in sorted(models.items()):
        for site, mine in sorted(own.items()):
            ours = told.get(site, {}).get(name)
            values = [of.value for of in (ours, mine) if of is not None and of.value is not None]
            if len(values) == 2:
                found.setdefault(str(number), {})[site] = sign * (values[0] - values[1])
    return found


def _before(record: RoundRecord) -> Estimates:
    return {site: part.before for site, part in record.sites.items()}


def summary_of(cells: Mapping[str, Cell], metric: Metric) -> dict[str, Any]:
    """Return mean, worst site and spread (standard deviation) of a model over the sites."""
    values = {site: cell["value"] for site, cell in cells.items() if cell["status"] == OK}
    if not values:
        return {"mean": None, "worst": None, "worst_site": None, "spread": None, "sites": 0}
    worst = _worst(values.items(), metric)
    return {
        "mean": mean(values.values()),
        "worst": values[worst],
        "worst_site": worst,
        "spread": pstdev(values.values()),
        "sites": len(values),
    }


def _worst(values: Iterable[tuple[str, float]], metric: Metric) -> str:
    pick = min if metric.higher_is_better else max
    return pick(values, key=lambda item: item[1])[0]
