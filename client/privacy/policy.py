"""A site's policy: what a study must keep to here, and what may leave. A file of the site alone.

It is read from policy.yaml and from nowhere else: no override, no field of a message and no run
configuration reaches it. Without a file the defaults below hold, and they are strict.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from common.checks import in_range, not_negative, positive
from common.contract import RefusalError
from common.schema import SettingsError, typed
from common.study import Study
from common.system_errors import reason_of

ALL_DIGITS = 15
"""Decimals of a number that leaves as it is: a float has no more of a number below 1."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class PrivacyPolicy:
    """What differential privacy must give each patient of this site."""

    required: bool = True
    """Whether studies without differential privacy are refused. Where they are not, the ledger has
    each of their updates with an infinite epsilon, which no cap stops; but no private study passes
    a cap of life after it."""
    least_noise_multiplier: float = 0.5
    """Least noise of a training step, over the largest norm of one patient's gradient."""
    max_epsilon_study: float = 8.0
    """Largest epsilon that one study may bring a patient, its numbers included."""
    max_epsilon_life: float = 16.0
    """Largest epsilon of all studies together, for the life of the data set."""
    max_delta: float | None = None
    """Largest delta of a study; null: 1 / (2 x patients). Above 1 / patients none is accepted."""

    def __post_init__(self) -> None:
        not_negative(**{"policy.privacy.least_noise_multiplier": self.least_noise_multiplier})
        positive(
            **{
                "policy.privacy.max_epsilon_study": self.max_epsilon_study,
                "policy.privacy.max_epsilon_life": self.max_epsilon_life,
            }
        )
        if self.max_delta is not None:
            positive(**{"policy.privacy.max_delta": self.max_delta})
            in_range(0.0, 1.0, **{"policy.privacy.max_delta": self.max_delta})


@dataclass(frozen=True, kw_only=True)
class CohortPolicy:
    """How many patients must stand behind what is told."""

    least_patients_train: int = 20
    """Fewest patients to train on; a site with fewer takes part as a tester or not at all."""
    least_patients_told: int = 10
    """Fewest patients behind any number that leaves; a cohort of 0 may be told."""

    def __post_init__(self) -> None:
        positive(
            **{
                "policy.cohort.least_patients_train": self.least_patients_train,
                "policy.cohort.least_patients_told": self.least_patients_told,
            }
        )


@dataclass(frozen=True, kw_only=True)
class StudyPolicy:
    """Which studies run here; in each list null stands for all that are installed."""

    tasks: list[str] | None = None
    """Names of the tasks that are allowed, as segmentation."""
    models: list[str] | None = None
    """Names of the networks that are allowed, as unet."""
    approved: list[str] | None = field(default_factory=list)
    """Digests of the studies that the site has read and approved, besides those that its data
    officer approves by `wardround-site approve`. Empty: these alone run."""

    def __post_init__(self) -> None:
        for digest in self.approved or []:
            if not _DIGEST.fullmatch(digest):
                raise ValueError(
                    f"policy.studies.approved has {digest!r}, which is no study's digest; give the "
                    "64 hexadecimal digits that the study's refusal or result names"
                )


