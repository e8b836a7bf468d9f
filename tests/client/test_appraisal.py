"""What a site tells of its images: only if its policy says so, once, charged, with noise."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.privacy.policy import LeavePolicy, Policy, open_policy
from client.trainer import Trainer, trainer_at
from common.accounting import unprotected_release
from common.contract import EvaluateReply, Profile, RefusalError, Request
from common.profile import noise_std, sizes_of
from tests.builders import (
    PICTURES,
    charges_at,
    initial_weights,
    pictures_site,
    request_for,
    study_from,
)

PROFILED = (
    *PICTURES,
    "evaluation=shift",
    "evaluation.own_model=false",
    "evaluation.personal_rounds=0",
)
TRAINED, HELD_OUT = 8, 6


def trainer_with(folder: Path, multiplier: float | None) -> Trainer:
    leaves = LeavePolicy(
        metrics={"*": 3}, metrics_noise_multiplier=0.0, profile_noise_multiplier=multiplier
    )
    trainer = trainer_at(pictures_site(folder, train=TRAINED, test=HELD_OUT))
    trainer._policy = replace(open_policy(), may_leave=leaves)
    return trainer


def asked(round_number: int = 2, compare: bool = True) -> Request:
    request = request_for(*PROFILED, round_number=round_number, evaluate=True)
    return replace(request, compare=compare)


def told(trainer: Trainer, request: Request) -> Profile | None:
    body = trainer.evaluate(request, initial_weights(*PROFILED)).body
    assert isinstance(body, EvaluateReply)
    return body.profile


def test_by_default_no_profile_leaves(tmp_path: Path) -> None:
    assert Policy().may_leave.profile_noise_multiplier is None
    assert told(trainer_with(tmp_path / "a", None), asked()) is None
    assert not charges_at(tmp_path / "a")


def test_a_noised_profile_is_charged_once_and_the_same_when_asked_again(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path / "a", 3.0)
    first, again = (told(trainer, asked()) for _ in range(2))
    assert first is not None
    assert first == again
    assert first.patients == TRAINED + HELD_OUT
    assert first.noise_std == noise_std(3.0, 6, first.patients)
    sizes = sizes_of(study_from(*PROFILED))
    assert {name: len(numbers) for name, numbers in first.parts.items()} == dict(sizes)
    (charge,) = charges_at(tmp_path / "a")
    assert (charge.noise_multiplier, charge.sample_rate, charge.steps) == (3.0, 1.0, 1)
    other = told(trainer_with(tmp_path / "b", 3.0), asked())
    assert other is not None
    assert other.parts != first.parts


def test_an_exact_profile_stands_in_the_ledger_as_unprotected(tmp_path: Path) -> None:
    found = told(trainer_with(tmp_path / "a", 0.0), asked())
    assert found is not None
    assert found.noise_std == 0
    assert charges_at(tmp_path / "a") == [unprotected_release()]


@pytest.mark.parametrize("request_", [asked(round_number=1), asked(compare=False)])
def test_it_is_told_after_the_last_round_alone(tmp_path: Path, request_: Request) -> None:
    assert told(trainer_with(tmp_path / "a", 3.0), request_) is None
    assert not charges_at(tmp_path / "a")


def test_of_too_few_patients_none_is_told(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path / "a", 3.0)
    few = replace(trainer._policy.cohort, least_patients_told=TRAINED + HELD_OUT + 1)
    trainer._policy = replace(trainer._policy, cohort=few)
    assert told(trainer, asked()) is None


def test_a_profile_over_a_cap_is_refused_before_the_study_begins(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path / "a", 0.01)
    low = replace(trainer._policy.privacy, max_epsilon_study=1.0, max_epsilon_life=1.0)
    trainer._policy = replace(trainer._policy, privacy=low)
    with pytest.raises(RefusalError, match="epsilon"):
        trainer.describe(request_for(*PROFILED))
