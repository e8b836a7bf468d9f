"""What a study may still spend is decided before anything is computed."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.privacy.account import Account
from client.privacy.data_set import DataSet
from client.privacy.dp_sgd import private_plan
from client.privacy.ledger import Ledger
from client.privacy.policy import LeavePolicy, Policy, PrivacyPolicy, open_policy
from common.accounting import epsilon_of, gaussian_release, unprotected_release
from common.config import study_digest
from common.contract import RefusalError
from tests.builders import PICTURES, study_from

PATIENTS = 40
TARGET = (
    *PICTURES,
    "privacy.mechanism=dp_sgd",
    "privacy.target_epsilon=4",
    "rounds=3",
)
Opened = Callable[..., Account]
OPEN = replace(
    open_policy(), may_leave=replace(open_policy().may_leave, profile_noise_multiplier=None)
)
"""Where nobody has to be protected, but that no exact profile leaves, which no cap allows."""


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    data_set = DataSet(fingerprint="ab" * 32, patients=frozenset(map(str, range(PATIENTS))))

    def account(*overrides: str, policy: Policy | None = None) -> Account:
        study = study_from(*(overrides or TARGET))
        private = study.privacy.private
        return Account(
            ledger=Ledger.open(tmp_path, data_set),
            policy=policy or open_policy(),
            study=study,
            digest=study_digest(study),
            plan=private_plan(study, [1] * PATIENTS) if private else None,
            unprotected=not private,
            patients=PATIENTS,
        )

    return account


def test_a_study_ends_at_its_own_target(opened: Opened) -> None:
    account = opened()
    for number in range(3):
        account.pay_training(f"round {number}")
    spent = account.spent()
    assert spent is not None
    assert 3.9 < spent.epsilon <= 4.0
    with pytest.raises(RefusalError, match=r"over its own privacy\.target_epsilon=4"):
        account.pay_training("another set of weights for round 2")
    assert account.spent() == spent


def test_what_is_paid_may_be_asked_again_though_the_study_is_over(opened: Opened) -> None:
    account = opened()
    for number in (0, 1, 2, 2, 0):
        account.pay_training(f"round {number}")
    assert len(account.ledger.history()) == 3


def test_the_cap_of_the_data_sets_life_counts_other_studies(opened: Opened) -> None:
    capped = replace(OPEN, privacy=PrivacyPolicy(max_epsilon_life=7.0, max_delta=1.0))
    first, second = opened(policy=capped), opened(*TARGET, "seed=1", policy=capped)
    first.check_all()
    for number in range(3):
        first.pay_training(f"round {number}")
    with pytest.raises(RefusalError, match="patient's life"):
        second.check_all()
    spent = second.spent()
    assert spent is not None
    assert spent.epsilon == 0
    # By Renyi moments, and for all patients of the ledger: more than the study's own epsilon.
    assert 4.0 < spent.epsilon_life <= 7.0


def test_a_study_that_fits_still_fits_after_each_of_its_rounds(opened: Opened) -> None:
    capped = replace(OPEN, privacy=PrivacyPolicy(max_epsilon_study=4.0, max_delta=1.0))
    account = opened(policy=capped)
    for number in range(3):
        account.check_all()
        account.pay_training(f"round {number}")
    account.check_all()


def test_noised_metrics_are_part_of_what_a_study_costs(opened: Opened) -> None:
    leaves = LeavePolicy(metrics={"auroc": 2}, metrics_noise_multiplier=1.0)
    capped = PrivacyPolicy(max_epsilon_study=4.0, max_delta=1.0)
    account = opened(policy=replace(open_policy(), privacy=capped, may_leave=leaves))
    with pytest.raises(RefusalError, match="patient's study"):
        account.check_all()
    account.pay_metrics("metrics", 1.0)
    assert [steps.sample_rate for steps in account.ledger.history()] == [1.0]


@pytest.mark.parametrize(("more", "releases"), [((), 3), (("evaluation=shift",), 5)])
def test_a_study_that_compares_counts_its_sites_own_models_before_it_begins(
    more: tuple[str, ...], releases: int, opened: Opened
) -> None:
    caps = PrivacyPolicy(required=False, max_delta=1.0, max_epsilon_study=1e-9)
    leaves = LeavePolicy(metrics_noise_multiplier=3.0, own_models=True)
    policy = replace(open_policy(), privacy=caps, may_leave=leaves)
    account = opened(*PICTURES, "rounds=2", "evaluate_every=1", *more, policy=policy)
    with pytest.raises(RefusalError, match="over this site's cap") as refused:
        replace(account, unprotected=False).check_all()
    asked = re.search(r"study to (\d+\.\d+)", refused.value.text)
    assert asked
    expected = epsilon_of([gaussian_release(3.0)] * releases, account.delta)
    assert float(asked[1]) == pytest.approx(expected, abs=0.01)


def test_too_little_noise_is_refused_with_the_value_that_would_pass(opened: Opened) -> None:
    strict = replace(OPEN, privacy=PrivacyPolicy(least_noise_multiplier=9.0, max_delta=1.0))
    with pytest.raises(RefusalError, match=r"privacy\.noise_multiplier=9 or more"):
        opened(policy=strict).check_all()


def test_after_an_update_without_privacy_no_cap_of_life_is_kept(opened: Opened) -> None:
    capped = replace(OPEN, privacy=PrivacyPolicy(required=False, max_delta=1.0))
    plain = opened(*PICTURES, policy=capped)
    plain.check_all()
    plain.pay_training("round 1")
    plain.pay_training("round 1")
    plain.check_all()
    assert plain.ledger.history() == [unprotected_release()]
    with pytest.raises(RefusalError, match=r"life to inf.*cap of 16.*to no finite value"):
        opened(policy=capped).check_all()
    private = opened()
    private.pay_training("another")
    spent = private.spent()
    assert spent is not None
    assert (spent.epsilon_life, spent.epsilon < 4) == (None, True)


def test_a_cap_holds_for_the_metrics_of_a_study_without_privacy(opened: Opened) -> None:
    leaves = LeavePolicy(metrics={"auroc": 2}, metrics_noise_multiplier=1.0)
    capped = PrivacyPolicy(required=False, max_epsilon_study=3.0, max_delta=1.0)
    policy = replace(open_policy(), privacy=capped, may_leave=leaves)
    account = opened(*PICTURES, policy=policy)
    account.pay_training("round 1")
    account.pay_metrics("metrics 1", 1.0)
    with pytest.raises(RefusalError, match="patient's study"):
        account.pay_metrics("metrics 2", 1.0)
