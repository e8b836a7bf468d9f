"""What a run remembers of its rounds, and the result that it tells at the end.

result.json is the page docs/result.md; its version is SCHEMA_VERSION.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from common.config import canonical, study_digest
from common.contract import Description, Estimate, PrivacySpent, Profile, Reliability
from common.study import Study
from common.tasks.task import Metric
from common.tasks.tempered import best_temperature
from server.aggregation import named_means

SCHEMA_VERSION = 1

Estimates = dict[str, dict[str, Estimate]]
"""Estimates by site and metric."""


@dataclass(frozen=True, kw_only=True)
class SiteRound:
    """One site's part in one round."""

    seconds: float
    """Time the site worked."""
    bytes_sent: int
    """Weights that left the site."""
    bytes_received: int
    """Weights that reached the site."""
    steps: int
    train_loss: float | None
    before: dict[str, Estimate]
    """The round's incoming model on the site's held-out patients; empty where not asked."""
    privacy: PrivacySpent | None
    weight: float
    """What the update counted for in the mean."""
    after: dict[str, Estimate] = field(default_factory=dict)
    """The site's own update there; empty unless the study weights by it."""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round: who took part, who did not and why."""

    round: int
    seconds: float
    participants: list[str]
    missing: dict[str, str]
    sites: dict[str, SiteRound]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A run up to its last full round; what a checkpoint holds besides tensors."""

    roster: dict[str, Description] = field(default_factory=dict)
    """Every site that introduced itself."""
    rounds: list[RoundRecord] = field(default_factory=list)
    best_round: int | None = None
    """The round after which the evaluated model was best by the headline metric."""
    best_value: float | None = None
    absent: dict[str, str] = field(default_factory=dict)
    """Agreed sites that did not introduce themselves, and why."""
    initial: Estimates = field(default_factory=dict)
    """The untrained model, by site."""
    profiles: dict[int, dict[str, Profile]] = field(default_factory=dict)
    """By round and site: how the images looked to the model after it, where that was asked."""
    spent: dict[str, PrivacySpent] = field(default_factory=dict)
    """The last account that a site told, also with an update that was not accepted."""


ProgressAdapter = TypeAdapter(Progress)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    status: str
    """completed: every agreed site in every round that asked it; partial: the model is there, but a
    site was missing somewhere; failed: no final model; stopped: by the coordinator."""
    reason: str | None
    final: Estimates = field(default_factory=dict)
    final_missing: dict[str, str] = field(default_factory=dict)
    others: dict[str, Estimates] = field(default_factory=dict)
    """By site: its own models' metrics, by model; empty where the study does not compare."""
    gains: dict[str, Estimates] = field(default_factory=dict)
    """By site and model: the final model's metrics minus that model's."""
    not_compared: dict[str, str] = field(default_factory=dict)
    """By site: why it told nothing of models of its own."""
    reliability: dict[str, list[Reliability]] = field(default_factory=dict)
    """By site: the final model's curve, where it told one."""
    subgroups: dict[str, Estimates] = field(default_factory=dict)
    """By site and subgroup: the final model's metrics."""
    profiles: dict[str, Profile] = field(default_factory=dict)
    """By site: how its images look, where it told."""


def outcome_of(progress: Progress, final: Estimates, final_missing: dict[str, str]) -> Outcome:
    """Return the truthful status of a run whose rounds are all done."""
    lost = {site: reason for record in progress.rounds for site, reason in record.missing.items()}
    lost = {**progress.absent, **lost, **final_missing}
    reason = "; ".join(f"{site}: {why}" for site, why in sorted(lost.items())) or None
    return Outcome(
        status="partial" if lost else "completed",
        reason=reason,
        final=final,
        final_missing=final_missing,
    )


def result_of(
    study: Study, progress: Progress, outcome: Outcome, metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """Return the content of result.json."""
    headline = study.task.headline
    return {
        "schema_version": SCHEMA_VERSION,
        "status": outcome.status,
        "reason": outcome.reason,
        "study": json.loads(canonical(study)),
        "study_digest": study_digest(study),
        "headline": headline,
        "metrics": {name: asdict(metric) for name, metric in metrics.items()},
        "sites": {site: asdict(about) for site, about in sorted(progress.roster.items())},
        "rounds": [asdict(record) for record in progress.rounds],
        "initial": summary(progress.initial, metrics),
        "final": {**summary(outcome.final, metrics), "missing": outcome.final_missing},
        **_temperature(study, outcome.final),
        "best": {"round": progress.best_round, "value": progress.best_value},
        "privacy": privacy_of(progress),
        "seconds": sum(record.seconds for record in progress.rounds),
        "software": {name: version(name) for name in ("wardround", "torch", "monai", "flwr")},
    }


def _temperature(study: Study, final: Estimates) -> dict[str, Any]:
    """Return the temperature that is best for the sites' patients; nothing where none is asked."""
    asked = getattr(study.task, "temperatures", None)
    if asked is None:
        return {}
    told = {
        site: {name: (e.value, e.n) for name, e in of.items() if e.value is not None}
        for site, of in final.items()
    }
    best = best_temperature(told, asked)
    return {} if best is None else {"temperature": {"value": best[0], "nll": best[1]}}


def privacy_of(progress: Progress) -> dict[str, Any]:
    """Return the last account that each site told; empty without differential privacy."""
    return {site: asdict(spent) for site, spent in sorted(progress.spent.items())}


def spent_by(progress: Progress) -> dict[str, float]:
    """Return the epsilon that each site told last; empty without differential privacy."""
    return {site: spent.epsilon for site, spent in sorted(progress.spent.items())}


def told_of_round(progress: Progress) -> dict[str, Any]:
    """Return what the log of events tells of the last full round: a few numbers a site."""
    record = progress.rounds[-1]
    return {
        "round": record.round,
        "seconds": record.seconds,
        "sites": {
            site: {
                "seconds": part.seconds,
                "bytes_sent": part.bytes_sent,
                "bytes_received": part.bytes_received,
                "train_loss": part.train_loss,
            }
            for site, part in record.sites.items()
        },
        "missing": record.missing,
        "epsilon": spent_by(progress),
    }


def summary(estimates: Estimates, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Return mean and worst over the sites, and every site's estimates."""
    values = {
        site: {name: estimate.value for name, estimate in of_site.items()}
        for site, of_site in sorted(estimates.items())
    }
    worst: dict[str, float | None] = {}
    worst_site: dict[str, str | None] = {}
    for name, metric in metrics.items():
        defined = [(v, s) for s, of_site in values.items() if (v := of_site.get(name)) is not None]
        pick = min if metric.higher_is_better else max
        value, site = pick(defined) if defined else (None, None)
        worst[name], worst_site[name] = value, site
    return {
        "mean": named_means(values),
        "worst": worst,
        "worst_site": worst_site,
        "sites": {
            site: {name: asdict(estimate) for name, estimate in of_site.items()}
            for site, of_site in sorted(estimates.items())
        },
    }