@dataclass(frozen=True, kw_only=True)
class LeavePolicy:
    """What may leave. What is not named here stays."""

    weights: bool = True
    """Whether updates leave; false for a site that only tests models."""
    metrics: dict[str, int] = field(default_factory=lambda: {"dice": 2, "auroc": 2})
    """Metrics that leave, and their decimals. * stands for any letters, as in dice_*; a metric's
    own name comes first, then the first pattern that fits."""
    metrics_noise_multiplier: float = 2.0
    """Noise on the sums behind the metrics, over the most that one patient moves them; 0: the
    metrics are exact, and what they tell is in no epsilon. One for all metrics: they are taken
    from one noised vector, charged once."""
    own_models: bool = False
    """Whether metrics of the site's own models may leave, where a study compares. These models are
    trained without privacy, so they tell of single training patients, and no epsilon bounds it."""
    subgroups: list[str] = field(default_factory=list)
    """Covariates of whose subgroups the metrics may leave, with their noise; *: of all."""
    profile_noise_multiplier: float | None = None
    """Noise on the profile of the site's images (histograms, coarse means, features), over the most
    that one patient moves it; 0: it is exact; null: no profile leaves."""
    train_loss_decimals: int | None = None
    """Decimals of a plain study's training loss; null: it stays."""

    def __post_init__(self) -> None:
        not_negative(**{"policy.may_leave.metrics_noise_multiplier": self.metrics_noise_multiplier})
        if self.profile_noise_multiplier is not None:
            noise = self.profile_noise_multiplier
            not_negative(**{"policy.may_leave.profile_noise_multiplier": noise})
        decimals = {f"policy.may_leave.metrics.{n}": d for n, d in self.metrics.items()}
        if self.train_loss_decimals is not None:
            decimals["policy.may_leave.train_loss_decimals"] = self.train_loss_decimals
        in_range(0, ALL_DIGITS, **decimals)

    def subgroups_of(self, study: Study) -> dict[str, list[str]]:
        """Return the study's subgroups that may be told of."""
        asked = study.evaluation.subgroups_asked if study.evaluation is not None else {}
        return {c: v for c, v in asked.items() if {c, "*"} & set(self.subgroups)}

    def decimals_of(self, metric: str) -> int | None:
        """Return the decimals with which a metric leaves; None: it stays."""
        if metric in self.metrics:
            return self.metrics[metric]
        fitting = (d for pattern, d in self.metrics.items() if fnmatchcase(metric, pattern))
        return next(fitting, None)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All that a site decides for itself. `Policy()` is the strict one of a site without a file."""

    privacy: PrivacyPolicy = field(default_factory=PrivacyPolicy)
    """What differential privacy must give."""
    cohort: CohortPolicy = field(default_factory=CohortPolicy)
    """How many patients must stand behind what is told."""
    studies: StudyPolicy = field(default_factory=StudyPolicy)
    """Which studies run."""
    may_leave: LeavePolicy = field(default_factory=LeavePolicy)
    """What may leave."""

    def __post_init__(self) -> None:
        caps = (self.privacy.max_epsilon_study, self.privacy.max_epsilon_life)
        exact = self.may_leave.metrics_noise_multiplier == 0
        if self.may_leave.subgroups and exact and self.cohort.least_patients_told > 1:
            raise ValueError(
                f"policy.may_leave.subgroups={list(self.may_leave.subgroups)} with "
                "metrics_noise_multiplier=0: exact metrics of groups that overlap can be "
                "subtracted until one patient is left, whatever policy.cohort."
                f"least_patients_told={self.cohort.least_patients_told} asks for; give the metrics "
                "a noise, 2.0 say, or leave subgroups empty"
            )
        if self.may_leave.profile_noise_multiplier == 0 and any(map(math.isfinite, caps)):
            raise ValueError(
                "policy.may_leave.profile_noise_multiplier=0 lets an exact profile leave, which no "
                f"epsilon bounds, but policy.privacy has caps of {caps[0]:g} and {caps[1]:g}; give "
                "a noise, 2.0 say, or null"
            )


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a private study costs here once what is asked is done; epsilons are at its delta."""

    noise_multiplier: float
    """Of a training step."""
    delta: float
    """The study's."""
    epsilon_study: float
    """Of this study."""
    epsilon_life: float
    """Of everything ever done with the data set."""


def open_policy() -> Policy:
    """Return the policy of public or invented data: nobody has to be protected."""
    return Policy(
        privacy=PrivacyPolicy(
            required=False,
            least_noise_multiplier=0.0,
            max_epsilon_study=math.inf,
            max_epsilon_life=math.inf,
            max_delta=1.0,
        ),
        cohort=CohortPolicy(least_patients_train=1, least_patients_told=1),
        studies=StudyPolicy(approved=None),
        may_leave=LeavePolicy(
            metrics={"*": ALL_DIGITS},
            metrics_noise_multiplier=0.0,
            own_models=True,
            subgroups=["*"],
            profile_noise_multiplier=0.0,
            train_loss_decimals=ALL_DIGITS,
        ),
    )


