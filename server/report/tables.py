"""The rows of the report's tables."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.report.drawing import Points
from server.report.reading import (
    Result,
    before,
    estimate,
    estimates,
    higher_is_better,
    is_private,
    last_exposure,
    mean,
    site_names,
)
from server.report.words import data_size, duration, number, plain, ranges

MOST_ROUNDS = 25
"""Of a chart that is told as a table."""
_BASELINES = {
    "pooled": "one model trained on all sites' data put together",
    "local": "each site's own model, trained alone",
    "ensemble": "the mean prediction of all sites' own models",
}


@dataclass(frozen=True)
class Figure:
    """One key figure: its name, its value, one line about it."""

    name: str
    value: str
    about: str


@dataclass(frozen=True)
class SiteRow:
    """One site, before and after."""

    name: str
    is_worst: bool
    about: Mapping[str, Any] | None
    """Its counts; None where it never introduced itself."""
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    change: float | None
    epsilon: float | None


@dataclass(frozen=True)
class RoundRow:
    """One round."""

    round: int
    participants: list[str]
    missing: list[str]
    before: float | None
    """Mean of the headline metric of the incoming model."""
    train_loss: float | None
    seconds: float
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class MissingRow:
    """When a site did not answer, and why."""

    site: str
    rounds: str
    why: str


@dataclass(frozen=True)
class PrivacyRow:
    """One site's account, and what it means for a patient there."""

    site: str
    account: Mapping[str, Any]
    best_guess: float
    """Largest chance to guess rightly, from a 50:50 start, whether a patient took part."""


@dataclass(frozen=True)
class BaselineRow:
    """One way to train, beside the federated model."""

    name: str
    about: str
    mean: float | None
    worst: float | None
    gain: float | None
    """How much better its mean is than the federated model's; below zero: worse."""


def key_figures(result: Result) -> list[Figure]:
    """Return what a reader asks first."""
    headline, final = result["headline"], result.get("final") or {}
    start = (result.get("initial") or {}).get("mean") or {}
    worst_site = (final.get("worst_site") or {}).get(headline) or "no site"
    planned = result["study"].get("rounds", len(result["rounds"]))
    return [
        Figure(
            f"Mean {headline}",
            number((final.get("mean") or {}).get(headline)),
            f"before training: {number(start.get(headline))}",
        ),
        Figure(
            f"Worst site's {headline}",
            number((final.get("worst") or {}).get(headline)),
            worst_site,
        ),
        _exposure(result),
        Figure("Rounds", f"{len(result['rounds'])} of {planned}", _effort(result)),
        Figure("Sites", str(len(site_names(result))), _patients(result)),
    ]


def _exposure(result: Result) -> Figure:
    exposure = last_exposure(result)
    if exposure is None:
        about = "no account yet" if is_private(result) else "no differential privacy"
        return Figure("Epsilon", "not known" if is_private(result) else "no bound", about)
    site, epsilon = exposure
    account = result["privacy"][site]
    about = f"most exposed site: {site}; delta {number(account['delta'])} per {account['unit']}"
    return Figure("Epsilon", number(epsilon), about)


def _effort(result: Result) -> str:
    parts = [part for record in result["rounds"] for part in record["sites"].values()]
    moved = sum(part["bytes_sent"] + part["bytes_received"] for part in parts)
    return f"{duration(result.get('seconds'))}, {data_size(moved)} of weights moved"


def _patients(result: Result) -> str:
    roster = (result.get("sites") or {}).values()
    train = sum(about["patients_train"] for about in roster)
    held_out = sum(about["patients_held_out"] for about in roster)
    return f"{train} patients trained on, {held_out} held out"


def site_rows(result: Result) -> list[SiteRow]:
    """Return one row a site, by name."""
    headline, final = result["headline"], result.get("final") or {}
    worst = (final.get("worst_site") or {}).get(headline)
    rows = []
    for name in site_names(result):
        start = estimate(estimates(result, "initial").get(name), headline)
        end = estimate(estimates(result, "final").get(name), headline)
        known = start["value"] is not None and end["value"] is not None
        account = (result.get("privacy") or {}).get(name) or {}
        rows.append(
            SiteRow(
                name=name,
                is_worst=name == worst,
                about=(result.get("sites") or {}).get(name),
                before=start,
                after=end,
                change=end["value"] - start["value"] if known else None,
                epsilon=account.get("epsilon"),
            )
        )
    return rows


