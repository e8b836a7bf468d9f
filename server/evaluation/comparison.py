"""All that result.json's `shift` tells when the rounds are over: benefit, subgroups, distances."""

from typing import Any

from common.study import Study
from common.subgroups import groups_of
from common.tasks.task import Metric
from server.evaluation.alarm import alarm_of
from server.evaluation.checked import subgroups_asked
from server.evaluation.prediction import over_time, told_by_profiles
from server.evaluation.shift import benefit_after, shift_of, subgroups_of, summary_of
from server.records import Outcome, Progress


def comparison_of(
    study: Study, progress: Progress, outcome: Outcome, metric: Metric
) -> dict[str, Any]:
    """Return the content of `shift` (docs/result.md). metric: the study's headline."""
    name = study.task.headline
    told = {site: estimates.get(name) for site, estimates in outcome.final.items()}
    values = {s: e.value for s, e in told.items() if e is not None and e.value is not None}
    shift = shift_of(progress, outcome, name, metric)
    benefits = benefit_after(progress, outcome, name, metric)
    return {
        **shift,
        **({"benefit_after": benefits} if benefits else {}),
        **_subgroups(study, list(shift["benefit"]), outcome, metric),
        **told_by_profiles(outcome.profiles, values, study, metric),
        **over_time(progress.profiles, study),
        **_alarm(study, progress, outcome),
    }


def _alarm(study: Study, progress: Progress, outcome: Outcome) -> dict[str, Any]:
    told = {**progress.profiles, study.rounds: outcome.profiles}
    found = alarm_of(told, study, len(progress.roster))
    return {"alarm": found} if found else {}


def _subgroups(study: Study, sites: list[str], outcome: Outcome, metric: Metric) -> dict[str, Any]:
    groups = groups_of(subgroups_asked(study))
    if not groups:
        return {}
    found = subgroups_of(groups, sites, outcome, study.task.headline)
    summaries = {group: summary_of(cells, metric) for group, cells in found.items()}
    return {"subgroups": found, "subgroup_summary": summaries}
