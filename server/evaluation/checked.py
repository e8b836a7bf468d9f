"""What a site tells of a model is held against what the task's metrics can be."""

from collections.abc import Mapping

from common.contract import OTHERS, Estimate, EvaluateReply, TrainReply
from common.study import Study
from common.subgroups import Subgroups, groups_of
from common.tasks.task import Metric

ROUNDING = 1e-9
MOST_POINTS = 100


def impossible(
    reply: TrainReply | EvaluateReply, study: Study, metrics: Mapping[str, Metric]
) -> str | None:
    """Return what in a reply's estimates cannot be, or None. metrics: those of the study's task."""
    ranges = {name: (metric.low, metric.high) for name, metric in metrics.items()}
    found = _first(reply.estimates, ranges)
    if isinstance(reply, TrainReply):
        return found or _first(reply.trained, ranges)
    spans = {name: (low - high, high - low) for name, (low, high) in ranges.items()}
    for told, allowed in ((reply.others, ranges), (reply.gains, spans)):
        if not set(told) <= set(OTHERS):
            return "it tells of a model that no site has"
        for estimates in told.values():
            found = found or _first(estimates, allowed)
    if not set(reply.subgroups) <= set(groups_of(subgroups_asked(study))):
        return "it tells of a subgroup that the study does not name"
    shares = [share for of in reply.reliability for share in (of.confidence, of.accuracy)]
    if any(not 0 <= share <= 1 for share in shares) or len(reply.reliability) > MOST_POINTS:
        return "it tells of a reliability that is not possible"
    for estimates in reply.subgroups.values():
        found = found or _first(estimates, ranges)
    return found


def subgroups_asked(study: Study) -> Subgroups:
    """Return the subgroups that a study names."""
    return study.evaluation.subgroups_asked if study.evaluation is not None else {}


def _first(
    estimates: Mapping[str, Estimate], ranges: Mapping[str, tuple[float, float]]
) -> str | None:
    for name, estimate in estimates.items():
        if name not in ranges:
            return f"it tells of a metric {name!r} that the task does not have"
        low, high = ranges[name]
        for value in (estimate.value, estimate.low, estimate.high):
            if value is not None and not low - ROUNDING <= value <= high + ROUNDING:
                return f"it tells a {name} of {value:g}, which is not from {low:g} to {high:g}"
    return None
