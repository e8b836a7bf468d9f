import csv
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import client.trainer
from client.outbox import Outbox
from client.privacy.ledger import ledgers_in
from client.privacy.policy import CohortPolicy, LeavePolicy, Policy, PrivacyPolicy, open_policy
from client.privacy.speech import speakable
from client.progress import StoppedError
from client.trainer import Trainer, trainer_at
from common.accounting import PrivateSteps, epsilon_of, unprotected_release
from common.contract import Description, RefusalError, Released, Request, StudyReference, TrainReply
from common.control import PREFIX
from common.durable import simulated
from common.schema import SettingsError
from common.state import Arrays, digest_of
from configs import CONFIG_FOLDER
from tests.builders import (
    PICTURES,
    PRIVATE,
    SLICES,
    charges_at,
    initial_weights,
    pictures_site,
    request_for,
    study_from,
    volumes_site,
)

SGD = (*PICTURES, "training.optimizer=sgd")
BATCH_NORM = (*SGD, "model.norm=batch")
ALL = ("training.batch_size=12",)
LOUD = (*SGD, "privacy.mechanism=dp_sgd", "privacy.noise_multiplier=1e4")


def trained(
    trainer: Trainer, *overrides: str, round_number: int = 1, weights: Arrays | None = None
) -> tuple[TrainReply, Arrays]:
    request = request_for(*overrides, round_number=round_number)
    return bodies(trainer.train(request, weights or initial_weights(*overrides)))


def bodies(released: Released) -> tuple[Any, Arrays]:
    return released.body, released.weights or {}


def moved(update: Arrays, weights: Arrays) -> np.ndarray:
    return np.concatenate([(update[n] - weights[n]).ravel() for n in sorted(weights)])


def correlation(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.corrcoef(one, two)[0, 1])


def test_a_description_counts_patients_and_images(tmp_path: Path) -> None:
    about = (
        trainer_at(pictures_site(tmp_path / "a", train=3, test=2, each=4))
        .describe(request_for(*PICTURES))
        .body
    )
    assert (about.site, about.patients_train, about.patients_held_out) == ("st-a", 3, 2)
    assert (about.images_train, about.bad_files) == (12, 0)
    slices = (
        trainer_at(volumes_site(tmp_path / "v", train=2, slices=5))
        .describe(request_for(*SLICES))
        .body
    )
    assert (slices.patients_train, slices.images_train) == (2, 10)


def test_bad_files_are_counted_where_the_study_skips_them(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a", train=3, test=1)
    (tmp_path / "a" / "0-0.png").write_bytes(b"not a picture")
    skip = (*PICTURES, "data.on_bad_file=skip")
    about = trainer_at(path).describe(request_for(*skip)).body
    assert (about.patients_train, about.bad_files) == (2, 1)
    with pytest.raises(RefusalError, match="files of this site cannot be used") as refused:
        trainer_at(path).describe(request_for(*PICTURES))
    assert refused.value.code == "data"


def test_an_update_tells_patients_steps_and_loss(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=3, each=4))
    reply, weights = trained(trainer, *PICTURES)
    assert (reply.site, reply.round, reply.patients, reply.steps) == ("st-a", 1, 3, 2)
    assert reply.train_loss == pytest.approx(0.7, abs=0.3)
    assert reply.privacy is None
    assert reply.estimates == {}
    assert weights.keys() == initial_weights(*PICTURES).keys()


def test_the_incoming_model_is_evaluated_before_it_is_trained(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=3, test=4))
    weights = initial_weights(*PICTURES)
    request = request_for(*PICTURES, evaluate=True)
    alone = trainer.evaluate(request, weights).body
    reply = trainer.train(request, weights).body
    assert reply.estimates == alone.estimates
    assert alone.estimates["auroc"].n == 4
    assert (alone.site, alone.round) == ("st-a", 1)


