"""The audit of the privacy claim: attack one site's private training, and count what it gave away.

One training run of the site alone, all rounds, by the loop and the gradients of production. Half of
the canaries are in it, by a coin each; the auditor says which (simulation/audit_attack.py), and
what he got right bounds epsilon from below (simulation/audit_bound.py). What other sites do comes
after a site's noise, so a federation of one loses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track
from scipy.stats import chi2

from client.cohort import Samples
from client.privacy.dp_sgd import PrivateGradient, PrivatePlan, private_plan
from client.training import build_optimizer, random_part, train_round
from common.accounting import epsilon_of
from common.checks import in_range, positive
from common.contract import RefusalError
from common.schema import SettingsError, typed
from common.seeding import generator, seed
from common.study import Study
from common.tasks.registry import build_task
from common.training_config import learning_rate
from server.run import initial_network
from simulation.audit_attack import Auditor, canaries_like, with_canaries
from simulation.audit_bound import (
    Bound,
    Interval,
    auc_interval,
    best_bound,
    most_to_show,
)

NOISE_ERROR = 1e-3
"""Chance that a noise as large as claimed is called short."""
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How a claim of privacy is attacked."""

    canaries: int = 200
    """Patients made up by the auditor, each in the training with probability 1/2. More of them
    show more, and cost time."""
    delta: float = 1e-5
    """The bound and the claim are compared at this delta. With the study's own, about 1/(2 x
    patients), m canaries show next to nothing: 2 x m x delta of them may be given away for free."""

    def __post_init__(self) -> None:
        in_range(20, 100_000, **{"audit.canaries": self.canaries})
        positive(**{"audit.delta": self.delta})
        in_range(0.0, 1.0, **{"audit.delta": self.delta})


MISLABELLED = ("segmentation", "classification", "multilabel")
"""Tasks whose patients have labels that may be wrong."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an audit found."""

    patients: int
    """Of the site itself, canaries left out."""
    steps: int
    """Of the training, all rounds."""
    noise_multiplier: float
    """Claimed."""
    noise_seen: float | None
    """Noise multiplier that the auditor measured where no gradient points; None where there is no
    such place. Random changes of the images, and draws that are not followed, make it larger."""
    noise_short: bool
    """Whether the noise measured is surely less than claimed."""
    study_delta: float
    """Delta of the claim as the study makes it ..."""
    study_epsilon: float
    """... and its epsilon, by the accounting of the steps that ran."""
    delta: float
    """Of the audit: bound and claim are compared here."""
    claimed_epsilon: float
    """The same claim at the audit's delta."""
    canaries: int
    """Made up by the auditor ..."""
    canaries_in: int
    """... and in the training."""
    bound: Bound
    """On epsilon at the audit's delta, from below, with 95 % confidence."""
    most_to_show: float
    """The bound that an auditor who is never wrong could prove with so many canaries."""
    auc: Interval
    """Area under the ROC curve of the canaries, with its 95 % interval."""
    scores: list[float]
    """Log odds of each canary to be in."""
    present: list[bool]
    """Whether it was in."""

    @property
    def stands(self) -> bool:
        """Whether nothing found contradicts the claim.

        A true claim is called broken in at most 5.1 of 100 audits: 5 % for the bound, NOISE_ERROR
        for the noise.
        """
        return self.bound.epsilon <= self.claimed_epsilon and not self.noise_short


def audit_settings(overrides: Sequence[str]) -> AuditConfig:
    """Return the settings given as audit.key=value.

    Raises:
        SettingsError: a setting that does not exist or a value that is not allowed.
    """
    node = OmegaConf.from_dotlist(list(overrides))
    return typed(node.get("audit") or {}, AuditConfig, "audit")


def audit_training(
    study: Study,
    samples: Samples,
    config: AuditConfig,
    console: Console,
    *,
    _really: tuple[Study, PrivatePlan] | None = None,
) -> Findings:
    """Return what an auditor finds out about one private training of the samples.

    The plan, so the claim, is that of the site without canaries. _really: study and plan that run
    in truth, while the claim stays: a test's way to plant a fault.
    """
    plan = claimed_plan(study, samples)
    draws = generator(seed(study.seed, "audit", "canaries"))
    canaries = canaries_like(samples, config.canaries, study.task.out_channels, draws)
    present = (torch.rand(config.canaries, generator=draws) < 0.5).tolist()
    model = initial_network(study)
    auditor = Auditor(study, plan, samples, canaries, model)
    cohort = with_canaries(samples, canaries, present)
    rounds = track(range(1, study.rounds + 1), "audit", console=console, transient=True)
    steps = [_round(auditor, cohort, number, *(_really or (study, plan))) for number in rounds]
    history = [replace(plan.patient_cost, steps=number) for number in steps]
    scores = auditor.log_odds.numpy()
    places = auditor.noise_places
    square = auditor.noise_square
    return Findings(
        patients=samples.num_patients,
        steps=sum(steps),
        noise_multiplier=plan.noise_multiplier,
        noise_seen=plan.noise_multiplier * (square / places) ** 0.5 if places else None,
        noise_short=bool(places and chi2.cdf(square, places) < NOISE_ERROR),
        study_delta=plan.delta,
        study_epsilon=epsilon_of(history, plan.delta),
        delta=config.delta,
        claimed_epsilon=epsilon_of(history, config.delta),
        canaries=config.canaries,
        canaries_in=sum(present),
        bound=best_bound(scores, present, config.delta),
        most_to_show=most_to_show(config.canaries, config.delta),
        auc=auc_interval(scores, present),
        scores=scores.tolist(),
        present=present,
    )


def claimed_plan(study: Study, samples: Samples) -> PrivatePlan:
    """Return the plan of the study for these samples.

    Raises:
        SettingsError: a site would refuse the study, or its canaries cannot be mislabelled.
    """
    if study.task.name not in MISLABELLED:
        raise SettingsError(
            f"task.name={study.task.name} has no labels, and canaries are patients with wrong "
            f"ones; audit a study whose task is one of: {', '.join(MISLABELLED)}"
        )
    try:
        return private_plan(study, samples.images_each)
    except RefusalError as error:
        raise SettingsError(error.text) from error


def _round(auditor: Auditor, cohort: Samples, number: int, study: Study, plan: PrivatePlan) -> int:
    """Train a round as client/trainer.py does, under the auditor's eyes; return its steps."""
    lr = learning_rate(study.training, number, study.rounds)
    optimizer = build_optimizer(study.training, auditor.model, lr)
    by_patient = study.privacy.unit == "patient"
    # The canaries are patients of the cohort too.
    units = cohort.num_patients if by_patient else len(cohort.patients)
    plan = replace(plan, units_a_step=plan.sample_rate * units)
    source = PrivateGradient(
        auditor.model,
        optimizer,
        plan,
        study,
        cohort,
        generator(seed(study.seed, "audit", number, "draws")),
        generator(seed(study.seed, "audit", number, "noise")),
        study.privacy.physical_batch_size,
    )
    task = build_task(study.task)
    draws = generator(seed(study.seed, "audit", number, "augment"))
    changed = random_part(study, task, draws)
    with torch.random.fork_rng():
        torch.manual_seed(seed(study.seed, "audit", number, "dropout"))
        try:
            watched = auditor.watching(source, plan.units_a_step)
            return train_round(watched, optimizer, cohort, task, study, changed, CPU).steps
        finally:
            source.close()
