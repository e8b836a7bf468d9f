import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from common.compression import CODED, coded, differences_of, moved_by
from common.config import study_digest
from common.contract import NO_BASE, Description, Estimate, Profile, Refusal, Request
from common.files import read_json
from common.messages import reply, unpack_weights
from common.profile import sizes_of
from common.schema import SettingsError
from common.study import Study
from common.tensor_files import read_tensors
from server.calls import Watch
from server.checkpoint import Checkpoint, save_checkpoint
from server.events import EVENTS, event_log
from server.network import Federation
from server.records import Outcome
from server.run import BEST, MODEL, RESULT, initial_network, reference_to, run_study, shared_state
from simulation.engines.grid import SimulatedGrid
from simulation.engines.inprocess import InProcess
from tests.builders import (
    PICTURES,
    Weights,
    initial_weights,
    numbers_app,
    packed,
    shifted,
    study_from,
    trained,
)

PATIENTS = {"st-a": 3, "st-b": 1, "st-c": 2}


def run(folder: Path, app: ClientApp, *overrides: str, agreed: tuple[str, ...] = ()) -> Outcome:
    study = study_from(*PICTURES, *overrides)
    tell = event_log(folder)
    grid = SimulatedGrid(InProcess(app, len(PATIENTS)))
    watch = Watch(join_timeout_s=0.2 if agreed else 60.0)
    sites = Federation(grid, reference_to(study, overrides), tell, watch)
    return run_study(study, sites, [*PATIENTS, *agreed], folder, tell)


def initial(study: Study) -> dict[str, torch.Tensor]:
    return shared_state(study, initial_network(study))


def breaks(how: Callable[[Weights], Weights]) -> ClientApp:
    """An app whose site st-b hands in a broken update in round 2."""

    def work(site: str, number: int, weights: Weights) -> Weights:
        update = shifted(site, number, weights)
        return how(update) if (site, number) == ("st-b", 2) else update

    return numbers_app(PATIENTS, work)


def answers(how: Callable[[Message], Message]) -> ClientApp:
    """An app whose site st-b answers otherwise in round 2."""

    def train(site: str, message: Message, asked: Request) -> Message | None:
        return how(message) if (site, asked.round) == ("st-b", 2) else None

    return numbers_app(PATIENTS, train=train)


def without_one(update: Weights) -> Weights:
    return dict(list(update.items())[1:])


def with_nan(update: Weights) -> Weights:
    name = next(iter(update))
    return {**update, name: np.full_like(update[name], np.nan)}


def broadcastable(update: Weights) -> Weights:
    return {**update, "4.weight": update["4.weight"][:1]}


def in_float64(update: Weights) -> Weights:
    return {**update, "4.bias": update["4.bias"].astype(np.float64)}


