from typing import Any

import pytest

from common.config import load_study
from server.run import initial_network
from server.turns import Kind, together, turns_of, with_turns

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


def test_in_a_turn_of_its_own_model_a_site_trains_alone_and_all_are_tested() -> None:
    turns = turns_of(Kind.OWN_MODELS, [*SMOKE, "strategy.quorum=3"], WHOLE)
    assert set(turns) == {"north", "south", "west"}
    study = load_study(turns["south"].overrides)
    assert study.strategy.tested == ["north", "west"]
    assert (study.name, study.strategy.quorum, study.evaluation) == ("chest_only_south", 1, None)
    assert len({turn.digest for turn in turns.values()}) == 3


def test_a_site_that_is_left_out_is_tested_beside_those_that_the_study_only_tests() -> None:
    turns = turns_of(Kind.LEFT_OUT, [*SMOKE, "strategy.tested=[west]"], WHOLE)
    assert set(turns) == {"north", "south"}
    study = load_study(turns["south"].overrides)
    assert study.strategy.tested == ["south", "west"]
    assert study.name == "chest_without_south"


def test_a_site_whose_name_is_a_number_takes_its_turn() -> None:
    turns = turns_of(Kind.OWN_MODELS, SMOKE, result(**{"2024": 0.5, "north": 0.6}))
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
        turns_of(Kind.OWN_MODELS, [*SMOKE, *overrides], whole)


def test_the_ensemble_has_one_turn_in_which_all_are_tested_and_nobody_trains() -> None:
    turns = turns_of(Kind.ENSEMBLE, [*SMOKE, "strategy.tested=[west]"], WHOLE)
    assert set(turns) == {"ensemble"}
    study = load_study(turns["ensemble"].overrides)
    assert study.strategy.tested == ["north", "south", "west"]
    # A site that trained nothing has no model in it.
    assert (study.name, study.model.members, study.evaluation) == ("chest_ensemble", 2, None)


def test_the_ensemble_is_made_of_each_sites_own_model_in_the_order_of_their_names() -> None:
    turn = turns_of(Kind.ENSEMBLE, [*SMOKE, "strategy.tested=[west]"], WHOLE)["ensemble"]
    start = initial_network(load_study(SMOKE)).state_dict()
    models = {s: {n: t + k for n, t in start.items()} for s, k in (("south", 2), ("north", 1))}
    begun = together(turn, models)
    assert begun.digest == turn.digest
    network = initial_network(load_study(turn.overrides))
    network.load_state_dict(begun.model)
    for place, site in enumerate(("north", "south")):
        assert all(bool((begun.model[f"{place}.{n}"] == models[site][n]).all()) for n in start)


def test_the_ensemble_becomes_a_row_with_a_value_or_a_reason_at_every_site() -> None:
    turn = result(north=0.1, south=0.9)
    turn["final"]["missing"] = {"west": "policy: no model of another site"}
    row = with_turns(Kind.ENSEMBLE, WHOLE, {"ensemble": turn})["shift"]["matrix"]["ensemble"]
    assert [row[site]["value"] for site in ("north", "south", "west")] == [0.1, 0.9, None]
    assert row["west"]["status"] == "refused"


def test_own_models_become_rows_of_the_matrix_at_every_site() -> None:
    found = with_turns(Kind.OWN_MODELS, WHOLE, {"south": result(north=0.1, south=0.9)})
    row = found["shift"]["matrix"]["local/south"]
    assert [row[site]["value"] for site in ("north", "south", "west")] == [0.1, 0.9, None]
    assert row["west"]["status"] == "failed"
    assert found["shift"]["summary"]["local/south"]["worst_site"] == "north"
    assert "local/south" not in WHOLE["shift"]["matrix"]


def test_left_out_sites_become_a_table_with_the_gap() -> None:
    turn = result(north=0.7, south=0.2, west=0.7)
    told = with_turns(Kind.LEFT_OUT, WHOLE, {"south": turn})["shift"]["left_out"]
    assert told["gaps"] == {"south": pytest.approx(0.4)}
    assert told["rows"][0]["others"] == pytest.approx(0.7)


def test_a_site_is_not_left_out_of_a_model_of_which_it_would_have_an_untrained_part() -> None:
    with pytest.raises(ValueError, match="only an untrained one"):
        turns_of(Kind.LEFT_OUT, [*SMOKE, "method=local_norms"], WHOLE)
