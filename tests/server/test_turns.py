from typing import Any

import pytest
from torch import Tensor

from common.config import load_study
from common.state import arrays_of, digest_of
from common.study import Study
from common.training_config import learning_rate
from server.run import initial_network
from server.turns import Kind, turns_of, with_turns
from tests.builders import PICTURES

SMOKE = ["experiment=smoke", "evaluation=shift", "name=chest"]


def estimates(**values: float) -> dict[str, Any]:
    return {s: {"dice": {"value": v, "low": v, "high": v, "n": 9}} for s, v in values.items()}


def result(**values: float) -> dict[str, Any]:
    cells = {
        s: {"value": v, "low": v, "high": v, "n": 9, "status": "ok"} for s, v in values.items()
    }
    return {
        "status": "completed",
        "reason": None,
        "headline": "dice",
        "metrics": {"dice": {"higher_is_better": True, "unit": "", "meaning": "overlap"}},
        "sites": {site: {"patients_train": 5} for site in values},
        "final": {"sites": estimates(**values), "missing": {}},
        "shift": {
            "metric": "dice",
            "matrix": {"federated": cells},
            "summary": {"federated": {"mean": 0.5}},
            "benefit": {site: {} for site in values},
        },
    }


WHOLE = result(north=0.8, south=0.6, west=0.7)
ALL = ["north", "south", "west"]


def test_in_a_turn_of_its_own_model_a_site_trains_alone_and_all_are_tested() -> None:
    turns = turns_of(Kind.OWN_MODELS, [*SMOKE, "strategy.quorum=3"], ALL, WHOLE)
    assert set(turns) == {"north", "south", "west"}
    study = load_study(turns["south"].overrides)
    assert study.strategy.tested == ["north", "west"]
    assert (study.name, study.strategy.quorum, study.evaluation) == ("chest_only_south", 1, None)
    assert len({turn.digest for turn in turns.values()}) == 3


def test_a_site_that_is_left_out_is_tested_beside_those_that_the_study_only_tests() -> None:
    turns = turns_of(Kind.LEFT_OUT, [*SMOKE, "strategy.tested=[west]"], ALL, WHOLE)
    assert set(turns) == {"north", "south"}
    study = load_study(turns["south"].overrides)
    assert study.strategy.tested == ["south", "west"]
    assert study.name == "chest_without_south"


def test_a_site_whose_name_is_a_number_takes_its_turn() -> None:
    turns = turns_of(
        Kind.OWN_MODELS, SMOKE, ["2024", "north"], result(**{"2024": 0.5, "north": 0.6})
    )
    assert load_study(turns["north"].overrides).strategy.tested == ["2024"]


@pytest.mark.parametrize(
    ("changes", "overrides", "text"),
    [
        ({"status": "failed"}, [], "failed"),
        ({"shift": None}, [], "evaluation=shift"),
        ({"sites": {"north": {"patients_train": 5}}}, [], "must be two"),
        ({}, ["model.local=[head]"], "no other site could run the rest"),
    ],
)
def test_what_cannot_take_turns_is_told_with_the_way_out(
    changes: dict[str, Any], overrides: list[str], text: str
) -> None:
    whole = {k: v for k, v in {**WHOLE, **changes}.items() if v is not None}
    with pytest.raises(ValueError, match=text):
        turns_of(Kind.OWN_MODELS, [*SMOKE, *overrides], ALL, whole)


def start() -> dict[str, Tensor]:
    return initial_network(load_study(SMOKE)).state_dict()


def owned(*sites: str) -> dict[str, dict[str, Tensor]]:
    return {site: {n: t + k for n, t in start().items()} for k, site in enumerate(sites)}


def test_the_ensemble_has_one_turn_in_which_all_are_tested_and_nobody_trains() -> None:
    asked = [*SMOKE, "strategy.tested=[west]"]
    turns = turns_of(Kind.ENSEMBLE, asked, ALL, WHOLE, owned("north", "south"))
    assert set(turns) == {"ensemble"}
    study = load_study(turns["ensemble"].overrides)
    assert study.strategy.tested == ["north", "south", "west"]
    # A site that trained nothing has no model in it.
    assert (study.name, study.model.members, study.evaluation) == ("chest_ensemble", 2, None)


def test_the_ensemble_is_made_of_each_sites_own_model_in_the_order_of_their_names() -> None:
    models = owned("south", "north")
    asked = [*SMOKE, "strategy.tested=[west]"]
    turn = turns_of(Kind.ENSEMBLE, asked, ALL, WHOLE, models)["ensemble"]
    begun = turn.checkpoint()
    assert begun is not None
    assert begun.digest == turn.digest
    network = initial_network(load_study(turn.overrides))
    network.load_state_dict(begun.model)
    for place, site in enumerate(("north", "south")):
        assert all(bool((begun.model[f"{place}.{n}"] == models[site][n]).all()) for n in start())


def personal(*overrides: str) -> Study:
    turns = turns_of(Kind.PERSONAL, [*SMOKE, *overrides], ALL, WHOLE, {"federated": start()})
    assert set(turns) == {"north", "south", "west"}
    return load_study(turns["south"].overrides)


def test_in_a_turn_of_its_personal_model_a_site_trains_the_final_one_alone_at_the_last_pace() -> (
    None
):
    study = personal(
        "evaluation=ditto",
        "evaluation.personal_rounds=3",
        "training.lr=0.02",
        "training.schedule=cosine",
        "training.local_epochs=2",
        "rounds=7",
    )
    assert (study.name, study.evaluation, study.rounds) == ("chest_personal_south", None, 1)
    assert study.strategy.tested == ["north", "west"]
    assert study.training.local_epochs == 6
    assert learning_rate(study.training, 1, 1) == pytest.approx(0.0002)
    assert study.strategy.proximal_mu == 0.1


