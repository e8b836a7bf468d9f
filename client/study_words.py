"""A study in plain words, for the data officer who approves or rejects it."""

from client.approval import Proposal
from client.privacy.policy import Policy
from common.config import load_study, study_digest
from common.schema import SettingsError
from common.study import Study
from common.tasks.registry import build_task

LONGEST_WORD = 200


def study_words(proposal: Proposal, policy: Policy) -> dict[str, str]:
    """Return what a study asks of this site and what it may cost, by a word for each.

    It is composed here, from what this site has installed; what the server says of it is not used.
    A study that was answered before it was asked for has no words.
    """
    if proposal.first_seen is None:
        return {}
    try:
        study = load_study(proposal.overrides)
    except SettingsError:
        return {"problem": "the installed version cannot compose it; it will be refused"}
    if study_digest(study) != proposal.digest:
        return {"problem": "the installed version composes another study; it will be refused"}
    return {
        "name": printable(study.name),
        "task": _task(study),
        "model": _model(study),
        "rounds": f"{study.rounds}, each of {_work(study)}",
        "metrics": _metrics(study, policy),
        "privacy": _privacy(study, policy),
        "costs": _costs(study, policy),
        "own models": _own_models(study, policy),
        "subgroups": _subgroups(study, policy),
        "profile": _profile(study, policy),
        "sites": _sites(study),
    }


def _task(study: Study) -> str:
    if study.task.unlabelled is None:
        return study.task.name
    return f"{study.task.name}; patients without labels train too, and are charged as any other"


def _model(study: Study) -> str:
    name, begins = study.model.name, (study.begins_with or "")[:12]
    if study.model.members is None:
        return (
            f"{name}, which begins with the weights {begins} of an earlier study"
            if begins
            else name
        )
    which = f", weights {begins}," if begins else ","
    return (
        f"{study.model.members} networks {name} that single sites have trained{which} tested "
        "together; nothing is trained"
    )


def printable(text: str) -> str:
    """Return a text from outside as it may stand on a screen."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= LONGEST_WORD else f"{shown[:LONGEST_WORD]}..."


def _work(study: Study) -> str:
    training = study.training
    if training.local_steps is not None:
        return f"{training.local_steps} steps of {training.batch_size}"
    times = f"{training.local_epochs} passes" if training.local_epochs > 1 else "one pass"
    return f"{times} over the training patients, {training.batch_size} at a time"


def _metrics(study: Study, policy: Policy) -> str:
    names = sorted(build_task(study.task).metrics)
    told = [name for name in names if policy.may_leave.decimals_of(name) is not None]
    noise = policy.may_leave.metrics_noise_multiplier
    how = f"with noise {noise:g}" if noise else "exact"
    kept = len(names) - len(told)
    leaves = f"{', '.join(told)} leave, {how}" if told else "none leaves"
    twice = study.strategy.generalisation_step is not None and noise and told
    leaves += ", twice a round: the study also asks for them after its training" if twice else ""
    return f"{leaves}; {kept} others stay" if kept else leaves


def _privacy(study: Study, policy: Policy) -> str:
    privacy = study.privacy
    if not privacy.private:
        refused = policy.privacy.required
        return "NO privacy" + ("; this site's policy refuses that" if refused else "")
    if privacy.target_epsilon is not None:
        return f"of each {privacy.unit}, epsilon {privacy.target_epsilon:g} for all rounds"
    return f"of each {privacy.unit}, noise multiplier {privacy.noise_multiplier:g}"


def _costs(study: Study, policy: Policy) -> str:
    cap = policy.privacy.max_epsilon_study
    if not study.privacy.private:
        return "no number bounds what its updates tell of a patient"
    if study.privacy.target_epsilon is not None:
        training = f"epsilon {study.privacy.target_epsilon:g} a patient at most for its training"
    else:
        training = "as many patients as train here decide"
    told = f"{training}; this site's policy ends it at {cap:g}, metrics and profile included"
    target, noised = study.privacy.target_epsilon, policy.may_leave.metrics_noise_multiplier > 0
    if noised and target is not None and target >= cap:
        return f"{told}, so it will be REFUSED: ask for a privacy.target_epsilon well under {cap:g}"
    return told


def _own_models(study: Study, policy: Policy) -> str:
    if study.evaluation is None:
        return "none is asked for"
    if not policy.may_leave.own_models:
        return "asked for; this site's policy tells nothing of them, and trains none"
    return (
        "two are trained here WITHOUT privacy and stay; their metrics leave, and no number bounds "
        "what these tell of a patient"
    )


def _subgroups(study: Study, policy: Policy) -> str:
    asked = study.evaluation.subgroups_asked if study.evaluation is not None else {}
    if not asked:
        return "none is asked for"
    told = policy.may_leave.subgroups_of(study)
    noise = policy.may_leave.metrics_noise_multiplier
    named = {name: f"{name} ({', '.join(values)})" for name, values in asked.items()}
    columns = printable(", ".join(named.values()))
    if not told:
        return f"metrics by {columns} are asked for; this site's policy tells none"
    how = f"with noise {noise:g}, as one more charge" if noise else "exactly"
    leaves = (
        f"metrics by {printable(', '.join(named[n] for n in told))} leave once, at the end, {how}"
    )
    kept = [named[name] for name in asked if name not in told]
    return f"{leaves}; by {printable(', '.join(kept))} none" if kept else leaves


def _profile(study: Study, policy: Policy) -> str:
    if study.evaluation is None or not study.evaluation.profile:
        return "none is asked for"
    noise = policy.may_leave.profile_noise_multiplier
    every = study.evaluation.profile_every
    when = "once, at the end" if every is None else f"after every {every} rounds and at the end"
    if noise is None:
        return "how your images look is asked for; this site's policy tells nothing of it"
    if not noise:
        return "how your images look leaves EXACTLY; no number bounds what it tells of a patient"
    return (
        f"how your images look leaves {when}, with noise {noise:g}; its epsilon comes on top of "
        "the training's"
    )


def _sites(study: Study) -> str:
    tested = ", ".join(printable(site) for site in study.strategy.tested or [])
    if not tested:
        return "all train"
    return f"all train but {tested}, tested alone; what is trained is tested at all of them"
