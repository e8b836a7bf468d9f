"""A result.json with all that a comparison of sites can tell, by the functions that write it."""

import json
from typing import Any

import numpy as np

from common.contract import Description, Estimate, Profile, Reliability
from common.profile import sizes_of
from common.study import Study
from common.subgroups import groups_of
from common.tasks.registry import build_task
from server.evaluation.checked import subgroups_asked
from server.evaluation.comparison import comparison_of
from server.evaluation.left_out import row_of, with_left_out
from server.evaluation.shift import cells_of, with_models
from server.records import Outcome, Progress, RoundRecord, SiteRound, result_of
from tests.builders import SLICES, study_from

SITES = ("st-a", "st-b", "st-c", "st-d", "st-e")
ROUNDS = 12
ASKED = (
    *SLICES,
    "evaluation=shift",
    "evaluation.profile_every=2",
    "evaluation.subgroups={sex: [F, M]}",
    f"rounds={ROUNDS}",
)


def compared_result() -> dict[str, Any]:
    """Return the result of five sites as it is read from its file; its numbers are of a seed."""
    study, draws = study_from(*ASKED), np.random.default_rng(7)
    metrics = build_task(study.task).metrics
    name = study.task.headline
    progress, outcome = _progress(study, draws), _outcome(study, draws)
    result = result_of(study, progress, outcome, metrics)
    shift = comparison_of(study, progress, outcome, metrics[name])
    beside = {
        model: cells_of(_of_sites(name, draws), SITES, name) for model in ("pooled", "local/st-a")
    }
    result["shift"] = with_models(shift, beside, metrics[name])
    without = {site: _turn(result, draws) for site in SITES}
    rows = [row_of(s, result, turn, _estimate(draws, -0.5)) for s, turn in without.items()]
    whole: dict[str, Any] = json.loads(json.dumps(with_left_out(result, rows, without)))
    return whole


def _turn(result: dict[str, Any], draws: np.random.Generator) -> dict[str, Any]:
    found = _of_sites(result["headline"], draws)
    told = {site: {name: vars(e) for name, e in of.items()} for site, of in found.items()}
    return {**result, "final": {"sites": told, "missing": {}}}


def _estimate(draws: np.random.Generator, low: float = 0.2) -> Estimate:
    value = float(draws.uniform(low, 0.9))
    half = float(draws.uniform(0.01, 0.1))
    return Estimate(value=value, low=value - half, high=value + half, n=int(draws.integers(3, 400)))


def _of_sites(name: str, draws: np.random.Generator) -> dict[str, dict[str, Estimate]]:
    return {site: {name: _estimate(draws)} for site in SITES}


def _profile(study: Study, draws: np.random.Generator) -> Profile:
    parts = {n: draws.uniform(0, 0.1, size).tolist() for n, size in sizes_of(study).items()}
    return Profile(patients=int(draws.integers(10, 90)), noise_std=1e-3, parts=parts)


def _progress(study: Study, draws: np.random.Generator) -> Progress:
    counts = {"patients_train": 9, "patients_held_out": 9, "images_train": 9, "bad_files": 0}
    name = study.task.headline

    def told() -> SiteRound:
        before = {name: _estimate(draws)}
        return SiteRound(
            seconds=1, bytes_sent=1, bytes_received=1, steps=1, train_loss=0.5, before=before,
            privacy=None, weight=9.0,
        )  # fmt: skip

    records = [
        RoundRecord(
            round=number,
            seconds=1,
            participants=list(SITES),
            missing={},
            sites={site: told() for site in SITES},
        )
        for number in range(1, ROUNDS + 1)
    ]
    return Progress(
        roster={site: Description(site=site, **counts) for site in SITES},
        rounds=records,
        initial=_of_sites(name, draws),
        profiles={n: {site: _profile(study, draws) for site in SITES} for n in (2, 4, 10)},
    )


def _outcome(study: Study, draws: np.random.Generator) -> Outcome:
    name = study.task.headline
    groups = groups_of(subgroups_asked(study))
    points = [
        Reliability(confidence=c, accuracy=float(draws.uniform(0.4, 0.9)), patients=12)
        for c in (0.6, 0.85)
    ]
    return Outcome(
        status="completed",
        reason=None,
        final=_of_sites(name, draws),
        others={site: {"local": {name: _estimate(draws)}} for site in SITES},
        gains={site: {"local": {name: _estimate(draws, -0.5)}} for site in SITES},
        reliability=dict.fromkeys(SITES, points),
        subgroups={s: {group: {name: _estimate(draws)} for group in groups} for s in SITES},
        profiles={site: _profile(study, draws) for site in SITES},
    )