def test_a_personal_round_of_steps_has_as_many_as_all_personal_rounds() -> None:
    study = personal("evaluation.personal_rounds=3", "training.local_steps=5")
    assert study.training.local_steps == 15


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=fedadam"],
        ["strategy=qfedavg"],
        ["strategy=afl"],
        ["strategy=feddg_ga"],
        ["strategy=fedavgm"],
        ["strategy=fedprox"],
        ["strategy=trimmed_mean", "strategy.quorum=3"],
        ["strategy=krum"],
        ["method=scaffold"],
        ["method=fedsgd"],
        ["compression=int8"],
        ["compression=int8", "compression.up.numbers=int4"],
        ["strategy.fraction=0.5"],
    ],
)
@pytest.mark.parametrize("kind", [Kind.OWN_MODELS, Kind.PERSONAL])
def test_however_the_study_combined_updates_a_model_of_one_site_is_its_own_update(
    kind: Kind, overrides: list[str]
) -> None:
    asked = [*SMOKE, *overrides]
    models = {"federated": initial_network(load_study(asked)).state_dict()}
    study = load_study(turns_of(kind, asked, ALL, WHOLE, models)["south"].overrides)
    kept = ("name", "tested", "round_timeout_s", "stall_timeout_s", "weight_by")
    ours = {k: v for k, v in vars(study.strategy).items() if k not in kept}
    optimizer, plain = ours.pop("server_optimizer"), load_study(SMOKE).strategy
    assert ours == {k: vars(plain)[k] for k in ours}
    assert (optimizer.name, optimizer.lr, optimizer.momentum) == ("sgd", 1.0, 0.0)
    assert study.compression is None


@pytest.mark.parametrize("kind", [Kind.OWN_MODELS, Kind.PERSONAL])
def test_a_model_of_one_site_is_trained_without_what_makes_up_for_the_others(kind: Kind) -> None:
    asked = [*PICTURES, "evaluation=shift", "method=logit_adjustment"]
    models = {"federated": initial_network(load_study(asked)).state_dict()}
    study = load_study(turns_of(kind, asked, ALL, WHOLE, models)["south"].overrides)
    assert study.training.logit_adjustment is None


@pytest.mark.parametrize("kind", [Kind.OWN_MODELS, Kind.PERSONAL, Kind.LEFT_OUT])
def test_a_site_that_comes_back_for_a_turn_trains_in_none(kind: Kind) -> None:
    """It was agreed and away; what it trained would be taken for another site's."""
    models = {"federated": start()}
    turns = turns_of(kind, SMOKE, [*ALL, "away"], WHOLE, models)
    for turn in turns.values():
        assert "away" in (load_study(turn.overrides).strategy.tested or [])


def test_the_digest_of_a_turn_names_the_weights_that_it_begins_with() -> None:
    asked = [*SMOKE, "evaluation=shift"]
    more = {name: tensor + 1 for name, tensor in start().items()}
    first, other = (
        turns_of(Kind.PERSONAL, asked, ALL, WHOLE, {"federated": model})["south"]
        for model in (start(), more)
    )
    assert first.digest != other.digest
    begun = first.checkpoint()
    assert begun is not None
    assert load_study(first.overrides).begins_with == digest_of(arrays_of(begun.model))


def test_a_study_that_made_no_personal_models_has_none_to_try_elsewhere() -> None:
    with pytest.raises(ValueError, match="evaluation=shift"):
        personal("evaluation.personal_rounds=0")


def test_the_ensemble_becomes_a_row_with_a_value_or_a_reason_at_every_site() -> None:
    turn = result(north=0.1, south=0.9)
    turn["final"]["missing"] = {"west": "policy: no model of another site"}
    row = with_turns(Kind.ENSEMBLE, WHOLE, {"ensemble": turn})["shift"]["matrix"]["ensemble"]
    assert [row[site]["value"] for site in ("north", "south", "west")] == [0.1, 0.9, None]
    assert row["west"]["status"] == "refused"


@pytest.mark.parametrize(
    ("kind", "row"), [(Kind.OWN_MODELS, "local/south"), (Kind.PERSONAL, "personal/south")]
)
def test_a_sites_models_become_rows_of_the_matrix_at_every_site(kind: Kind, row: str) -> None:
    found = with_turns(kind, WHOLE, {"south": result(north=0.1, south=0.9)})
    cells = found["shift"]["matrix"][row]
    assert [cells[site]["value"] for site in ("north", "south", "west")] == [0.1, 0.9, None]
    assert cells["west"]["status"] == "failed"
    assert found["shift"]["summary"][row]["worst_site"] == "north"
    assert row not in WHOLE["shift"]["matrix"]


def test_left_out_sites_become_a_table_with_the_gap() -> None:
    turn = result(north=0.7, south=0.2, west=0.7)
    told = with_turns(Kind.LEFT_OUT, WHOLE, {"south": turn})["shift"]["left_out"]
    assert told["gaps"] == {"south": pytest.approx(0.4)}
    assert told["rows"][0]["others"] == pytest.approx(0.7)


def test_a_site_is_not_left_out_of_a_model_of_which_it_would_have_an_untrained_part() -> None:
    with pytest.raises(ValueError, match="only an untrained one"):
        turns_of(Kind.LEFT_OUT, [*SMOKE, "method=local_norms"], ALL, WHOLE)


def test_a_final_model_that_is_gone_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"put model\.safetensors back"):
        turns_of(Kind.PERSONAL, SMOKE, ALL, WHOLE)
