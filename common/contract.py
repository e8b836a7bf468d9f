"""What a server asks and a site answers: plain values, without Flower and without torch.

Weights travel beside these bodies as arrays. Every body is validated when it arrives
(common/messages.py): types by pydantic, values by the checks here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_PATIENTS = 10_000_000
MOST_OF_PROFILE = 1e3
"""No number of a profile, noise and all, is larger."""
MOST_SECONDS = 1e8
"""Of work on one answer: three years."""
DIGEST_DIGITS, LONGEST_TEXT, LONGEST_NAME = 64, 1000, 200
LOCAL, PERSONAL = "local", "personal"
OTHERS = (LOCAL, PERSONAL)
"""Models of a site itself: of its own data alone, and the federated one trained further."""


def _check_site(name: str) -> None:
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a site's name is {LONGEST_NAME} printable characters at most")


def _check_seconds(seconds: float) -> None:
    if not 0 <= seconds <= MOST_SECONDS:
        raise ValueError(f"an answer that took seconds={seconds} is not possible")


@dataclass(frozen=True, kw_only=True)
class StudyReference:
    """Which study a message belongs to. A site composes it itself, from what it installed."""

    overrides: list[str]
    """Hydra overrides that describe the study."""
    digest: str
    """SHA-256 of the study as the server composed it."""

    def __post_init__(self) -> None:
        if len(self.digest) > DIGEST_DIGITS or not self.digest.isascii():
            raise ValueError("a study's digest has 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One message of the server."""

    study: StudyReference
    round: int = 0
    """Round that the weights open; 0 asks for a description alone."""
    evaluate: bool = False
    """Whether the incoming model is evaluated on the held-out patients before it is trained."""
    compare: bool = False
    """Whether an evaluation holds the incoming model against the site's own models, as the study's
    `evaluation` says."""
    before: str | None = None
    """Of weights that are a step from another model: that one's digest (common/state.py)."""

    def __post_init__(self) -> None:
        if self.before is not None and len(self.before) != DIGEST_DIGITS:
            raise ValueError("a model's digest has 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric on one site's held-out patients, with a bootstrap 95 % interval by patient."""

    value: float | None
    """None where the metric is not defined, as AUROC on one class."""
    low: float | None
    high: float | None
    n: int
    """Patients."""

    def __post_init__(self) -> None:
        for number in (self.value, self.low, self.high):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"an estimate of {number} is not a finite number")
        if not 0 <= self.n <= MAX_PATIENTS:
            raise ValueError(f"an estimate over n={self.n} patients is not possible")


@dataclass(frozen=True, kw_only=True)
class PrivacySpent:
    """What a site's account says after an update."""

    unit: str
    """What is protected: patient."""
    epsilon: float
    """What this study has cost a patient so far, its numbers included."""
    epsilon_image: float
    """What its training has cost a single image of a patient."""
    epsilon_life: float | None
    """What all studies with this data set have cost a patient; None: an update left without
    privacy, and no number bounds it."""
    delta: float
    noise_multiplier: float
    """Of a step, over the most that a patient moves it."""
    sample_rate: float
    """Chance of a patient to be in a step."""
    steps: int
    """Private steps of this study so far."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """A site introduces itself before the first round; its data has been read by then."""

    site: str
    patients_train: int
    patients_held_out: int
    images_train: int
    bad_files: int

    def __post_init__(self) -> None:
        _check_site(self.site)
        for count in (self.patients_train, self.patients_held_out, self.images_train):
            if not 0 <= count <= MAX_PATIENTS:
                raise ValueError(f"{self.site!r} tells a count of {count}; that is not possible")


@dataclass(frozen=True, kw_only=True)
class TrainReply:
    """An update; its weights travel beside it."""

    site: str
    round: int
    patients: int
    """Patients that the update was trained on: its weight in the mean."""
    steps: int
    seconds: float
    train_loss: float | None = None
    """Mean over the steps; None with differential privacy, whose budget does not cover it."""
    estimates: dict[str, Estimate] = field(default_factory=dict)
    """The incoming model on the held-out patients; empty where not asked or none held out."""
    trained: dict[str, Estimate] = field(default_factory=dict)
    """The model that the round made of it at the site; empty unless the study weights by it."""
    privacy: PrivacySpent | None = None

    def __post_init__(self) -> None:
        _check_site(self.site)
        if not 0 < self.patients <= MAX_PATIENTS:
            raise ValueError(f"an update of patients={self.patients} cannot be weighted")
        _check_seconds(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How a site's images look: the mean of its patients, training and held-out together.

    Parts and sizes: common/profile.py.
    """

    patients: int
    noise_std: float
    """Of the noise on each number; 0 where the site's policy asks for none."""
    parts: dict[str, list[float]]

    def __post_init__(self) -> None:
        if not 0 < self.patients <= MAX_PATIENTS:
            raise ValueError(f"a profile of patients={self.patients} is not possible")
        if not 0 <= self.noise_std <= MOST_OF_PROFILE:
            raise ValueError(f"a profile with noise_std={self.noise_std} is not possible")


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A point of a reliability curve: images of about one confidence."""

    confidence: float
    accuracy: float
    patients: int
    """Patients with such an image."""


@dataclass(frozen=True, kw_only=True)
class EvaluateReply:
    """The incoming model on the site's held-out patients."""

    site: str
    round: int
    seconds: float
    estimates: dict[str, Estimate]
    others: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """The site's own models (OTHERS), where the request compares."""
    gains: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """By each of those models: the incoming model's metric minus the other's, paired by patient."""
    subgroups: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """The incoming model's metrics by subgroup, where the request compares, the study names
    subgroups and the site lets them leave."""
    reliability: list[Reliability] = field(default_factory=list)
    """Of the incoming model, where the request compares and the metrics are exact; of a
    classification alone."""
    profile: Profile | None = None
    """How the site's images look, where the request compares, the study asks and the site lets it
    leave."""
    privacy: PrivacySpent | None = None
    """The account after a profile, which is of training patients too."""

    def __post_init__(self) -> None:
        _check_site(self.site)
        _check_seconds(self.seconds)


NO_BASE = "base"
"""Code of a refusal of weights that are a step from a model which the site has not."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A site does not do what was asked. The text holds no path, no name and no patient."""

    site: str
    code: str
    text: str

    def __post_init__(self) -> None:
        for words in (self.site, self.code, self.text):
            if len(words) > LONGEST_TEXT or not words.isprintable():
                raise ValueError(f"a refusal is {LONGEST_TEXT} printable characters at most")


Answer: TypeAlias = Description | TrainReply | EvaluateReply | Refusal
"""Whatever a site answers."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """What a site's gate let pass, and so the only thing that is packed as an answer.

    The gate (client/privacy/gate.py) alone makes it at a site; a test reads the code for it.
    """

    body: Answer
    weights: Mapping[str, NDArray[np.generic]] | None = None
    """Arrays beside a TrainReply; None beside all else."""


class RefusalError(Exception):
    """Raised at a site; its code and text are what the server may read."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
