"""The one gate: everything that leaves a site passes here, and what is not let pass stays.

It builds each answer anew from values that it has checked, so nothing rides along. A value that
should not be there refuses the whole answer; a value that the policy does not name is left out.
"""

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR

import numpy as np
from numpy.typing import NDArray

from client.privacy.closed import count_up_to, demand, digits_of, names_of, number_in, same
from client.privacy.policy import Policy
from client.privacy.speech import speakable
from common.bodies import MessageError
from common.compression import CODED, Differences
from common.compression_config import CodecConfig
from common.contract import (
    MAX_PATIENTS,
    MOST_OF_PROFILE,
    NO_BASE,
    OTHERS,
    Answer,
    Description,
    Estimate,
    EvaluateReply,
    PrivacySpent,
    Profile,
    Refusal,
    RefusalError,
    Released,
    Reliability,
    TrainReply,
)
from common.profile import noise_std, told_patients

Arrays = Mapping[str, NDArray[np.generic]]

CALIBRATION = "ece"
"""The metric that a policy must let leave before a reliability curve does."""
CODES = (
    "study",
    "data",
    "training",
    "privacy",
    "policy",
    "gate",
    "message",
    "trainer",
    "bundle",
    "weights",
    NO_BASE,
)
"""What a site refuses for; anything else that goes wrong is an `error`."""
UNKNOWN = "unknown"
"""Name of a site whose settings cannot be read."""
MOST_STEPS = 10**9
MOST_SECONDS = 1e7
MOST_LOSS = 1e6
MOST_EPSILON = 1e9
SECONDS_DECIMALS = 1
"""A finer clock would tell of single images."""
PROFILE_DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an answer can be, from the site's settings, its cohort and the study's own model."""

    site: str
    """The site's own name."""
    round: int
    """Round that was asked."""
    patients_train: int
    """Training patients."""
    patients_held_out: int
    """Patients that every estimate is over."""
    arrays: Mapping[str, tuple[tuple[int, ...], np.dtype[np.generic]]]
    """Shape and dtype of every tensor of the model that travels."""
    codec: CodecConfig | None = None
    """How the study codes updates; None: they travel whole."""
    metrics: Mapping[str, tuple[float, float]]
    """Least and largest value of every metric of the task."""
    metrics_noise_multiplier: float = 0.0
    """Noise that the estimates have (client/privacy/statistics.py); 0: they are exact."""
    subgroups: frozenset[str] = frozenset()
    """Names of the subgroups that may be told of."""
    profile: Mapping[str, int] = field(default_factory=dict)
    """How many numbers each part of a profile has (common/profile.py); empty: none is asked."""
    profile_noise_multiplier: float = 0.0
    """Noise that a profile has (client/profile.py)."""


def leave(answer: Answer, weights: Arrays | None, limits: Limits, policy: Policy) -> Released:
    """Return what may leave of an answer.

    Raises:
        RefusalError: something in it may not leave. The text says what kind of thing, not which.
    """
    if type(answer) is TrainReply:
        return Released(
            body=_train_reply(answer, limits, policy), weights=_arrays(weights, limits, policy)
        )
    demand(weights is None, "weights beside an answer that has none")
    if type(answer) is EvaluateReply:
        return Released(body=_evaluate_reply(answer, limits, policy))
    if type(answer) is Description:
        return Released(body=_description(answer, limits, policy))
    raise RefusalError("gate", "the site held back an answer of an unknown kind")


def leave_refusal(site: str | None, error: BaseException) -> Released:
    """Return what the server may read of an error: a refusal of ours as it is, or its kind.

    A refusal's text leaves if every word of it is one that our own texts are made of (see
    `speakable`). Any other error was written for the site: its class leaves, if it is Python's own.

    site: the site's own name, or None where its settings could not be read.
    """
    name = UNKNOWN if site is None else site
    if isinstance(error, RefusalError) and error.code in CODES:
        text = error.text if speakable(error.text) else "refused; the site's own log says why"
        return Released(body=Refusal(site=name, code=error.code, text=text))
    kind = type(error).__name__
    kind = kind if getattr(builtins, kind, None) is type(error) else "Error"
    text = f"{kind} at the site; its own log has the details"
    return Released(body=Refusal(site=name, code="error", text=text))


def _train_reply(reply: TrainReply, limits: Limits, policy: Policy) -> TrainReply:
    private = reply.privacy is not None
    demand(private or not policy.privacy.required, "an update without differential privacy")
    least = max(policy.cohort.least_patients_train, policy.cohort.least_patients_told)
    demand(limits.patients_train >= least, "an update of fewer patients than its policy asks for")
    same(reply.patients, limits.patients_train)
    return TrainReply(
        site=same(reply.site, limits.site),
        round=same(reply.round, limits.round),
        patients=limits.patients_train,
        steps=count_up_to(reply.steps, MOST_STEPS),
        seconds=number_in(reply.seconds, 0.0, MOST_SECONDS, SECONDS_DECIMALS),
        train_loss=_loss(reply, private, policy),
        estimates=_estimates(reply.estimates, limits, policy),
        trained=_estimates(reply.trained, limits, policy),
        privacy=None if reply.privacy is None else _spent(reply.privacy),
    )


