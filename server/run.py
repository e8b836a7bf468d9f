"""The rounds of one study: ask, combine, step, save, tell; then the result."""

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from common import finished
from common.config import study_digest
from common.contract import (
    PrivacySpent,
    StudyReference,
)
from common.control import parted, with_zero_controls
from common.files import write_json
from common.models.fit import check_fits
from common.models.initial import start_network
from common.models.registry import local_names
from common.models.trained import frozen_names
from common.profile import profiled_between
from common.seeding import seed
from common.state import State, state_of
from common.study import Study
from common.tasks.registry import build_task
from common.tensor_files import write_tensors
from server.accepting import accepted, training_sites
from server.aggregation import named_means
from server.asking import (
    Run,
    estimates_of,
    evaluations,
    profiled,
    profiles_of,
    tell_changed,
    tell_measured,
)
from server.calls import StopError
from server.checkpoint import Checkpoint, check_beginning, load_checkpoint, save_checkpoint
from server.evaluation.comparison import comparison_of
from server.events import Tell
from server.network import Federation
from server.records import (
    Estimates,
    Outcome,
    Progress,
    RoundRecord,
    SiteRound,
    outcome_of,
    result_of,
    spent_by,
    told_of_round,
)
from server.stepping import stepped
from server.strategy import Strategy

RESULT, MODEL, BEST = finished.RESULT, finished.MODEL, "best.safetensors"


class QuorumError(RuntimeError):
    """Too few sites handed in an update. The last checkpoint stands; what was spent is spent."""

    def __init__(self, text: str, spent: Mapping[str, PrivacySpent]) -> None:
        super().__init__(text)
        self.spent = dict(spent)


def run_study(
    study: Study, federation: Federation, agreed: Sequence[str], folder: Path, tell: Tell
) -> Outcome:
    """Train until the study's last round, from the folder's checkpoint if there is one.

    Writes checkpoint, result.json and the models into the folder. A failure is a result too:
    it is written before this returns.

    Raises:
        ValueError: a site that is to be tested was not agreed.
    """
    check_sites(study, agreed)
    digest = study_digest(study)
    trained, kept = _begun(study, digest)
    run = Run(study, federation, Strategy(study.strategy, study.seed, trained), folder, tell)
    begun = load_checkpoint(folder, digest)
    check_beginning(study, begun)
    kept = begun or kept
    tell("start", rounds=study.rounds, done=kept.rounds_done)
    try:
        kept = _enrolled(run, kept, agreed)
        while kept.rounds_done < study.rounds and study.model.members is None:
            kept, headline = _round(run, kept)
            save_checkpoint(folder, kept)
            tell("round done", **told_of_round(kept.progress), **headline)
        outcome = _finished(run, kept)
    except QuorumError as error:
        kept = load_checkpoint(folder, digest) or kept
        kept = replace(kept, progress=replace(kept.progress, spent=error.spent))
        save_checkpoint(folder, kept)
        outcome = Outcome(status="failed", reason=str(error))
    except StopError:
        kept = load_checkpoint(folder, digest) or kept
        outcome = Outcome(status="stopped", reason="the coordinator stopped the study")
    _write(run, kept, outcome)
    return outcome


def check_sites(study: Study, agreed: Sequence[str]) -> None:
    """Raise ValueError if a site that the study names was not agreed."""
    strange = sorted(set(study.strategy.tested or []) - set(agreed))
    if strange:
        raise ValueError(
            f"strategy.tested={strange} names no site of this study; choose from: "
            f"{', '.join(sorted(agreed))}"
        )


def initial_network(study: Study) -> nn.Module:
    """Return the study's untrained network: the same bytes at every place.

    Raises:
        ValueError: it does not take the study's images.
    """
    check_fits(study)
    return start_network(study)


