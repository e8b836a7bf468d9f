from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.alone import train_alone
from client.own_models import OWN_MODEL, own_models
from client.privacy.policy import LeavePolicy, open_policy
from client.progress import StoppedError
from client.site import load_site
from client.site_data import cohort_of
from client.trainer import trainer_at
from common.accounting import unprotected_release
from common.contract import EvaluateReply
from common.state import state_of
from common.tensor_files import read_tensors
from server.run import initial_network
from tests.builders import (
    PICTURES,
    after_the_rounds,
    charges_at,
    compared_by,
    initial_weights,
    pictures_site,
    study_from,
)

COMPARED = (*PICTURES, "evaluation=shift", "evaluation.profile=null", "rounds=2")
NONE_OF_ITS_OWN = (*COMPARED, "evaluation.own_model=false", "evaluation.personal_rounds=0")


def test_a_site_holds_the_model_against_its_own(tmp_path: Path) -> None:
    told = compared_by(trainer_at(pictures_site(tmp_path / "a", train=8, test=6)), *COMPARED)
    assert set(told.others) == set(told.gains) == {"local", "personal"}
    for name, estimates in told.others.items():
        for metric, estimate in estimates.items():
            ours, gain = told.estimates[metric].value, told.gains[name][metric]
            if ours is not None and estimate.value is not None:
                assert gain.value == pytest.approx(ours - estimate.value)
                assert gain.low is not None
                assert gain.low <= gain.value <= gain.high  # type: ignore[operator]


def test_a_study_that_does_not_ask_for_them_trains_no_models(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    for overrides in (NONE_OF_ITS_OWN, PICTURES):
        told = compared_by(trainer, *overrides, "rounds=2")
        assert told.others == told.gains == {}
    assert not (trainer.site.state_path / OWN_MODEL).exists()


def test_the_own_model_is_the_sites_training_alone_from_the_studys_start(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a", train=8)
    compared_by(trainer_at(path), *COMPARED)
    kept, _ = read_tensors(load_site(path).state_path / OWN_MODEL)
    study, site = study_from(*COMPARED), load_site(path)
    torch.set_num_threads(site.threads)
    model = initial_network(study)
    samples = cohort_of(site.manifest_path, COMPARED).train
    train_alone(model, study, samples, site.name, range(1, 3), torch.device("cpu"))
    assert all(torch.equal(kept[name], tensor) for name, tensor in state_of(model).items())
    untrained = state_of(initial_network(study))
    assert any(not torch.equal(kept[name], untrained[name]) for name in kept)


def test_the_own_model_is_trained_once_and_anew_for_another_study(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8))
    path = trainer.site.state_path / OWN_MODEL
    first = compared_by(trainer, *COMPARED)
    stamp = path.stat().st_mtime_ns
    again = compared_by(trainer, *COMPARED)
    assert replace(again, seconds=0.0) == replace(first, seconds=0.0)
    assert path.stat().st_mtime_ns == stamp
    compared_by(trainer, *COMPARED, "seed=1")
    assert path.stat().st_mtime_ns != stamp


def test_a_stop_ends_the_training_of_the_own_model_and_nothing_is_kept(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=2))
    heard = 0

    def stops(done: int, of: int) -> None:
        nonlocal heard
        heard += 1
        if heard > 2:
            raise StoppedError

    overrides = (*COMPARED, "training.local_steps=1000000")
    with pytest.raises(StoppedError):
        trainer.evaluate(after_the_rounds(*overrides), initial_weights(*overrides), stops)
    assert not (trainer.site.state_path / OWN_MODEL).exists()


def test_a_site_without_training_patients_has_no_models_of_its_own(tmp_path: Path) -> None:
    told = compared_by(trainer_at(pictures_site(tmp_path / "a", train=0, test=6)), *COMPARED)
    assert told.estimates
    assert told.others == {}


def test_with_noise_every_model_is_charged_and_gains_have_no_interval(tmp_path: Path) -> None:
    leaves = LeavePolicy(metrics={"*": 3}, metrics_noise_multiplier=3.0, own_models=True)
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=12))
    trainer._policy = replace(open_policy(), may_leave=leaves)
    told = compared_by(trainer, *COMPARED)
    ledger = [s for s in charges_at(tmp_path / "a") if s.noise_multiplier == 3.0]
    assert len(ledger) == 3
    gain = told.gains["local"]["auroc"]
    assert (gain.low, gain.high) == (None, None)
    assert compared_by(trainer, *COMPARED).gains == told.gains
    assert len(charges_at(tmp_path / "a")) == len(ledger) + 1


def test_dittos_term_holds_the_personal_model_to_the_federated_one(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=4))
    overrides = (*COMPARED, "training.optimizer=sgd", "training.lr=0.05", "training.local_steps=20")
    start = initial_weights(*overrides)

    def moved(mu: float) -> float:
        asked_for = (*overrides, f"evaluation.personal_mu={mu:g}")
        with trainer._working(after_the_rounds(*asked_for)) as work:
            work.model.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in start.items()})
            federated, place = state_of(work.model), trainer._place()
            own = own_models(work, place, federated, trainer.site.state_path, lambda *_: None)
            personal = dict(own)["personal"]
        return sum(
            float((personal[n] - torch.from_numpy(a)).square().sum()) for n, a in start.items()
        )

    free, held, nailed = moved(0.0), moved(1.0), moved(19.0)
    assert 0 < nailed < held < free
    assert nailed < 0.1 * free


def test_what_is_told_of_own_models_stands_in_the_ledger_as_unprotected(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=6))
    for _ in range(2):
        compared_by(trainer, *COMPARED)
    assert charges_at(tmp_path / "a") == [unprotected_release()]


def test_the_default_policy_tells_nothing_of_own_models_and_trains_none(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=12))
    told = LeavePolicy(metrics={"*": 3}, metrics_noise_multiplier=0.0)
    trainer._policy = replace(open_policy(), may_leave=told)
    answer = compared_by(trainer, *COMPARED)
    assert answer.estimates
    assert answer.others == answer.gains == {}
    assert not (trainer.site.state_path / OWN_MODEL).exists()
    assert charges_at(tmp_path / "a") == []


def test_models_are_compared_after_the_last_round_alone(tmp_path: Path) -> None:
    # The server chooses the weights that are asked about: once is what was agreed.
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=6))
    early = replace(after_the_rounds(*COMPARED), round=1)
    body = trainer.evaluate(early, initial_weights(*COMPARED)).body
    assert isinstance(body, EvaluateReply)
    assert body.estimates
    assert body.others == {}