def _evaluate_reply(reply: EvaluateReply, limits: Limits, policy: Policy) -> EvaluateReply:
    return EvaluateReply(
        site=same(reply.site, limits.site),
        round=same(reply.round, limits.round),
        seconds=number_in(reply.seconds, 0.0, MOST_SECONDS, SECONDS_DECIMALS),
        estimates=_estimates(reply.estimates, limits, policy),
        others=_of_own_models(reply.others, limits, policy),
        gains=_of_own_models(reply.gains, _of_gains(limits), policy),
        reliability=_reliability(reply.reliability, limits, policy),
        subgroups=_subgroups(reply.subgroups, limits, policy),
        profile=None if reply.profile is None else _profile(reply.profile, limits, policy),
        privacy=None if reply.privacy is None else _spent(reply.privacy),
    )


def _profile(profile: object, limits: Limits, policy: Policy) -> Profile:
    multiplier = policy.may_leave.profile_noise_multiplier
    if type(profile) is not Profile or multiplier is None or not limits.profile:
        raise RefusalError("gate", "the site held back a profile of its images")
    sides = (limits.patients_train, limits.patients_held_out)
    patients = told_patients(sides, policy.cohort.least_patients_told)
    demand(patients > 0, "a profile of fewer patients than its policy lets it tell")
    enough = limits.profile_noise_multiplier >= multiplier
    demand(enough, "a profile with less noise than its policy asks for")
    std = noise_std(limits.profile_noise_multiplier, len(limits.profile), patients)
    parts = profile.parts
    told = _lengths(parts) == dict(limits.profile)
    demand(told, "a profile of other parts than the study's")
    return Profile(
        patients=same(profile.patients, patients),
        noise_std=std,
        parts={name: [_of_profile(number) for number in parts[name]] for name in limits.profile},
    )


def _lengths(parts: object) -> dict[str, int]:
    if type(parts) is not dict or not all(type(parts[name]) is list for name in names_of(parts)):
        raise RefusalError("gate", "the site held back a part of a profile that is no list")
    return {name: len(numbers) for name, numbers in parts.items()}


def _of_profile(number: object) -> float:
    return number_in(number, -MOST_OF_PROFILE, MOST_OF_PROFILE, PROFILE_DECIMALS)


def _of_own_models(found: object, limits: Limits, policy: Policy) -> dict[str, dict[str, Estimate]]:
    if type(found) is not dict or not set(names_of(found)) <= set(OTHERS):
        raise RefusalError("gate", "the site held back a model that is not one of its own")
    demand(not found or policy.may_leave.own_models, "metrics of models that are not private")
    return {name: _estimates(found[name], limits, policy) for name in sorted(found)}


def _subgroups(found: object, limits: Limits, policy: Policy) -> dict[str, dict[str, Estimate]]:
    if type(found) is not dict or not set(names_of(found)) <= limits.subgroups:
        raise RefusalError("gate", "the site held back a subgroup that its policy does not name")
    told = {}
    for name in sorted(found):
        demand(type(found[name]) is dict, "a subgroup that is no metrics")
        sizes = [estimate.n for estimate in found[name].values() if type(estimate) is Estimate]
        least = max(policy.cohort.least_patients_told, 1)
        enough = all(type(n) is int and least <= n <= limits.patients_held_out for n in sizes)
        # Compared only once they are known to be numbers: what they are may answer as it likes.
        one = enough and len(set(sizes)) == 1
        demand(one, "a subgroup of fewer patients than it may tell of")
        of_group = replace(limits, patients_held_out=sizes[0])
        told[name] = _estimates(found[name], of_group, policy)
    return told


def _reliability(found: object, limits: Limits, policy: Policy) -> list[Reliability]:
    decimals = policy.may_leave.decimals_of(CALIBRATION)
    if type(found) is list and not found:
        return []
    exact = limits.metrics_noise_multiplier == policy.may_leave.metrics_noise_multiplier == 0
    if type(found) is not list or decimals is None or not exact:
        raise RefusalError("gate", "the site held back a reliability curve")
    least = max(policy.cohort.least_patients_told, 1)
    told = []
    for point in found:
        known = type(point) is Reliability and type(point.patients) is int
        enough = known and least <= point.patients <= limits.patients_held_out
        demand(enough, "a point of a curve of fewer patients than it may tell of")
        shares = [
            number_in(share, 0.0, 1.0, decimals) for share in (point.confidence, point.accuracy)
        ]
        told.append(Reliability(confidence=shares[0], accuracy=shares[1], patients=point.patients))
    return told


def _of_gains(limits: Limits) -> Limits:
    """Return the limits of differences of metrics."""
    spans = {name: (low - high, high - low) for name, (low, high) in limits.metrics.items()}
    return replace(limits, metrics=spans)