def load_policy(path: Path) -> Policy:
    """Return the policy in a file; what it does not name keeps its strict default.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, of another type or impossible.
    """
    try:
        policy = _policy_of(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} cannot be read as a site's policy: {reason_of(error)}; mend it, or name no "
            "policy file for the strict defaults"
        ) from error
    if policy is None:
        parts = ", ".join(Policy.__dataclass_fields__)
        raise SettingsError(f"{path} holds no policy; a policy has these parts: {parts}")
    return policy


@functools.lru_cache(maxsize=64)
def _policy_of(text: str) -> Policy | None:
    """Return the policy in a text, read once a process; None where it holds none."""
    values = yaml.safe_load(text)
    if not isinstance(values, Mapping):
        return None
    policy = typed(values, Policy, "policy")
    named = values.get("may_leave", {}).get("metrics")
    if named is None:
        return policy
    # A map is merged into its default, but what the file does not name is not to leave.
    metrics = {name: d for name, d in policy.may_leave.metrics.items() if name in named}
    return replace(policy, may_leave=replace(policy.may_leave, metrics=metrics))


def check_study(policy: Policy, study: Study, patients_train: int) -> None:
    """Refuse a study that this site does not take part in; asked before anything is planned.

    Whether it is approved is asked before (client/approval.py). patients_train: 0 for a site that
    tests.

    Raises:
        RefusalError: with the reason and what would pass.
    """
    studies = policy.studies
    for what, name, allowed in (
        ("task", study.task.name, studies.tasks),
        ("model", study.model.name, studies.models),
    ):
        if allowed is not None and name not in allowed:
            names = " or ".join(f"{what}.name={other}" for other in sorted(allowed)) or "none"
            _refuse(f"the study's {what} is not allowed here; allowed: {names}")
    least = policy.cohort.least_patients_train
    if 0 < patients_train < least:
        # How many there are is not told: that is what the least size is for.
        _refuse(f"the site has fewer training patients than the {least} that its policy asks for")
    if patients_train and not policy.may_leave.weights:
        _refuse("no update leaves this site; agree with it on testing alone")
    if study.task.choosing_share and policy.may_leave.metrics_noise_multiplier:
        _refuse(
            "the noise on this site's metrics covers the patients that they are of, not those who "
            f"choose a threshold; set task.threshold_share=null, not {study.task.choosing_share:g}"
        )
    if policy.privacy.required and not study.privacy.private:
        _refuse("privacy.mechanism=none is not allowed here; choose privacy.mechanism=dp_sgd")


def check_spending(policy: Policy, patients_train: int, spending: Spending) -> None:
    """Refuse a private study, or its next round, that would protect too little or spend too much.

    Raises:
        RefusalError: with the reason and the value that would pass.
    """
    privacy = policy.privacy
    if not spending.noise_multiplier >= privacy.least_noise_multiplier:
        _refuse(
            f"a noise multiplier of {spending.noise_multiplier:.3g} is under this site's least; "
            f"set privacy.noise_multiplier={privacy.least_noise_multiplier:g} or more"
        )
    largest = 1 / (2 * patients_train) if privacy.max_delta is None else privacy.max_delta
    largest = min(largest, 1 / patients_train)
    if not 0 < spending.delta <= largest:
        _refuse(
            f"privacy.delta={spending.delta:.3g} is over this site's largest; "
            f"set privacy.delta={_rounded_down(largest):g} or less"
        )
    for what, epsilon, cap in (
        ("study", spending.epsilon_study, privacy.max_epsilon_study),
        ("life", spending.epsilon_life, privacy.max_epsilon_life),
    ):
        if not epsilon <= cap:
            _refuse(
                f"this would bring the epsilon of a patient's {what} to {epsilon:.2f}, over this "
                f"site's cap of {cap:g}; set privacy.target_epsilon under what is left of it, or "
                f"ask the site to raise policy.privacy.max_epsilon_{what} to {_rounded_up(epsilon)}"
            )


def _refuse(text: str) -> None:
    raise RefusalError("policy", text)


def _rounded_down(value: float) -> float:
    # Two digits that pass as they are printed: 1/7 becomes 0.14, not 0.15.
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / step) * step


def _rounded_up(value: float) -> str:
    return f"{math.ceil(value * 100) / 100:.2f}" if math.isfinite(value) else "no finite value"