def test_a_site_without_held_out_patients_has_no_estimates(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", test=0))
    found = trainer.evaluate(request_for(*PICTURES), initial_weights(*PICTURES)).body
    assert found.estimates == {}


@pytest.mark.parametrize("overrides", [SGD, (*SGD, *PRIVATE), (*SGD, "data.augment=full")])
def test_the_same_request_gives_the_same_bytes_and_one_charge(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    path = pictures_site(tmp_path / "a", each=2)
    first = trained(trainer_at(path), *overrides)
    again = trained(trainer_at(path), *overrides)
    (tmp_path / "a" / "state" / "last_reply.safetensors").unlink()
    anew = trained(trainer_at(path), *overrides)
    assert digest_of(first[1]) == digest_of(again[1]) == digest_of(anew[1])
    assert first[0] == again[0] == replace(anew[0], seconds=first[0].seconds)
    assert len(charges_at(tmp_path / "a")) == 1


@pytest.mark.parametrize("more", [(), PRIVATE])
def test_a_virtual_hospital_keeps_no_answer_and_gives_the_same_again_for_one_charge(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    path = pictures_site(tmp_path / "a", each=2)
    with simulated():
        first, again = (trained(trainer_at(path), *SGD, *more) for _ in range(2))
    assert Outbox(tmp_path / "a" / "state").last() is None
    assert digest_of(first[1]) == digest_of(again[1])
    assert first[0] == replace(again[0], seconds=first[0].seconds)
    assert len(charges_at(tmp_path / "a")) == 1


def test_a_virtual_hospital_keeps_an_answer_that_took_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.trainer, "LONG_S", -1.0)
    with simulated():
        _, update = trained(trainer_at(pictures_site(tmp_path / "a")), *SGD)
    kept = Outbox(tmp_path / "a" / "state").last()
    assert kept is not None
    assert digest_of(kept.leaving) == digest_of(update)


@pytest.mark.parametrize(
    "overrides",
    [
        (*BATCH_NORM, "model.batch_norm_policy=local"),
        (*SGD, "strategy=scaffold"),
        (*SGD, "compression=int8", "compression.up.kept=0.05", "compression.down=null"),
    ],
)
def test_a_virtual_hospital_keeps_what_its_next_round_needs(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    real, virtual = (pictures_site(tmp_path / name) for name in ("real", "virtual"))
    start = initial_weights(*overrides)
    if overrides[-1] == "strategy=scaffold":
        start = {**start, **{PREFIX + n: np.zeros_like(array) for n, array in start.items()}}
    told = []
    for path, way in ((real, nullcontext), (virtual, simulated)):
        with way():
            for number in (1, 2):
                _, update = trained(
                    trainer_at(path), *overrides, round_number=number, weights=start
                )
        told.append(digest_of(update))
    assert told[0] == told[1]
    assert Outbox(virtual.parent / "state").last() is not None


def test_every_round_is_charged_and_epsilon_grows(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    overrides = (*SGD, *PRIVATE, "rounds=3")
    told = [trained(trainer, *overrides, round_number=number)[0] for number in (1, 2, 3)]
    spent = [reply.privacy for reply in told]
    assert [s.steps for s in spent if s] == [1, 2, 3]
    assert [s.epsilon for s in spent if s] == sorted({s.epsilon for s in spent if s})
    assert spent[-1] is not None
    epsilon = epsilon_of(charges_at(tmp_path / "a"), spent[-1].delta)
    assert spent[-1].epsilon == pytest.approx(epsilon, rel=1e-5)
    assert spent[-1].epsilon == spent[-1].epsilon_image < spent[-1].epsilon_life
    assert spent[-1].delta == 1 / 8
    assert spent[-1].unit == "patient"


def test_with_privacy_no_loss_is_told(tmp_path: Path) -> None:
    reply, _ = trained(trainer_at(pictures_site(tmp_path / "a")), *SGD, *PRIVATE)
    assert reply.train_loss is None


@pytest.mark.parametrize("change", ["weights", "round"])
def test_another_request_meets_other_noise(change: str, tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    weights = initial_weights(*LOUD)
    _, one = trained(trainer, *LOUD, weights=weights)
    if change == "weights":
        weights = {name: array + np.float32(1e-3) for name, array in weights.items()}
        _, two = trained(trainer, *LOUD, weights=weights)
    else:
        _, two = trained(trainer, *LOUD, weights=weights, round_number=2)
    noise = moved(one, initial_weights(*LOUD)), moved(two, weights)
    assert abs(correlation(*noise)) < 0.3
    assert sum(c.steps for c in charges_at(tmp_path / "a")) == 2


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_round_that_the_study_does_not_have_is_refused(number: int, tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    with pytest.raises(RefusalError, match="no such round; ask for 1 to 2"):
        trained(trainer, *SGD, *PRIVATE, round_number=number)
    assert charges_at(tmp_path / "a") == []


def test_with_privacy_what_is_drawn_for_the_images_is_the_sites_secret(tmp_path: Path) -> None:
    # All are drawn, the noise is next to nothing: sites of equal images differ by their keys.
    quiet = (*SGD, *ALL, "privacy.mechanism=dp_sgd", "privacy.noise_multiplier=2e-3")
    updates = {}
    for augment in ("none", "flip"):
        for name in ("a", "b"):
            # Of twelve patients each: two keys flip the same images once in 4096 times.
            site = trainer_at(pictures_site(tmp_path / augment / name, name="st-a", train=12))
            updates[augment, name] = trained(site, *quiet, f"data.augment={augment}")[1]
    weights = initial_weights(*quiet)
    for augment, alike in (("none", True), ("flip", False)):
        one, two = (moved(updates[augment, name], weights) for name in ("a", "b"))
        assert (correlation(one, two) > 0.99) == alike


def test_a_site_that_lost_its_key_is_charged_for_its_other_noise(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a")
    _, one = trained(trainer_at(path), *LOUD)
    (tmp_path / "a" / "state" / "key").unlink()
    _, two = trained(trainer_at(path), *LOUD)
    assert digest_of(one) != digest_of(two)
    assert len(charges_at(tmp_path / "a")) == 2


def test_new_patients_in_the_manifest_are_charged_to_their_own_ledger(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a")
    trainer = trainer_at(path)
    trained(trainer, *LOUD)
    manifest = tmp_path / "a" / "manifest.csv"
    manifest.write_text(re.sub(r",p(\d)", r",new-p\1", manifest.read_text()))
    trained(trainer, *LOUD, "seed=1")
    assert len(list((tmp_path / "a" / "state" / "ledgers").glob("*.ledger"))) == 2


def overflowing(*overrides: str) -> Arrays:
    """Return weights with which every probability is NaN."""
    return {name: array * np.float32(1e30) for name, array in initial_weights(*overrides).items()}


def test_weights_that_overflow_tell_nothing(tmp_path: Path) -> None:
    leaves = LeavePolicy(metrics={"auroc": 2}, metrics_noise_multiplier=3.0)
    trainer = with_policy(
        pictures_site(tmp_path / "a", test=12), replace(open_policy(), may_leave=leaves)
    )
    overrides = (*SGD, *PRIVATE)
    weights = overflowing(*overrides)
    found = trainer.evaluate(request_for(*overrides), weights).body
    assert set(found.estimates) == {"auroc"}
    reply, _ = trained(trainer, *overrides, weights=weights)
    assert reply.privacy is not None


def relabel(rows: list[dict[str, str]]) -> None:
    for row in rows:
        row["label"] = {"normal": "pneumonia", "pneumonia": "normal"}[row["label"]]


def rename(rows: list[dict[str, str]]) -> None:
    rows[1]["patient"] = rows[0]["patient"]


def resplit(rows: list[dict[str, str]]) -> None:
    rows[0]["split"] = "test"


@pytest.mark.parametrize("change", [relabel, rename, resplit])
def test_other_data_meets_other_noise_though_the_files_are_the_same(
    change: Callable[[list[dict[str, str]]], None], tmp_path: Path
) -> None:
    path = pictures_site(tmp_path / "a")
    weights = initial_weights(*LOUD)
    _, one = trained(trainer_at(path), *LOUD)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    manifest = tmp_path / "b" / "manifest.csv"
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _, two = trained(trainer_at(tmp_path / "b" / "site.yaml"), *LOUD)
    assert abs(correlation(moved(one, weights), moved(two, weights))) < 0.3
    assert len(charges_at(tmp_path / "b")) == 2


def test_the_same_data_elsewhere_is_the_same_release(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a")
    _, one = trained(trainer_at(path), *LOUD)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    _, two = trained(trainer_at(tmp_path / "b" / "site.yaml"), *LOUD)
    assert digest_of(one) == digest_of(two)
    assert len(charges_at(tmp_path / "b")) == 1


def test_another_site_meets_other_noise(tmp_path: Path) -> None:
    weights = initial_weights(*LOUD)
    noise = [
        moved(trained(trainer_at(pictures_site(tmp_path / name)), *LOUD)[1], weights)
        for name in ("a", "b")
    ]
    assert abs(correlation(*noise)) < 0.3


def test_a_study_of_another_digest_is_refused_with_both(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    request = request_for(*PICTURES)
    other = replace(request, study=replace(request.study, digest="ab" * 32))
    for ask in (trainer.describe, lambda r: trainer.train(r, initial_weights(*PICTURES))):
        with pytest.raises(RefusalError, match="study abababababab") as refused:
            ask(other)
        assert request.study.digest[:12] in refused.value.text
        assert refused.value.code == "study"


def test_mixed_precision_moves_the_weights_nearly_as_float32_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Emulated where this machine has not got it: slower, the same numbers.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    trainer, start = trainer_at(pictures_site(tmp_path / "a")), initial_weights(*SGD)
    _, whole = trained(trainer, *SGD)
    _, mixed = trained(trainer, *SGD, "training.amp=true")
    assert all(array.dtype == np.float32 for array in mixed.values())
    assert any((mixed[name] != whole[name]).any() for name in start)
    assert correlation(moved(mixed, start), moved(whole, start)) > 0.99


def test_a_delta_too_large_for_the_site_is_refused_before_the_first_round(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    with pytest.raises(RefusalError, match=r"privacy\.delta=0\.5 is more than"):
        trainer.describe(request_for(*SGD, *PRIVATE, "privacy.delta=0.5"))


def test_an_update_that_diverged_is_refused_and_not_kept(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    with pytest.raises(RefusalError, match="diverged") as refused:
        trained(trainer, *SGD, "training.lr=1e38", "training.local_steps=4")
    assert refused.value.code == "training"
    assert Outbox(tmp_path / "a" / "state").last() is None


def test_a_site_without_training_patients_evaluates_and_refuses_to_train(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=0, test=6))
    for overrides in (SGD, (*SGD, *PRIVATE)):
        assert trainer.describe(request_for(*overrides)).body.patients_train == 0
        with pytest.raises(RefusalError, match="no training patients"):
            trained(trainer, *overrides)
        found = trainer.evaluate(request_for(*overrides), initial_weights(*overrides)).body
        assert found.estimates["auroc"].n == 6


def with_policy(path: Path, policy: Policy) -> Trainer:
    (path.parent / "policy.yaml").write_text(yaml.safe_dump(asdict(policy)))
    return trainer_at(path)


@pytest.mark.parametrize("test", [5, 6])
def test_estimates_over_few_patients_stay_at_the_site(test: int, tmp_path: Path) -> None:
    leaves = replace(open_policy().may_leave, subgroups=[])
    few = CohortPolicy(least_patients_told=6)
    policy = replace(open_policy(), may_leave=leaves, cohort=few)
    trainer = with_policy(pictures_site(tmp_path / "a", train=20, test=test), policy)
    weights = initial_weights(*SGD)
    told = bool(trainer.evaluate(request_for(*SGD), weights).body.estimates)
    reply = trainer.train(request_for(*SGD, evaluate=True), weights).body
    assert told == bool(reply.estimates) == (test == 6)


def test_an_update_without_privacy_stands_in_the_ledger_once(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    for _ in range(2):
        trained(trainer, *PICTURES)
    assert charges_at(tmp_path / "a") == [unprotected_release()]


def test_a_ledger_in_use_is_another_refusal_than_a_broken_one(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    trained(trainer, *PICTURES)
    (ledger,) = ledgers_in(tmp_path / "a" / "state" / "ledgers")
    with ledger.exclusive(), pytest.raises(RefusalError, match="ask it again later"):
        trained(trainer, *PICTURES)
    ledger.path.write_bytes(b"no ledger")
    with pytest.raises(RefusalError, match="the site's own log says why"):
        trained(trainer, *PICTURES)


def test_noised_metrics_are_charged_once_and_told_the_same_again(tmp_path: Path) -> None:
    leaves = LeavePolicy(metrics={"auroc": 2}, metrics_noise_multiplier=3.0)
    trainer = with_policy(
        pictures_site(tmp_path / "a", test=12), replace(open_policy(), may_leave=leaves)
    )
    asked = request_for(*SGD), initial_weights(*SGD)
    one, two = trainer.evaluate(*asked).body, trainer.evaluate(*asked).body
    assert one.estimates == two.estimates
    assert set(one.estimates) == {"auroc"}
    assert one.estimates["auroc"].low is None
    assert charges_at(tmp_path / "a") == [
        PrivateSteps(noise_multiplier=3.0, sample_rate=1.0, steps=1)
    ]


def test_a_study_that_weights_by_it_hears_how_good_the_update_is_where_it_was_made(
    tmp_path: Path,
) -> None:
    adjusted = (*SGD, "strategy=feddg_ga", "training.lr=0.5")
    leaves = LeavePolicy(metrics={"auroc": 2}, metrics_noise_multiplier=3.0)
    path = pictures_site(tmp_path / "a", train=8, test=12)
    asked = request_for(*adjusted, evaluate=True)
    body, update = bodies(trainer_at(path).train(asked, initial_weights(*adjusted)))
    assert body.trained != body.estimates
    assert body.trained == trainer_at(path).evaluate(asked, update).body.estimates
    noised = with_policy(
        pictures_site(tmp_path / "b", train=8, test=12), replace(open_policy(), may_leave=leaves)
    )
    noised.train(asked, initial_weights(*adjusted))
    metrics = PrivateSteps(noise_multiplier=3.0, sample_rate=1.0, steps=1)
    assert charges_at(tmp_path / "b").count(metrics) == 2
    assert not bodies(noised.train(request_for(*SGD, evaluate=True), initial_weights(*SGD)))[
        0
    ].trained


def test_a_site_without_a_policy_file_refuses_what_it_has_not_approved(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a", train=20, test=10)
    path.write_text(path.read_text().replace("policy: policy.yaml\n", ""))
    overrides = (*SGD, *PRIVATE, "privacy.noise_multiplier=2.0")
    with pytest.raises(RefusalError, match="not approved") as refused:
        trainer_at(path).describe(request_for(*overrides))
    digest = request_for(*overrides).study.digest
    assert digest in refused.value.text
    (tmp_path / "a" / "policy.yaml").write_text(f"studies: {{approved: [{digest}]}}")
    path.write_text(path.read_text() + "policy: policy.yaml\n")
    about = trainer_at(path).describe(request_for(*overrides)).body
    assert about.patients_train == 20


def test_no_file_is_opened_for_a_study_that_is_not_approved(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a", train=20, test=10)
    (tmp_path / "a" / "0-0.png").write_bytes(b"not a picture")
    path.write_text(path.read_text().replace("policy: policy.yaml\n", ""))
    with pytest.raises(RefusalError, match="not approved"):
        trainer_at(path).describe(request_for(*SGD, *PRIVATE))


def test_an_evaluation_can_be_stopped_within_a_batch(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a", train=20, test=10)
    heard: list[tuple[int, int]] = []

    def stops(done: int, of: int) -> None:
        heard.append((done, of))
        raise StoppedError

    with pytest.raises(StoppedError):
        trainer_at(path).evaluate(request_for(*SGD), initial_weights(*SGD), stops)
    assert heard == [(0, 0)]


def test_a_study_over_the_cap_is_refused_before_its_first_round(tmp_path: Path) -> None:
    silent = replace(open_policy().may_leave, profile_noise_multiplier=None)
    caps = PrivacyPolicy(max_epsilon_study=1.0, max_delta=1.0)
    capped = replace(open_policy(), privacy=caps, may_leave=silent)
    trainer = with_policy(pictures_site(tmp_path / "a"), capped)
    overrides = (*SGD, *PRIVATE)
    with pytest.raises(RefusalError, match="over this site's cap of 1"):
        trainer.describe(request_for(*overrides))
    with pytest.raises(RefusalError, match="over this site's cap of 1"):
        trained(trainer, *overrides)
    assert charges_at(tmp_path / "a") == []


def shorter(weights: Arrays) -> Arrays:
    return dict(list(weights.items())[1:])


def longer(weights: Arrays) -> Arrays:
    return {**weights, "intruder": np.zeros(1, np.float32)}


def broadcast(weights: Arrays) -> Arrays:
    return {**weights, "4.weight": weights["4.weight"][:1]}


@pytest.mark.parametrize("change", [shorter, longer, broadcast, lambda _: {}])
def test_weights_of_another_form_are_refused(
    change: Callable[[Arrays], Arrays], tmp_path: Path
) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    weights = change(initial_weights(*SGD))
    request = request_for(*SGD)
    for ask in (trainer.train, trainer.evaluate):
        with pytest.raises(RefusalError, match="do not fit the study's model"):
            ask(request, weights)


def counters(state: dict[str, torch.Tensor]) -> set[int]:
    return {int(t) for name, t in state.items() if name.endswith("num_batches_tracked")}


def test_batch_normalisation_stays_at_the_site_with_the_policy_local(tmp_path: Path) -> None:
    local = (*BATCH_NORM, "model.batch_norm_policy=local")
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    outbox = Outbox(tmp_path / "a" / "state")
    weights: Arrays = initial_weights(*local)
    for number in (1, 2):
        _, weights = trained(trainer, *local, round_number=number, weights=weights)
        kept = outbox.last()
        assert kept is not None
        assert counters(kept.local) == {number}
        assert not any("adn.N" in name for name in weights)
    # Another study begins with its own.
    trained(trainer, *local, "seed=7")
    kept = outbox.last()
    assert kept is not None
    assert counters(kept.local) == {1}


def test_a_head_that_is_local_stays_at_the_site_and_goes_on_from_round_to_round(
    tmp_path: Path,
) -> None:
    overrides = (*SGD, "model.local=['4.*']", "rounds=2")
    path = pictures_site(tmp_path / "a", train=8)
    start = initial_weights(*overrides)
    assert not any(name.startswith("4.") for name in start)
    first = trainer_at(path).train(request_for(*overrides), start).weights
    assert first is not None
    assert set(first) == set(start)
    kept = Outbox(path.parent / "state").last()
    assert kept is not None
    assert set(kept.local) == {"4.weight", "4.bias"}
    twin = shutil.copytree(path.parent, tmp_path / "twin") / "site.yaml"
    (tmp_path / "twin" / "state" / "last_reply.safetensors").unlink()
    second = request_for(*overrides, round_number=2)
    with_head, without = (trainer_at(place).train(second, first).weights for place in (path, twin))
    assert with_head is not None
    assert without is not None
    assert any(not np.array_equal(with_head[name], without[name]) for name in start)


def test_batch_normalisation_travels_with_the_policy_average(tmp_path: Path) -> None:
    average = (*BATCH_NORM, "model.batch_norm_policy=average")
    _, weights = trained(trainer_at(pictures_site(tmp_path / "a")), *average)
    assert weights["0.adn.N.num_batches_tracked"] == 1
    assert not np.allclose(weights["0.adn.N.running_mean"], 0)


def test_training_leaves_the_global_generator_as_it_was(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    before = torch.random.get_rng_state()
    trained(trainer, *SGD, "model.dropout=0.5")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a")
    path.write_text(path.read_text() + "device: cuda\n")
    with pytest.raises(SettingsError, match="'cuda' is not here"):
        trainer_at(path)


@pytest.mark.parametrize(
    "override",
    [
        "experiment=../../../../tmp/site",
        "model=/etc/passwd",
        "+experiment@_global_=smoke",
        "+model@foo=../policy",
        "experiment=[smoke,../x]",
        "method=[rank,/etc/passwd]",
        "method=[rank,[rank]]",
        "model={name:unet}",
        "defaults=[]",
        "~training",
        "seed=${oc.env:HOME}",
        "hydra.searchpath=[file:///etc]",
    ],
)
def test_no_override_leads_to_a_file_of_the_site(override: str, tmp_path: Path) -> None:
    reference = StudyReference(overrides=[*PICTURES, override], digest="ab")
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    with pytest.raises(RefusalError) as refused:
        trainer.describe(Request(study=reference))
    assert refused.value.code == "study"
    assert str(tmp_path) not in refused.value.text
    assert "digest" not in refused.value.text


SCAFFOLD = (*SGD, "strategy=scaffold", "rounds=3")


def with_controls(*overrides: str) -> Arrays:
    weights = initial_weights(*overrides)
    return {**weights, **{f"control/{name}": np.zeros_like(a) for name, a in weights.items()}}


@pytest.mark.parametrize("privacy", [(), PRIVATE])
def test_scaffolds_first_round_is_fedavgs_and_its_variates_the_mean_gradient(
    privacy: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = (*SCAFFOLD, *privacy)
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8))
    start = with_controls(*overrides)
    released = trainer.train(request_for(*overrides), start)
    assert isinstance(released.body, TrainReply)
    assert released.weights is not None
    assert set(released.weights) == set(start)
    lr = study_from(*overrides).training.lr
    for name in initial_weights(*overrides):
        moved = (start[name] - released.weights[name]) / (released.body.steps * lr)
        np.testing.assert_allclose(released.weights[f"control/{name}"], moved, rtol=1e-4, atol=1e-6)
    if not privacy:
        plain = trainer_at(pictures_site(tmp_path / "b", train=8)).train(
            request_for(*SGD, "rounds=3"), initial_weights(*SGD, "rounds=3")
        )
        assert plain.weights is not None
        assert all(np.array_equal(released.weights[n], a) for n, a in plain.weights.items())


@pytest.mark.parametrize("privacy", [(), PRIVATE])
def test_scaffolds_correction_acts_after_the_noise(
    privacy: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = (*SCAFFOLD, *privacy)
    trainer, start = trainer_at(pictures_site(tmp_path / "a", train=8)), with_controls(*overrides)
    pushed = {n: a + 100 if n.startswith("control/") else a for n, a in start.items()}
    lr = study_from(*overrides).training.lr
    one = trainer.train(request_for(*overrides), start).weights
    two = trainer.train(request_for(*overrides), pushed)
    assert one is not None
    assert two.weights is not None
    assert isinstance(two.body, TrainReply)
    name = "4.bias"
    moved = float((one[name] - two.weights[name]).mean())
    # Every step went 100 x lr further, but for what noise of another release makes of it.
    assert moved == pytest.approx(100 * lr * two.body.steps, rel=0.5)


@pytest.mark.parametrize("own", [("strategy=scaffold",), ("model.local=['4.*']",)])
def test_the_same_request_in_another_state_of_the_site_meets_other_noise_and_is_charged(
    own: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = (*SGD, *PRIVATE, *own, "rounds=3", "privacy.noise_multiplier=20")
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8))
    start = with_controls(*overrides) if "strategy=scaffold" in own else initial_weights(*overrides)
    asked = [request_for(*overrides, round_number=number) for number in (1, 2, 3)]
    trainer.train(asked[0], start)
    first = trainer.train(asked[1], start).weights
    again = trainer.train(asked[1], start).weights
    assert first is not None
    assert again is not None
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert len(charges_at(tmp_path / "a")) == 2
    trainer.train(asked[2], start)
    # The site now keeps the third round; the second asked once more is another release.
    other = trainer.train(asked[1], start).weights
    assert other is not None
    assert len(charges_at(tmp_path / "a")) == 4
    size = max(float(np.abs(first[n] - start[n]).max()) for n in start)
    apart = max(float(np.abs(first[n] - other[n]).max()) for n in start)
    assert apart > 0.1 * size


def test_a_site_that_the_study_only_tests_does_not_train_whoever_asks(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=4))
    overrides = (*SGD, *PRIVATE, "strategy.tested=[st-a]")
    with pytest.raises(RefusalError, match="never trains"):
        trainer.train(request_for(*overrides), initial_weights(*overrides))
    assert trainer.evaluate(request_for(*overrides), initial_weights(*overrides)).body.estimates
    assert charges_at(tmp_path / "a") == []


def test_nobody_trains_an_ensemble_whoever_asks_and_no_site_keeps_it(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=4))
    overrides = (*PICTURES, "model.members=2")
    with pytest.raises(RefusalError, match="never trains"):
        trainer.train(request_for(*overrides), initial_weights(*overrides))
    asked = request_for(*overrides, round_number=2, evaluate=True)
    assert trainer.evaluate(asked, initial_weights(*overrides)).body.estimates
    assert not (trainer.site.state_path / "pages").exists()


def test_a_site_does_not_train_or_test_other_weights_than_were_approved(tmp_path: Path) -> None:
    """Whatever the centre sends: what the data officer approved is these weights."""
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=4))
    weights = initial_weights(*SGD)
    approved = (*SGD, *PRIVATE, f"begins_with='{digest_of(weights)}'")
    others = {name: array + 1 for name, array in weights.items()}
    with pytest.raises(RefusalError, match="not those that the study begins with"):
        trainer.train(request_for(*approved), others)
    assert charges_at(tmp_path / "a") == []
    assert trainer.train(request_for(*approved), weights).body.steps
    # The later rounds' are what the sites made of them.
    assert trainer.train(request_for(*approved, round_number=2), others).body.steps
    both = (*PICTURES, "model.members=2")
    weights = initial_weights(*both)
    approved = (*both, f"begins_with='{digest_of(weights)}'")
    others = {name: array + 1 for name, array in weights.items()}
    asked = request_for(*approved, round_number=2, evaluate=True)
    with pytest.raises(RefusalError, match="not those that the study begins with"):
        trainer.evaluate(asked, others)
    assert trainer.evaluate(asked, weights).body.estimates


def test_variates_that_the_study_does_not_have_are_refused(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8))
    with pytest.raises(RefusalError, match="not those of the model"):
        trainer.train(request_for(*SGD), with_controls(*SGD))


METHODS = sorted(path.stem for path in (CONFIG_FOLDER / "method").glob("*.yaml"))
NOT_PRIVATE = {
    "fedbn": "model.norm=batch cannot train with",
    "test_time_norm": "model.norm=batch cannot train with",
    "logit_adjustment": "which the noise of privacy does not cover",
    "contrastive": "compares the images of a batch",
}
NEEDS = {
    "fedrep": ("training.local_epochs=6",),
    "matched": ("data.reference=[-2.0,0.0,3.0]",),
    "fourier": (f"data.amplitudes=[[{','.join(['0.1'] * 25)}]]",),
    "spacing": ("data.spacing_mm=[2.0,2.0]",),
}


@pytest.mark.parametrize("privacy", [(), PRIVATE])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_privacy_too_or_says_why_not(
    method: str, privacy: tuple[str, ...], tmp_path: Path
) -> None:
    pictures = PICTURES
    if method == "contrastive":
        pictures = tuple(o.replace("task=classification", "task=pretraining") for o in PICTURES)
    overrides = (*pictures, f"method={method}", *NEEDS.get(method, ()), *privacy)
    if method in NOT_PRIVATE and privacy:
        with pytest.raises(SettingsError, match=NOT_PRIVATE[method]):
            study_from(*overrides)
        return
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8))
    scaffold = study_from(*overrides).strategy.control_variates
    start = with_controls(*overrides) if scaffold else initial_weights(*overrides)
    body, update = bodies(trainer.train(request_for(*overrides), start))
    assert body.steps > 0
    assert set(update) == set(start)
    assert (body.privacy is None) == (not privacy)
    assert any(not np.array_equal(update[name], start[name]) for name in start)


def test_turns_that_leave_the_rest_no_step_are_refused_before_the_first_round(
    tmp_path: Path,
) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8))
    with pytest.raises(RefusalError, match="leaves none of the 1 steps") as refused:
        trainer.describe(request_for(*PICTURES, "method=fedrep"))
    assert speakable(refused.value.text)


def test_a_list_of_methods_reaches_the_site(tmp_path: Path) -> None:
    study = (*PICTURES, "method=[rank,local_norms]")
    trainer = trainer_at(pictures_site(tmp_path / "a"))
    assert isinstance(trainer.describe(request_for(*study)).body, Description)