def shared_state(study: Study, network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that travel: all but what a site keeps for itself or nothing trains."""
    stays = local_names(network, study.model) | frozen_names(network)
    return {name: tensor for name, tensor in state_of(network).items() if name not in stays}


def _whole(study: Study, weights: State) -> State:
    """Return the model's tensors with those that nothing trains, which never travelled."""
    if study.model.trained is None and study.model.lora_rank is None:
        return weights
    network = initial_network(study)
    frozen = frozen_names(network)
    return {**{n: t for n, t in state_of(network).items() if n in frozen}, **weights}


def _begun(study: Study, digest: str) -> tuple[frozenset[str], Checkpoint]:
    network = initial_network(study)
    state = shared_state(study, network)
    trained = frozenset(name for name, _ in network.named_parameters() if name in state)
    if study.strategy.control_variates:
        state = with_zero_controls(state, trained)
    del network
    # Some networks refer to themselves, and their memory is to be free for the rounds.
    gc.collect()
    return trained, Checkpoint(digest=digest, model=state)


def reference_to(study: Study, overrides: Sequence[str]) -> StudyReference:
    """Return what every message of the run carries."""
    return StudyReference(overrides=list(overrides), digest=study_digest(study))


def _enrolled(run: Run, kept: Checkpoint, agreed: Sequence[str]) -> Checkpoint:
    found, absent = run.federation.enrol(agreed, run.study.strategy)
    roster = {**kept.progress.roster, **found}
    run.tell("enrolled", sites=sorted(found), absent=absent)
    needed = found if run.study.model.members else training_sites(run.study, roster)
    if not set(needed) & set(found):
        reasons = "; ".join(f"{site}: {why}" for site, why in sorted(absent.items()))
        text = f"no site with training patients took part ({reasons or 'none agreed'})"
        raise QuorumError(text, kept.progress.spent)
    progress = replace(kept.progress, roster=roster, absent={**kept.progress.absent, **absent})
    return replace(kept, progress=progress)


def _round(run: Run, kept: Checkpoint) -> tuple[Checkpoint, dict[str, float | None]]:
    began = time.monotonic()
    number = kept.rounds_done + 1
    evaluate = (number - 1) % run.study.evaluate_every == 0
    if number == 1 and run.study.begins_with is not None:
        # The study that these weights are of has told of them, and each site was charged for it.
        evaluate = False
    cohort = run.strategy.cohort(training_sites(run.study, kept.progress.roster), number)
    run.tell("round", round=number, of=run.study.rounds, sites=cohort)
    parts: dict[str, SiteRound] = {}
    missing: dict[str, str] = {}
    spent = dict(kept.progress.spent)
    updates = accepted(run, number, kept, evaluate, cohort, parts, missing, spent)
    combined = run.strategy.combine(updates, run.folder)
    if len(parts) < run.study.strategy.quorum or combined is None:
        raise QuorumError(_quorum_text(run, number, parts, missing), spent)
    before = {site: part.before for site, part in parts.items() if part.before}
    if evaluate:
        others = [s for s in kept.progress.roster if s not in cohort]
        before |= estimates_of(evaluations(run, others, number, kept.model, missing))
        tell_measured(run, number - 1, before)
    model, moments = run.strategy.step(kept.model, combined, kept.moments)
    step = None
    if run.study.codec_down is not None:
        draw = seed(run.study.seed, number, "rounding down")
        model, step = stepped(kept.model, model, kept.step, run.study.codec_down, draw)
    summed = run.strategy.summed(kept.summed, model, run.study.rounds - number)
    record = RoundRecord(
        round=number,
        seconds=round(time.monotonic() - began, 3),
        participants=sorted(parts),
        missing=missing,
        sites=parts,
    )
    progress = _remembered(run, kept, record, before)
    if profiled_between(run.study, number):
        found = profiled(run, sorted(progress.roster), number, model, progress.roster, spent)
        progress = replace(progress, profiles={**progress.profiles, number: found})
        tell_changed(run, progress.profiles, len(progress.roster))
    progress = replace(progress, spent=spent)
    kept = replace(kept, model=model, moments=moments, summed=summed, step=step, progress=progress)
    return kept, _headline(run, before)


def _quorum_text(
    run: Run, number: int, parts: Mapping[str, SiteRound], missing: Mapping[str, str]
) -> str:
    reasons = "; ".join(f"{site}: {why}" for site, why in sorted(missing.items()))
    return (
        f"round {number} has {len(parts)} accepted updates, strategy.quorum asks for "
        f"{run.study.strategy.quorum} ({reasons}); mend the sites and resume, or lower the quorum"
        + (" and strategy.faulty" if run.study.strategy.faulty else "")
    )


def _headline(run: Run, estimates: Estimates) -> dict[str, float | None]:
    values = {site: {n: e.value for n, e in of.items()} for site, of in estimates.items()}
    name = run.study.task.headline
    return {name: named_means(values).get(name)}


def _remembered(run: Run, kept: Checkpoint, record: RoundRecord, before: Estimates) -> Progress:
    progress = replace(kept.progress, rounds=[*kept.progress.rounds, record])
    if record.round == 1:
        progress = replace(progress, initial=before)
    return _best(run, progress, kept.model, record.round - 1, before)


def _best(
    run: Run, progress: Progress, model: State, after_round: int, estimates: Estimates
) -> Progress:
    """Keep the model if it is the best so far by the sites' mean of the headline metric.

    It is chosen on the held-out patients, so its own figures there would flatter it: the result's
    final figures are always those of the last model.
    """
    if estimates.keys() != progress.initial.keys():
        # A mean without the worst site would look better than it is.
        return progress
    value = _headline(run, estimates)[run.study.task.headline]
    metric = build_task(run.study.task).metrics[run.study.task.headline]
    sign = 1.0 if metric.higher_is_better else -1.0
    if value is None or (
        progress.best_value is not None and sign * value <= sign * progress.best_value
    ):
        return progress
    about = {
        "study": run.study.name,
        "digest": study_digest(run.study),
        "rounds": after_round,
        "after_round": after_round,
        "value": value,
    }
    write_tensors(run.folder / BEST, _whole(run.study, parted(model)[0]), about)
    return replace(progress, best_round=after_round, best_value=value)


def _finished(run: Run, kept: Checkpoint) -> Outcome:
    lost: dict[str, str] = {}
    sites = sorted(kept.progress.roster)
    run.tell("final evaluation", sites=sites)
    model = run.strategy.final(kept.model, kept.summed, run.study.rounds)
    final = estimates_of(evaluations(run, sites, run.study.rounds, model, lost))
    tell_measured(run, run.study.rounds, final)
    progress = _best(run, kept.progress, model, run.study.rounds, final)
    # The rounds are over: from here on the checkpoint's model is the final one.
    save_checkpoint(run.folder, replace(kept, model=model, progress=progress))
    outcome = outcome_of(progress, final, lost)
    if run.study.evaluation is None:
        return outcome
    # A question of its own: what goes wrong in it costs the comparison, not the figures above.
    run.tell("comparison", sites=sorted(final))
    apart: dict[str, str] = {}
    compared = evaluations(run, sorted(final), run.study.rounds, model, apart, compare=True)
    spent = {site: of.privacy for site, of in compared.items() if of.privacy is not None}
    progress = replace(progress, spent={**progress.spent, **spent})
    save_checkpoint(run.folder, replace(kept, model=model, progress=progress))
    profiles = profiles_of(run, compared, kept.progress.roster)
    tell_changed(run, {**progress.profiles, run.study.rounds: profiles}, len(progress.roster))
    return replace(
        outcome,
        others={site: answer.others for site, answer in compared.items()},
        gains={site: answer.gains for site, answer in compared.items()},
        not_compared=apart,
        reliability={s: answer.reliability for s, answer in compared.items() if answer.reliability},
        subgroups={site: answer.subgroups for site, answer in compared.items()},
        profiles=profiles,
    )


def _write(run: Run, kept: Checkpoint, outcome: Outcome) -> None:
    kept = load_checkpoint(run.folder, kept.digest) or kept
    if outcome.status != "failed":
        about = {"study": run.study.name, "digest": kept.digest, "rounds": kept.rounds_done}
        write_tensors(run.folder / MODEL, _whole(run.study, parted(kept.model)[0]), about)
    metrics = build_task(run.study.task).metrics
    result = result_of(run.study, kept.progress, outcome, metrics)
    if run.study.evaluation is not None and outcome.final:
        metric = metrics[run.study.task.headline]
        result["shift"] = comparison_of(run.study, kept.progress, outcome, metric)
    write_json(run.folder / RESULT, result)
    epsilon = spent_by(kept.progress)
    run.tell("end", status=outcome.status, reason=outcome.reason, epsilon=epsilon)