def _description(about: Description, limits: Limits, policy: Policy) -> Description:
    told = policy.cohort.least_patients_told
    training = same(about.patients_train, limits.patients_train)
    enough = training == 0 or training >= max(policy.cohort.least_patients_train, told)
    demand(enough, "a count of fewer patients than its policy lets it tell")
    tested = same(about.patients_held_out, limits.patients_held_out)
    bad = count_up_to(about.bad_files, MAX_PATIENTS)
    return Description(
        site=same(about.site, limits.site),
        patients_train=count_up_to(training, MAX_PATIENTS),
        # Too few to tell any number of: for the server it is as if there were none.
        patients_held_out=count_up_to(tested if tested >= told else 0, MAX_PATIENTS),
        images_train=count_up_to(about.images_train, MAX_PATIENTS),
        # "Up to so many": a count of one or two would be about single patients.
        bad_files=max(bad, told) if bad else 0,
    )


def _estimates(found: object, limits: Limits, policy: Policy) -> dict[str, Estimate]:
    if type(found) is not dict or not all(name in limits.metrics for name in names_of(found)):
        raise RefusalError("gate", "the site held back a metric that its task does not have")
    if limits.patients_held_out < policy.cohort.least_patients_told:
        return {}
    decimals = {name: policy.may_leave.decimals_of(name) for name in sorted(found)}
    told = {name: digits for name, digits in decimals.items() if digits is not None}
    noised = limits.metrics_noise_multiplier
    enough = noised >= policy.may_leave.metrics_noise_multiplier
    demand(not told or enough, "metrics with less noise than its policy asks for")
    return {name: _estimate(found[name], name, told[name], limits) for name in told}


def _estimate(found: object, name: str, decimals: int, limits: Limits) -> Estimate:
    if type(found) is not Estimate:
        raise RefusalError("gate", "the site held back a metric that is no estimate")
    low, high = limits.metrics[name]
    # The ends of an interval come from the values themselves, which noise was to cover.
    noised = limits.metrics_noise_multiplier > 0
    demand(not noised or found.low is found.high is None, "an interval beside a noised metric")

    def told(number: object) -> float | None:
        return None if number is None else number_in(number, low, high, decimals)

    return Estimate(
        value=told(found.value),
        low=told(found.low),
        high=told(found.high),
        n=same(found.n, limits.patients_held_out),
    )


def _loss(reply: TrainReply, private: bool, policy: Policy) -> float | None:
    decimals = policy.may_leave.train_loss_decimals
    if reply.train_loss is None or decimals is None or private:
        return None
    return number_in(reply.train_loss, -MOST_LOSS, MOST_LOSS, decimals)


def _spent(spent: object) -> PrivacySpent:
    if type(spent) is not PrivacySpent:
        raise RefusalError("gate", "the site held back an account of another kind")
    return PrivacySpent(
        unit=same(spent.unit, "patient"),
        epsilon=digits_of(spent.epsilon, MOST_EPSILON, ROUND_CEILING),
        epsilon_image=digits_of(spent.epsilon_image, MOST_EPSILON, ROUND_CEILING),
        epsilon_life=None
        if spent.epsilon_life is None
        else digits_of(spent.epsilon_life, MOST_EPSILON, ROUND_CEILING),
        delta=digits_of(spent.delta, 1.0, ROUND_CEILING),
        noise_multiplier=digits_of(spent.noise_multiplier, MOST_EPSILON, ROUND_FLOOR),
        sample_rate=digits_of(spent.sample_rate, 1.0, ROUND_CEILING),
        steps=count_up_to(spent.steps, MOST_STEPS),
    )


def _arrays(weights: object, limits: Limits, policy: Policy) -> dict[str, NDArray[np.generic]]:
    demand(policy.may_leave.weights, "an update, which its policy does not let leave")
    if limits.codec is not None:
        return {CODED: _coded(weights, limits, limits.codec)}
    if type(weights) is not dict or set(names_of(weights)) != set(limits.arrays):
        raise RefusalError("gate", "the site held back weights that are not those of the model")
    return {name: _array(weights[name], *form) for name, form in limits.arrays.items()}


def _coded(weights: object, limits: Limits, codec: CodecConfig) -> NDArray[np.uint8]:
    """Return an update's coded bytes, made anew from its numbers: nothing else is in them."""
    if type(weights) is not dict or names_of(weights) != [CODED]:
        raise RefusalError("gate", "the site held back weights that are not coded")
    whole = weights[CODED]
    if type(whole) is not np.ndarray or whole.ndim != 1 or whole.dtype != np.uint8:
        raise RefusalError("gate", "the site held back coded weights of another form")
    try:
        differences = Differences(whole, limits.arrays, codec)
        for name, form in limits.arrays.items():
            _array(differences[name], *form)
        return differences.sealed_anew()
    except MessageError as error:
        raise RefusalError("gate", "the site held back coded weights that are no update") from error


def _array(
    array: object, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    if type(array) is not np.ndarray or array.shape != shape or array.dtype != dtype:
        raise RefusalError("gate", "the site held back weights of another form than the model's")
    finite = dtype.kind not in "fc" or bool(np.isfinite(array).all())
    demand(finite, "weights that are not finite numbers")
    return array
