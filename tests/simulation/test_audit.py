from dataclasses import replace

import pytest
from rich.console import Console

from client.privacy.dp_sgd import PrivatePlan
from common.accounting import epsilon_of
from common.schema import SettingsError
from common.study import Study
from simulation.audit import (
    AuditConfig,
    Findings,
    audit_settings,
    audit_training,
    claimed_plan,
)
from tests.builders import PICTURES, samples_of, study_from

STUDY = study_from(
    *PICTURES,
    "data.size=[8,8]",
    "model.channels=[8,16]",
    "training.batch_size=8",
    "rounds=3",
    "privacy.mechanism=dp_sgd",
    "privacy.target_epsilon=0.5",
    "privacy.max_grad_norm=0.01",
)
SAMPLES = samples_of([1] * 24)
PLAN = claimed_plan(STUDY, SAMPLES)
CONFIG = AuditConfig(canaries=120)


def audited(seed: int = 0, really: tuple[Study, PrivatePlan] | None = None) -> Findings:
    study = replace(STUDY, seed=seed)
    return audit_training(study, SAMPLES, CONFIG, Console(quiet=True), _really=really)


@pytest.mark.parametrize("seed", range(4))
def test_the_claim_of_private_training_stands(seed: int) -> None:
    found = audited(seed)
    assert found.bound.epsilon < found.claimed_epsilon
    assert not found.noise_short
    assert found.stands
    assert found.noise_seen == pytest.approx(found.noise_multiplier, rel=0.05)
    assert found.canaries_in == sum(found.present)


def test_noise_that_is_switched_off_breaks_the_claim() -> None:
    found = audited(really=(STUDY, replace(PLAN, noise_multiplier=0.0)))
    assert found.bound.epsilon > found.claimed_epsilon
    assert found.auc.value > 0.99
    assert found.noise_short
    assert not found.stands


def test_noise_a_tenth_too_small_is_seen() -> None:
    less = replace(PLAN, noise_multiplier=0.9 * PLAN.noise_multiplier)
    found = audited(really=(STUDY, less))
    assert found.noise_short
    assert not found.stands


def test_clipping_that_is_switched_off_breaks_the_claim() -> None:
    huge = replace(STUDY, privacy=replace(STUDY.privacy, max_grad_norm=100.0))
    same_noise = replace(PLAN, noise_multiplier=PLAN.noise_multiplier * 0.01 / 100.0)
    found = audited(really=(huge, same_noise))
    assert found.bound.epsilon > found.claimed_epsilon
    assert not found.stands


def test_the_claim_is_that_of_the_plan_without_canaries() -> None:
    found = audited()
    cost = replace(PLAN.patient_cost, steps=found.steps)
    assert found.steps == STUDY.rounds * PLAN.steps_a_round
    assert found.study_epsilon == epsilon_of([cost], PLAN.delta)
    assert found.claimed_epsilon == epsilon_of([cost], CONFIG.delta)
    assert 0.49 < found.study_epsilon <= 0.5


def test_an_audit_repeated_finds_the_same() -> None:
    assert audited() == audited()


def test_settings_of_the_command_line_are_read() -> None:
    assert audit_settings([]) == AuditConfig()
    found = audit_settings(["audit.canaries=50", "audit.delta=1e-4"])
    assert found == AuditConfig(canaries=50, delta=1e-4)


@pytest.mark.parametrize("wrong", ["audit.canaries=3", "audit.delta=0", "audit.depth=2"])
def test_wrong_settings_are_named(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"audit\."):
        audit_settings([wrong])


def test_a_study_that_a_site_would_refuse_is_not_audited() -> None:
    loose = replace(STUDY, privacy=replace(STUDY.privacy, delta=0.5))
    with pytest.raises(SettingsError, match=r"privacy\.delta=0\.5"):
        claimed_plan(loose, SAMPLES)
