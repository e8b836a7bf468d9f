"""What a site tells of its images: only if its policy says so, once, charged, with noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.privacy.policy import LeavePolicy, Policy, open_policy
from client.site_data import cohort_of
from client.trainer import Trainer, trainer_at
from common.accounting import epsilon_of, gaussian_release, unprotected_release
from common.contract import Description, EvaluateReply, Profile, RefusalError, Request, TrainReply
from common.profile import noise_std, sizes_of
from tests.builders import (
    PICTURES,
    after_the_rounds,
    charges_at,
    compared_by,
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


def told(trainer: Trainer, request: Request) -> Profile | None:
    body = trainer.evaluate(request, initial_weights(*PROFILED)).body
    assert isinstance(body, EvaluateReply)
    return body.profile


def test_by_default_no_profile_leaves(tmp_path: Path) -> None:
    assert Policy().may_leave.profile_noise_multiplier is None
    assert told(trainer_with(tmp_path / "a", None), after_the_rounds(*PROFILED)) is None
    assert not charges_at(tmp_path / "a")


def test_a_noised_profile_is_charged_once_and_the_same_when_asked_again(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path / "a", 3.0)
    first, again = (told(trainer, after_the_rounds(*PROFILED)) for _ in range(2))
    assert first is not None
    assert first == again
    assert first.patients == TRAINED + HELD_OUT
    assert first.noise_std == noise_std(3.0, 6, first.patients)
    sizes = sizes_of(study_from(*PROFILED))
    assert {name: len(numbers) for name, numbers in first.parts.items()} == dict(sizes)
    (charge,) = charges_at(tmp_path / "a")
    assert (charge.noise_multiplier, charge.sample_rate, charge.steps) == (3.0, 1.0, 1)
    other = told(trainer_with(tmp_path / "b", 3.0), after_the_rounds(*PROFILED))
    assert other is not None
    assert other.parts != first.parts


def test_an_exact_profile_stands_in_the_ledger_as_unprotected(tmp_path: Path) -> None:
    found = told(trainer_with(tmp_path / "a", 0.0), after_the_rounds(*PROFILED))
    assert found is not None
    assert found.noise_std == 0
    assert charges_at(tmp_path / "a") == [unprotected_release()]


@pytest.mark.parametrize("change", [{"round": 1}, {"compare": False}])
def test_it_is_told_after_the_last_round_alone(tmp_path: Path, change: dict[str, int]) -> None:
    assert (
        told(trainer_with(tmp_path / "a", 3.0), replace(after_the_rounds(*PROFILED), **change))
        is None
    )
    assert not charges_at(tmp_path / "a")


def test_of_too_few_patients_none_is_told(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path / "a", 3.0)
    few = replace(trainer._policy.cohort, least_patients_told=TRAINED + HELD_OUT + 1)
    trainer._policy = replace(trainer._policy, cohort=few)
    assert told(trainer, after_the_rounds(*PROFILED)) is None


def test_a_side_of_too_few_patients_is_left_out(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path / "a", 3.0)
    few = replace(trainer._policy.cohort, least_patients_told=HELD_OUT + 1)
    trainer._policy = replace(trainer._policy, cohort=few)
    found = told(trainer, after_the_rounds(*PROFILED))
    assert found is not None
    assert found.patients == TRAINED


def test_an_exact_profile_and_a_cap_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="profile_noise_multiplier=0 lets an exact profile leave"):
        replace(Policy(), may_leave=LeavePolicy(profile_noise_multiplier=0.0))


def test_what_was_spent_is_told_with_the_profile_and_has_it(tmp_path: Path) -> None:
    private = (*PROFILED, "privacy.mechanism=dp_sgd", "privacy.noise_multiplier=1.0")
    trainer = trainer_with(tmp_path / "a", 3.0)
    request = after_the_rounds(*private)
    trained = trainer.train(request, initial_weights(*private)).body
    after = trainer.evaluate(request, initial_weights(*private)).body
    assert isinstance(trained, TrainReply)
    assert isinstance(after, EvaluateReply)
    assert trained.privacy is not None
    assert after.privacy is not None
    assert after.privacy.epsilon > trained.privacy.epsilon


def test_what_the_site_keeps_and_how_files_came_are_in_the_noises_name(tmp_path: Path) -> None:
    # The same weights are sent, but other rows come of them: they must not meet the same noise.
    kept = (*PROFILED, "model.local=['*.bias']")
    trainer = trainer_with(tmp_path / "a", 3.0)
    request = after_the_rounds(*kept)
    weights = initial_weights(*kept)
    profiles = []
    for _ in range(2):
        body = trainer.evaluate(request, weights).body
        assert isinstance(body, EvaluateReply)
        assert body.profile is not None
        profiles.append(body.profile)
        trainer.train(request, weights)
    first, second = profiles
    assert first.parts["features"] != second.parts["features"]
    # What did not change has other noise too.
    assert first.parts["intensity"] != second.parts["intensity"]
    assert [c.noise_multiplier for c in charges_at(tmp_path / "a")].count(3.0) == 2


def test_a_profile_over_a_cap_is_refused_before_the_study_begins(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path / "a", 0.01)
    low = replace(trainer._policy.privacy, max_epsilon_study=1.0, max_epsilon_life=1.0)
    trainer._policy = replace(trainer._policy, privacy=low)
    with pytest.raises(RefusalError, match="epsilon"):
        trainer.describe(request_for(*PROFILED))


GROUPS = (*PICTURES, "evaluation=shift", "evaluation.own_model=false",
          "evaluation.personal_rounds=0", "evaluation.profile=null",
          "evaluation.subgroups={sex:[F,M],age:[50]}")  # fmt: skip


def with_covariates(folder: Path) -> Path:
    path = pictures_site(folder, train=TRAINED, test=HELD_OUT)
    lines = (folder / "manifest.csv").read_text().splitlines()
    more = ["sex,age", *(f"{'FM'[n % 2]},{44 + n}" for n in range(len(lines) - 1))]
    rows = [f"{line},{of}" for line, of in zip(lines, more, strict=True)]
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return path


def test_subgroups_are_told_after_the_last_round_as_the_policy_says(tmp_path: Path) -> None:
    trainer = trainer_at(with_covariates(tmp_path / "a"))
    told = compared_by(trainer, *GROUPS)
    assert set(told.subgroups) == {"sex=F", "sex=M", "age>=50"}
    assert {of["auroc"].n for of in told.subgroups.values()} == {3, HELD_OUT}
    early = replace(after_the_rounds(*GROUPS), compare=False)
    body = trainer.evaluate(early, initial_weights(*GROUPS)).body
    assert isinstance(body, EvaluateReply)
    assert body.subgroups == {}
    leaves = replace(open_policy().may_leave, subgroups=["sex"])
    trainer._policy = replace(open_policy(), may_leave=leaves)
    assert set(compared_by(trainer, *GROUPS).subgroups) == {"sex=F", "sex=M"}
    trainer._policy = replace(open_policy(), may_leave=replace(leaves, subgroups=[]))
    assert compared_by(trainer, *GROUPS).subgroups == {}
    assert Policy().may_leave.subgroups == []


def test_noised_subgroups_are_charged_once_and_told_the_same_again(tmp_path: Path) -> None:
    trainer = trainer_at(with_covariates(tmp_path / "a"))
    leaves = replace(open_policy().may_leave, metrics_noise_multiplier=0.4)
    trainer._policy = replace(open_policy(), may_leave=leaves)
    one, two = (compared_by(trainer, *GROUPS).subgroups for _ in range(2))
    assert one == two
    assert [charge.noise_multiplier for charge in charges_at(tmp_path / "a")] == [0.4, 0.4]


def test_a_reliability_curve_is_told_where_metrics_are_exact_and_the_policy_lets_it(
    tmp_path: Path,
) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=TRAINED, test=24))
    told = compared_by(trainer, *PROFILED)
    assert sum(point.patients for point in told.reliability) == 24
    for leaves in (
        replace(open_policy().may_leave, metrics={"auroc": 2}),
        replace(open_policy().may_leave, metrics_noise_multiplier=1.0),
    ):
        trainer._policy = replace(open_policy(), may_leave=leaves)
        assert compared_by(trainer, *PROFILED).reliability == []


def test_exact_subgroups_and_a_least_number_of_patients_contradict_each_other() -> None:
    exact = LeavePolicy(metrics_noise_multiplier=0.0, subgroups=["sex"])
    with pytest.raises(ValueError, match="subtracted until one patient is left"):
        replace(Policy(), may_leave=exact)
    assert open_policy().may_leave.subgroups == ["*"]


def test_profiles_in_between_are_told_and_charged_and_metrics_wait_for_the_round(
    tmp_path: Path,
) -> None:
    often = (*PROFILED, "rounds=5", "evaluation.profile_every=2")
    trainer = trainer_with(tmp_path / "a", 3.0)
    found = []
    for number in (1, 2, 3, 4):
        asked = request_for(*often, round_number=number, evaluate=True, compare=True)
        body = trainer.evaluate(asked, initial_weights(*often)).body
        assert isinstance(body, EvaluateReply)
        assert (body.profile is None) == bool(body.estimates) == (number % 2 == 1)
        found.append(body.profile)
    assert found[1] != found[3]
    assert [charge.noise_multiplier for charge in charges_at(tmp_path / "a")] == [3.0, 3.0]


def test_all_profiles_to_come_are_in_what_is_checked_before_the_first_round(tmp_path: Path) -> None:
    once = (*PROFILED, "rounds=9")
    trainer = trainer_with(tmp_path / "a", 3.0)
    cap = epsilon_of([replace(gaussian_release(3.0), steps=2)], 1 / (2 * TRAINED))
    low = replace(trainer._policy.privacy, max_epsilon_study=cap)
    trainer._policy = replace(trainer._policy, privacy=low)
    trainer.describe(request_for(*once))
    with pytest.raises(RefusalError, match="epsilon"):
        trainer.describe(request_for(*once, "evaluation.profile_every=2"))


CHOOSING = (*PICTURES, "task.threshold_share=0.25")


def test_who_chooses_the_threshold_neither_trains_nor_is_tested(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=6))
    about = trainer.describe(request_for(*CHOOSING)).body
    assert isinstance(about, Description)
    cohort = cohort_of(trainer.site.manifest_path, CHOOSING)
    sides = [set(s.patients) for s in (cohort.train, cohort.choosing, cohort.held_out)]
    assert (about.patients_train, about.patients_held_out) == (len(sides[0]), 6)
    assert sides[1]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 14


def test_a_sites_answers_are_by_the_threshold_that_its_patients_choose(tmp_path: Path) -> None:
    plain, chosen = (trainer_at(pictures_site(tmp_path / name, train=40, test=20)) for name in "ab")
    learning = (*PICTURES, "training.lr=0.02", "training.local_epochs=12")
    learned = plain.train(request_for(*learning), initial_weights(*learning)).weights
    assert learned is not None
    weights = dict(learned)
    # All look healthy to this model, some more than others.
    bias = next(name for name in weights if weights[name].shape == (2,))
    weights[bias] = np.array([8.0, 0.0], dtype=np.float32)
    usual, own = (
        trainer.evaluate(request_for(*study, evaluate=True), weights).body
        for trainer, study in ((plain, PICTURES), (chosen, CHOOSING))
    )
    assert isinstance(usual, EvaluateReply)
    assert isinstance(own, EvaluateReply)
    assert usual.estimates["balanced_accuracy"].value == 0.5
    assert own.estimates["auroc"] == usual.estimates["auroc"]
    assert usual.estimates["auroc"].value is not None
    assert usual.estimates["auroc"].value > 0.8
    found, spared = (own.estimates[n].value for n in ("sensitivity", "specificity"))
    assert found is not None
    assert spared is not None
    assert own.estimates["balanced_accuracy"].value == pytest.approx((found + spared) / 2)
    assert found + spared > 1.4


def test_noise_that_does_not_cover_who_chooses_is_no_noise(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=6))
    trainer._policy = replace(
        open_policy(), may_leave=LeavePolicy(metrics={"*": 3}, metrics_noise_multiplier=1.0)
    )
    with pytest.raises(RefusalError, match=r"task\.threshold_share=null, not 0\.25"):
        trainer.describe(request_for(*CHOOSING))


def test_few_patients_choose_no_threshold(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=40, test=20))
    leaves = LeavePolicy(metrics={"*": 6}, metrics_noise_multiplier=0.0)
    weights = initial_weights(*CHOOSING)
    told = {}
    for least in (1, 20):
        cohort = replace(open_policy().cohort, least_patients_told=least)
        trainer._policy = replace(open_policy(), may_leave=leaves, cohort=cohort)
        body = trainer.evaluate(request_for(*CHOOSING, evaluate=True), weights).body
        assert isinstance(body, EvaluateReply)
        told[least] = body.estimates["balanced_accuracy"].value
    chosen = cohort_of(trainer.site.manifest_path, CHOOSING).choosing.num_patients
    assert 1 <= chosen < 20
    usual = trainer_at(pictures_site(tmp_path / "b", train=40, test=20))
    body = usual.evaluate(request_for(*PICTURES, evaluate=True), initial_weights(*PICTURES)).body
    assert isinstance(body, EvaluateReply)
    assert told[20] == body.estimates["balanced_accuracy"].value
    assert told[1] != told[20]
