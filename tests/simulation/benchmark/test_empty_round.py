import json
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from common.config import load_study
from common.contract import Description
from common.files import read_json
from common.messages import unpack_answer
from common.tensor_files import read_tensors
from server.events import EVENTS
from server.run import MODEL, RESULT, initial_network
from server.studies import RUNS_FOLDER
from simulation.benchmark.empty_round import (
    MODEL as MODEL_OVERRIDES,
)
from simulation.benchmark.empty_round import (
    round_starts_s,
    row_of,
    run_echo,
    site_name,
)
from simulation.engines.grid import identify
from tests.builders import packed

OVERRIDES = [*MODEL_OVERRIDES, "rounds=2", "evaluate_every=2"]


@pytest.fixture(autouse=True)
def _environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNS_FOLDER, "")


def test_a_round_without_work_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    run_echo(tmp_path, "inprocess", 3, OVERRIDES)
    result = read_json(tmp_path / RESULT)
    assert result["status"] == "completed"
    assert [record["participants"] for record in result["rounds"]] == [["000", "001", "002"]] * 2
    untrained = initial_network(load_study(OVERRIDES)).state_dict()
    weights, _ = read_tensors(tmp_path / MODEL)
    assert weights.keys() == untrained.keys()
    assert all(torch.equal(weights[name], untrained[name]) for name in untrained)


def test_row_is_of_the_model_and_sites_asked() -> None:
    row = row_of("inprocess", 2, 3)
    assert row["name"] == "inprocess, 2 sites"
    assert row["model_mb"] == pytest.approx(0.4, abs=0.02)
    assert row["ms_per_round"] == pytest.approx(2 * float(row["ms_per_site"]))
    assert 0 < row["lowest"] <= row["ms_per_round"] <= row["highest"]


def test_starts_are_of_the_rounds_and_of_the_last_evaluation(tmp_path: Path) -> None:
    told = ["start", "enrolled", "round", "reply", "round done", "round", "final evaluation", "end"]
    lines = [json.dumps({"time": float(at), "event": event}) for at, event in enumerate(told)]
    (tmp_path / EVENTS).write_text("\n".join(lines) + "\n")
    assert round_starts_s(tmp_path / EVENTS) == [2.0, 5.0, 6.0]


def test_site_names_sort_as_their_places() -> None:
    def named(place: int) -> str:
        return site_name(Context(0, 0, {"partition-id": place}, RecordDict(), {}))

    assert sorted(map(named, range(64))) == [named(place) for place in range(64)]


def test_the_description_keeps_the_contract() -> None:
    from simulation.benchmark.empty_round import echo

    identify()
    context = Context(0, 2, {"partition-id": 7}, RecordDict(), {})
    about = Description(
        site="007", patients_train=10, patients_held_out=0, images_train=10, bad_files=0
    )
    request = Message(packed(about), dst_node_id=2, message_type="query")
    assert unpack_answer(echo(request, context).content) == about