BROKEN: dict[str, tuple[ClientApp, str]] = {
    "nan": (breaks(with_nan), "NaN or infinite"),
    "shape": (breaks(broadcastable), "4.weight has shape (1, 8), the model has (2, 8)"),
    "missing key": (breaks(without_one), "tensors missing: 0.conv.weight"),
    "extra key": (breaks(lambda u: {**u, "x": u["4.bias"]}), "not in the model: x"),
    "dtype": (breaks(in_float64), "4.bias has dtype float64"),
    "crash": (
        answers(lambda m: Message(Error(code=2, reason="at /data"), reply_to=m)),
        "the site's process failed (code 2)",
    ),
    "refusal": (
        answers(lambda m: reply(packed(Refusal(site="st-b", code="data", text="no files")), m)),
        "data: no files",
    ),
    "name": (
        answers(lambda m: reply(packed(trained("st-a", 2, 1)), m)),
        "answered as 'st-a' for round 2",
    ),
    "round": (
        answers(lambda m: reply(packed(trained("st-b", 1, 1)), m)),
        "answered as 'st-b' for round 1",
    ),
    "no weights": (answers(lambda m: reply(packed(trained("st-b", 2, 1)), m)), "tensors missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_bad_site_is_named_and_the_round_goes_on_without_it(case: str, tmp_path: Path) -> None:
    app, told = BROKEN[case]
    outcome = run(tmp_path, app, "rounds=3")
    assert outcome.status == "partial"
    result = read_json(tmp_path / RESULT)
    assert [r["participants"] for r in result["rounds"]] == [
        ["st-a", "st-b", "st-c"],
        ["st-a", "st-c"],
        ["st-a", "st-b", "st-c"],
    ]
    assert told in result["rounds"][1]["missing"]["st-b"]
    assert told in result["reason"]
    assert "/data" not in result["reason"]
    good, _ = read_tensors(tmp_path / MODEL)
    assert all(bool(tensor.isfinite().all()) for tensor in good.values())


def test_the_refused_update_has_no_part_in_the_mean(tmp_path: Path) -> None:
    study = study_from(*PICTURES, "rounds=1")

    def work(site: str, number: int, weights: Weights) -> Weights:
        update = shifted(site, number, weights)
        return with_nan(update) if site == "st-b" else update

    run(tmp_path, numbers_app(PATIENTS, work), "rounds=1")
    model, _ = read_tensors(tmp_path / MODEL)
    for name, start in initial(study).items():
        sent = {name: start.numpy()}
        a, c = (shifted(site, 1, sent)[name].astype(np.float64) for site in ("st-a", "st-c"))
        assert model[name].numpy().tobytes() == ((3 * a + 2 * c) / 5).astype(np.float32).tobytes()


def test_fedavg_of_three_patients_and_one_is_their_three_to_one_mean(tmp_path: Path) -> None:
    study = study_from(*PICTURES, "rounds=1")
    app = numbers_app({"st-a": 3, "st-b": 1, "st-z": 0})
    run(tmp_path, app, "rounds=1")
    model, _ = read_tensors(tmp_path / MODEL)
    for name, start in initial(study).items():
        expected = start.double() + (3 * 0.01 + 1 * 0.02) / 4
        torch.testing.assert_close(model[name].double(), expected, rtol=0, atol=1e-6)


def test_a_run_with_every_site_in_every_round_is_completed(tmp_path: Path) -> None:
    outcome = run(tmp_path, numbers_app(PATIENTS))
    result = read_json(tmp_path / RESULT)
    assert (outcome.status, outcome.reason) == ("completed", None)
    assert result["status"] == "completed"
    assert result["initial"]["mean"] == {"auroc": 0.5}
    assert result["final"]["worst"]["auroc"] == 0.5
    events = [json.loads(line)["event"] for line in (tmp_path / EVENTS).read_text().splitlines()]
    assert events.count("round done") == 2
    assert events[-1] == "end"


def test_the_same_run_gives_the_same_model_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run(tmp_path / name, numbers_app(PATIENTS))
    one, two = ((tmp_path / name / MODEL).read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_study_below_its_quorum_fails_and_its_checkpoint_stands(tmp_path: Path) -> None:
    outcome = run(tmp_path, breaks(with_nan), "rounds=3", "strategy.quorum=3")
    result = read_json(tmp_path / RESULT)
    assert outcome.status == result["status"] == "failed"
    assert "round 2 has 2 accepted updates, strategy.quorum asks for 3" in result["reason"]
    assert "st-b" in result["reason"]
    assert len(result["rounds"]) == 1
    assert not (tmp_path / MODEL).exists()


@pytest.mark.parametrize(("optimizer", "averaged"), [("sgd", "null"), ("yogi", "4")])
def test_a_run_that_failed_goes_on_to_the_bytes_of_one_that_did_not(
    optimizer: str, averaged: str, tmp_path: Path
) -> None:
    settings = [
        "rounds=4",
        "strategy.quorum=3",
        "strategy.server_optimizer.momentum=0.9",
        f"strategy.server_optimizer.name={optimizer}",
        f"strategy.averaged_rounds={averaged}",
    ]
    for name in ("broken", "whole"):
        (tmp_path / name).mkdir()
    assert run(tmp_path / "broken", breaks(with_nan), *settings).status == "failed"
    assert run(tmp_path / "broken", numbers_app(PATIENTS), *settings).status == "completed"
    run(tmp_path / "whole", numbers_app(PATIENTS), *settings)
    assert (tmp_path / "broken" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()
    broken, whole = (read_json(tmp_path / name / RESULT) for name in ("broken", "whole"))
    assert untimed(broken) == untimed(whole)


def untimed(result: dict[str, Any]) -> dict[str, Any]:
    rounds = [{**record, "seconds": 0} for record in result["rounds"]]
    return {**result, "seconds": 0, "rounds": rounds}


def test_a_resumed_run_goes_on_without_a_site_that_is_gone(tmp_path: Path) -> None:
    def all_fail(_: str, message: Message, asked: Request) -> Message | None:
        return Message(Error(code=2), reply_to=message) if asked.round == 2 else None

    def gone(site: str, message: Message) -> Message | None:
        return Message(Error(code=2), reply_to=message) if site == "st-c" else None

    assert run(tmp_path, numbers_app(PATIENTS, train=all_fail)).status == "failed"
    assert run(tmp_path, numbers_app(PATIENTS, query=gone)).status == "partial"
    result = read_json(tmp_path / RESULT)
    assert result["rounds"][1]["participants"] == ["st-a", "st-b"]
    assert result["rounds"][1]["missing"] == {"st-c": "did not introduce itself"}
    assert result["final"]["missing"] == {"st-c": "did not introduce itself"}


def test_scaffolds_variates_are_combined_and_are_no_part_of_the_model(tmp_path: Path) -> None:
    overrides = ("strategy=scaffold", "training.optimizer=sgd", "rounds=2")
    heard: list[set[str]] = []

    def work(site: str, number: int, weights: Weights) -> Weights:
        heard.append(set(weights))
        return shifted(site, number, weights)

    assert run(tmp_path, numbers_app(PATIENTS, work), *overrides).status == "completed"
    names = set(initial(study_from(*PICTURES)))
    assert all(told == names | {f"control/{name}" for name in names} for told in heard)
    model, _ = read_tensors(tmp_path / MODEL)
    assert set(model) == names
    assert set(read_tensors(tmp_path / BEST)[0]) == names


@pytest.mark.parametrize(
    "wrong",
    [
        "training.local_first_steps=1",
        "training.momentum=0.9",
        "training.optimizer=adamw",
        "strategy.fraction=0.5",
    ],
)
def test_scaffold_is_refused_where_its_steps_would_not_be_gradients(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"strategy.control_variates=true"):
        study_from(
            *PICTURES, "strategy=scaffold", "training.optimizer=sgd", "model.local=[head]", wrong
        )


def test_the_weights_of_fairness_need_metrics_in_every_round() -> None:
    with pytest.raises(SettingsError, match="evaluate_every=2 leaves rounds without"):
        study_from(*PICTURES, "strategy=qfedavg", "evaluate_every=2")


def test_a_metric_that_cannot_be_costs_its_site_alone(tmp_path: Path) -> None:
    wild = {"auroc": Estimate(value=1.7e308, low=None, high=None, n=3)}
    told = replace(trained("st-b", 2, 1), estimates=wild)
    app = answers(lambda m: reply(packed(told, unpack_weights(m.content)), m))
    assert run(tmp_path, app, "rounds=3").status == "partial"
    result = read_json(tmp_path / RESULT)
    assert "not from 0 to 1" in result["rounds"][1]["missing"]["st-b"]


def test_a_profile_that_cannot_be_costs_its_site_its_place_on_the_map_alone(
    tmp_path: Path,
) -> None:
    sizes = sizes_of(study_from(*PICTURES))

    def told(site: str, patients: int) -> Profile:
        parts = {name: [0.1] * size for name, size in sizes.items()}
        return Profile(
            patients=10_000_000 if site == "st-b" else patients, noise_std=0.0, parts=parts
        )

    app = numbers_app(PATIENTS, profile=told)
    assert run(tmp_path, app, "evaluation=shift").status == "completed"
    shift = read_json(tmp_path / RESULT)["shift"]
    assert set(shift["distance"]["appearance"]) == {"st-a", "st-c"}
    assert shift["distance"]["appearance"]["st-a"]["st-c"] == 0
    events = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    (refused,) = [event for event in events if event["event"] == "profile refused"]
    assert (refused["site"], refused["why"]) == (
        "st-b",
        "it tells a profile of other patients than it has",
    )


def test_a_profile_that_nobody_asked_for_is_not_kept(tmp_path: Path) -> None:
    sizes = sizes_of(study_from(*PICTURES))
    parts = {name: [0.1] * size for name, size in sizes.items()}
    app = numbers_app(PATIENTS, profile=lambda _, n: Profile(patients=n, noise_std=0, parts=parts))
    run(tmp_path, app, "evaluation=shift", "evaluation.profile=null")
    assert "distance" not in read_json(tmp_path / RESULT)["shift"]


def test_a_site_that_is_to_be_tested_evaluates_and_never_trains(tmp_path: Path) -> None:
    assert run(tmp_path, numbers_app(PATIENTS), "strategy.tested=[st-b]").status == "completed"
    result = read_json(tmp_path / RESULT)
    assert all(record["participants"] == ["st-a", "st-c"] for record in result["rounds"])
    assert set(result["final"]["sites"]) == set(PATIENTS)


def test_a_site_to_be_tested_that_was_not_agreed_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['st-z'\] names no site.*st-a, st-b, st-c"):
        run(tmp_path, numbers_app(PATIENTS), "strategy.tested=[st-b,st-z]")
    assert not (tmp_path / RESULT).exists()


def test_an_agreed_site_that_never_comes_makes_the_run_partial(tmp_path: Path) -> None:
    outcome = run(tmp_path, numbers_app(PATIENTS), agreed=("st-z",))
    assert outcome.status == "partial"
    assert outcome.reason == "st-z: did not introduce itself"


def test_a_study_whose_sites_all_refuse_fails_with_their_reasons(tmp_path: Path) -> None:
    def refuse(site: str, message: Message) -> Message:
        return reply(packed(Refusal(site=site, code="study", text="not ours")), message)

    outcome = run(tmp_path, numbers_app(PATIENTS, query=refuse))
    assert outcome.status == "failed"
    assert read_json(tmp_path / RESULT)["reason"].count("study: not ours") == 3


def test_two_nodes_of_one_name_end_the_run(tmp_path: Path) -> None:
    def query(site: str, message: Message) -> Message | None:
        about = Description(
            site="st-a", patients_train=1, patients_held_out=0, images_train=1, bad_files=0
        )
        return reply(packed(about), message) if site == "st-b" else None

    with pytest.raises(ValueError, match="two nodes call themselves 'st-a'"):
        run(tmp_path, numbers_app(PATIENTS, query=query))


def test_a_site_without_training_patients_is_evaluated_and_never_trained(tmp_path: Path) -> None:
    run(tmp_path, numbers_app({"st-a": 3, "st-b": 1, "st-c": 0}))
    result = read_json(tmp_path / RESULT)
    assert all(r["participants"] == ["st-a", "st-b"] for r in result["rounds"])
    assert set(result["final"]["sites"]) == {"st-a", "st-b", "st-c"}
    assert set(result["initial"]["sites"]) == {"st-a", "st-b", "st-c"}


def test_the_best_model_is_the_one_the_sites_measured_best(tmp_path: Path) -> None:
    # The sites tell 0.5, 0.6 and 0.7 of the models before rounds 1 to 3, and 0.5 of the last.
    run(tmp_path, numbers_app(PATIENTS), "rounds=3")
    assert read_json(tmp_path / RESULT)["best"] == {"round": 2, "value": pytest.approx(0.7)}
    _, about = read_tensors(tmp_path / BEST)
    assert (about["after_round"], about["rounds"]) == (2, 2)
    assert about["digest"] == read_json(tmp_path / RESULT)["study_digest"]


def test_sites_evaluate_every_kth_round_and_the_last_model(tmp_path: Path) -> None:
    run(tmp_path, numbers_app(PATIENTS), "rounds=3", "evaluate_every=2")
    rounds = read_json(tmp_path / RESULT)["rounds"]
    assert [bool(record["sites"]["st-a"]["before"]) for record in rounds] == [True, False, True]


def test_batch_normalisation_stays_at_home_with_the_policy_local() -> None:
    settings = ("model.norm=batch", "model.batch_norm_policy=local")
    study = study_from(*PICTURES, *settings)
    stays = set(initial_network(study).state_dict()) - set(initial(study))
    assert len(stays) == 10
    assert all(".adn.N." in name for name in stays)


def test_a_site_that_averaging_costs_most_comes_to_count_for_more(tmp_path: Path) -> None:
    # The model that comes in has 0.5 everywhere; what st-b makes of it has more at st-b.
    def work(site: str, message: Message, asked: Request) -> Message:
        own = {"auroc": Estimate(value=0.9 if site == "st-b" else 0.5, low=None, high=None, n=2)}
        body = trained(site, asked.round, PATIENTS[site], evaluated=True)
        weights = shifted(site, asked.round, dict(unpack_weights(message.content)))
        return reply(packed(replace(body, trained=own), weights), message)

    outcome = run(tmp_path, numbers_app(PATIENTS, train=work), "strategy=feddg_ga", "rounds=4")
    assert outcome.status == "completed"
    rounds = read_json(tmp_path / RESULT)["rounds"]
    weights = [{site: part["weight"] for site, part in of["sites"].items()} for of in rounds]
    by_patients = pytest.approx({site: count / 6 for site, count in PATIENTS.items()})
    # A gap is known when the model has come in again, and serves the round after.
    assert weights[0] == weights[1] == by_patients
    assert weights[1]["st-b"] < weights[2]["st-b"] < weights[3]["st-b"]
    assert rounds[0]["sites"]["st-b"]["after"]["auroc"]["value"] == 0.9


def test_two_strategies_that_set_the_weights_are_refused() -> None:
    with pytest.raises(SettingsError, match="each set the sites' weights"):
        study_from(*PICTURES, "strategy=feddg_ga", "strategy.fairness_q=1.0")
    with pytest.raises(SettingsError, match=r"strategy.generalisation_step weights the sites"):
        study_from(*PICTURES, "strategy=feddg_ga", "evaluate_every=2")


def test_distances_are_told_after_every_kth_round_and_at_the_end(tmp_path: Path) -> None:
    sizes = sizes_of(study_from(*PICTURES))

    def told(site: str, patients: int) -> Profile:
        parts = {name: [0.1 * PATIENTS[site]] * size for name, size in sizes.items()}
        return Profile(patients=patients, noise_std=0.0, parts=parts)

    often = ("evaluation=shift", "evaluation.profile_every=2", "rounds=5")
    assert run(tmp_path, numbers_app(PATIENTS, profile=told), *often).status == "completed"
    shift = read_json(tmp_path / RESULT)["shift"]
    assert list(shift["distance_after"]) == ["2", "4"]
    assert shift["distance_after"]["2"] == shift["distance"]


UP = ("compression=int8", "compression.down=null")


def coded_by(site: str, number: int, weights: Weights) -> Weights:
    codec = study_from(*PICTURES, "compression=int8").codec_up
    assert codec is not None
    update = shifted(site, number, weights)
    whole = coded(differences_of(weights, update, {}), codec, np.random.default_rng(number))
    return {CODED: whole}


def test_coded_updates_are_combined_as_whole_ones_are(tmp_path: Path) -> None:
    for name in ("plain", "coded"):
        (tmp_path / name).mkdir()
    run(tmp_path / "plain", numbers_app(PATIENTS), "rounds=2")
    run(tmp_path / "coded", numbers_app(PATIENTS, coded_by), "rounds=2", *UP)
    plain, found = (read_tensors(tmp_path / name / MODEL)[0] for name in ("plain", "coded"))
    for name, tensor in plain.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-3)
    sent, whole = (
        read_json(tmp_path / name / RESULT)["rounds"][0]["sites"]["st-a"]["bytes_sent"]
        for name in ("coded", "plain")
    )
    assert sent == len(coded_by("st-a", 1, dict(initial_weights(*PICTURES)))[CODED])
    assert sent != whole


@pytest.mark.parametrize(
    "how", [lambda u: u, lambda u: {CODED: coded_by("st-b", 2, u)[CODED][:-1]}]
)
def test_an_update_that_is_not_coded_as_the_study_says_is_left_out(
    how: Callable[[Weights], Weights], tmp_path: Path
) -> None:
    def work(site: str, number: int, weights: Weights) -> Weights:
        broken = (site, number) == ("st-b", 2)
        return how(weights) if broken else coded_by(site, number, weights)

    outcome = run(tmp_path, numbers_app(PATIENTS, work), "rounds=2", *UP)
    assert outcome.status == "partial"
    why = read_json(tmp_path / RESULT)["rounds"][1]["missing"]["st-b"]
    assert "the coded weights" in why or "not coded as the study says" in why


def test_a_site_that_lost_the_model_gets_the_whole_in_the_same_round(tmp_path: Path) -> None:
    codec = study_from(*PICTURES, "compression=int8").codec_down
    assert codec is not None
    kept: dict[str, Weights] = {}
    asked: list[tuple[str, int, bool]] = []

    def train(site: str, message: Message, request: Request) -> Message | None:
        weights = dict(unpack_weights(message.content))
        asked.append((site, request.round, request.before is not None))
        if request.before is not None:
            if (site, request.round) == ("st-b", 2):
                lost = Refusal(site=site, code=NO_BASE, text="not here")
                return reply(packed(lost), message)
            weights = {n: np.asarray(a) for n, a in moved_by(kept[site], weights, codec).items()}
        kept[site] = weights
        update = shifted(site, request.round, weights)
        return reply(packed(trained(site, request.round, PATIENTS[site]), update), message)

    settings = ("rounds=3", "compression=int8", "compression.up=null", "evaluate_every=3")
    outcome = run(tmp_path, numbers_app(PATIENTS, train=train), *settings)
    assert outcome.status == "completed"
    assert [whole for site, number, whole in asked if (site, number) == ("st-b", 2)] == [
        True,
        False,
    ]
    parts = read_json(tmp_path / RESULT)["rounds"][1]["sites"]
    assert parts["st-b"]["bytes_received"] > parts["st-a"]["bytes_received"]
    final = read_tensors(tmp_path / MODEL)[0]
    assert all(np.isfinite(tensor.numpy()).all() for tensor in final.values())


def test_an_ensemble_whose_networks_are_not_here_is_refused_with_the_way_to_it(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="turns RUN --kind ensemble"):
        run(tmp_path, numbers_app(PATIENTS), "model.members=3")


def test_an_ensemble_is_tested_at_every_site_and_trained_at_none(tmp_path: Path) -> None:
    study = study_from(*PICTURES, "model.members=2")
    save_checkpoint(tmp_path, Checkpoint(digest=study_digest(study), model=initial(study)))

    def train(site: str, message: Message, asked: Request) -> Message | None:
        raise AssertionError(f"{site} was asked to train")

    outcome = run(tmp_path, numbers_app(PATIENTS, train=train), "model.members=2")
    assert outcome.status == "completed"
    assert set(outcome.final) == set(PATIENTS)
    kept, _ = read_tensors(tmp_path / MODEL)
    assert set(kept) == set(initial(study))
