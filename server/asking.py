"""What a run asks of its sites besides updates: metrics of a model, and how their images look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.contract import Description, EvaluateReply, PrivacySpent, Profile
from common.control import parted
from common.profile import impossible_profile, sizes_of
from common.state import State
from common.study import Study
from common.tasks.registry import build_task
from server.calls import Missing
from server.evaluation.alarm import changes_of
from server.evaluation.checked import impossible
from server.events import Tell
from server.network import Federation
from server.records import Estimates
from server.strategy import Strategy


@dataclass(frozen=True)
class Run:
    """One run of a study: what does not change from round to round."""

    study: Study
    federation: Federation
    strategy: Strategy
    folder: Path
    tell: Tell


def evaluations(
    run: Run,
    sites: Sequence[str],
    number: int,
    model: State,
    missing: dict[str, str],
    compare: bool = False,
) -> dict[str, EvaluateReply]:
    """Return what the sites tell of a model, where they tell its metrics; note who is missing."""
    found: dict[str, EvaluateReply] = {}
    limits, metrics = run.study.strategy, build_task(run.study.task).metrics
    weights, _ = parted(model)
    for site, answer in run.federation.evaluate(sites, number, weights, limits, compare):
        if not isinstance(answer, Missing):
            why = impossible(answer, run.study, metrics)
            answer = answer if why is None else Missing(why)
        if isinstance(answer, Missing):
            missing[site] = answer.reason
        elif answer.estimates:
            found[site] = answer
    return found


def estimates_of(answers: Mapping[str, EvaluateReply]) -> Estimates:
    """Return the metrics of the answers."""
    return {site: answer.estimates for site, answer in answers.items()}


def tell_measured(run: Run, trained: int, estimates: Estimates) -> None:
    """Tell the headline metric at every site, of the model after so many rounds."""
    name = run.study.task.headline
    told = {site: of[name].value for site, of in sorted(estimates.items()) if name in of}
    run.tell("measured", round=trained, metric=name, values=told)


def profiled(
    run: Run,
    sites: Sequence[str],
    number: int,
    model: State,
    roster: Mapping[str, Description],
    spent: dict[str, PrivacySpent],
) -> dict[str, Profile]:
    """Return how the sites' images look to the model after a round; a silent site has no place."""
    weights, _ = parted(model)
    asked = run.federation.evaluate(sites, number, weights, run.study.strategy, compare=True)
    answers = {s: answer for s, answer in asked if not isinstance(answer, Missing)}
    spent |= {site: of.privacy for site, of in answers.items() if of.privacy is not None}
    return profiles_of(run, answers, roster)


def profiles_of(
    run: Run, answers: Mapping[str, EvaluateReply], roster: Mapping[str, Description]
) -> dict[str, Profile]:
    """Return the profiles that can be; one that cannot costs its own site its place on the map."""
    asked = run.study.evaluation is not None and run.study.evaluation.profile
    found = {}
    for site, answer in answers.items():
        if answer.profile is None or not asked:
            continue
        why = impossible_profile(answer.profile, sizes_of(run.study), roster[site])
        if why is None:
            found[site] = answer.profile
        else:
            run.tell("profile refused", site=site, why=why)
    return found


def tell_changed(run: Run, profiles: Mapping[int, Mapping[str, Profile]], sites: int) -> None:
    """Tell whose images the newest profiles show to be others than those of the first."""
    for site, change in changes_of(profiles, run.study, sites).items():
        if change.round == max(profiles):
            run.tell("changed", site=site, round=change.round, since=change.first)