def round_rows(result: Result) -> list[RoundRow]:
    """Return one row a round, in order."""
    rows = []
    for record in result["rounds"]:
        parts = record["sites"]
        rows.append(
            RoundRow(
                round=record["round"],
                participants=sorted(record["participants"]),
                missing=sorted(record["missing"]),
                before=mean(before(record, site, result["headline"]) for site in parts),
                train_loss=mean(part["train_loss"] for part in parts.values()),
                seconds=record["seconds"],
                bytes_sent=sum(part["bytes_sent"] for part in parts.values()),
                bytes_received=sum(part["bytes_received"] for part in parts.values()),
            )
        )
    return rows


def missing_rows(result: Result) -> list[MissingRow]:
    """Return one row for each site and reason, with the rounds that it holds for."""
    rounds: dict[tuple[str, str], list[int]] = {}
    for record in result["rounds"]:
        for site, why in record["missing"].items():
            rounds.setdefault((site, why), []).append(record["round"])
    rows = [MissingRow(site, ranges(when), why) for (site, why), when in rounds.items()]
    last = (result.get("final") or {}).get("missing") or {}
    rows += [MissingRow(site, "final evaluation", why) for site, why in last.items()]
    return sorted(rows, key=lambda row: (row.site, row.rounds))


def privacy_rows(result: Result) -> list[PrivacyRow]:
    """Return one row a site, the most exposed first; none without differential privacy."""
    accounts = (result.get("privacy") or {}).items()
    by_exposure = sorted(accounts, key=lambda item: (-item[1]["epsilon"], item[0]))
    return [
        PrivacyRow(site, about, best_guess(about["epsilon"], about["delta"]))
        for site, about in by_exposure
    ]


def best_guess(epsilon: float, delta: float) -> float:
    """Return the largest accuracy of an attacker who must tell whether a patient took part.

    (e^epsilon + delta) / (1 + e^epsilon), from even odds: the best point of the region of
    Kairouz, Oh, Viswanath, "The composition theorem for differential privacy", ICML 2015, Thm 2.1.
    """
    shrink = math.exp(-epsilon)
    return min(1.0, (1 + delta * shrink) / (1 + shrink))


def baseline_rows(result: Result) -> list[BaselineRow]:
    """Return the federated model and, below it, the baselines that were run; none without any."""
    headline = result["headline"]
    runs: dict[str, Any] = dict(result.get("baselines") or {})
    if not runs:
        return []
    sign = 1 if higher_is_better(result, headline) else -1
    reference = ((result.get("final") or {}).get("mean") or {}).get(headline)
    rows = []
    for name, run in {"federated": result.get("final") or {}, **runs}.items():
        value = (run.get("mean") or {}).get(headline)
        gain: float | None = None
        if value is not None and reference is not None and name != "federated":
            gain = sign * (value - reference)
        about = _BASELINES.get(name, "this run's model")
        rows.append(BaselineRow(name, about, value, (run.get("worst") or {}).get(headline), gain))
    return rows


def rows_of(lines: Mapping[str, Points]) -> list[tuple[int, list[float | None]]]:
    """Return what a chart over the rounds shows as rows: a round, and every line's value after it.

    Of many rounds some, the first and the last among them.
    """
    values = {name: dict(points) for name, points in lines.items()}
    rounds = sorted({x for of in values.values() for x in of})
    step = max(1, math.ceil(len(rounds) / MOST_ROUNDS))
    shown = [*rounds[:-1:step], *rounds[-1:]]
    return [(round(x), [of.get(x) for of in values.values()]) for x in shown]


def settings(study: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting of the study as its dotted name and its value."""
    for name, value in study.items():
        if isinstance(value, Mapping) and value:
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield prefix + name, plain(value)
