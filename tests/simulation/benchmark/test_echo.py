import json
import subprocess
import sys
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
from simulation.benchmark.echo import (
    WIDTHS,
    Children,
    echo,
    measured,
    model_of,
    round_starts_s,
    run_echo,
    site_name,
    weights_of,
)
from simulation.benchmark.peers.measured import largest_living_mb
from simulation.engines.grid import identify
from tests.builders import packed

OVERRIDES = [*model_of("0.4"), "rounds=2", "evaluate_every=2"]


@pytest.fixture(autouse=True)
def _environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNS_FOLDER, "")


def test_a_round_without_work_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    run_echo(tmp_path, "inprocess", 3, OVERRIDES)
    result = read_json(tmp_path / RESULT)
    assert result["status"] == "completed"
    assert [record["participants"] for record in result["rounds"]] == [["0000", "0001", "0002"]] * 2
    untrained = initial_network(load_study(OVERRIDES)).state_dict()
    weights, _ = read_tensors(tmp_path / MODEL)
    assert weights.keys() == untrained.keys()
    assert all(torch.equal(weights[name], untrained[name]) for name in untrained)


@pytest.mark.parametrize("mb", WIDTHS)
def test_a_model_has_the_megabytes_of_its_name(mb: str) -> None:
    weights = weights_of(model_of(mb))
    found_mb = sum(tensor.nbytes for tensor in weights.values()) / 1e6
    assert found_mb == pytest.approx(float(mb), rel=0.05)


def test_a_result_is_of_the_clients_and_rounds_asked() -> None:
    found = measured("inprocess", 2, model_of("0.4"), 3)
    assert (found["clients"], found["rounds"]) == (2, 3)
    times_ms = found["round_ms"]
    assert isinstance(times_ms, list)
    assert len(times_ms) == 3
    assert all(ms > 0 for ms in times_ms)
    assert isinstance(found["start_s"], float)
    assert found["start_s"] > times_ms[0] / 1000


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
    identify()
    context = Context(0, 2, {"partition-id": 7}, RecordDict(), {})
    about = Description(
        site="0007", patients_train=10, patients_held_out=0, images_train=10, bad_files=0
    )
    request = Message(packed(about), dst_node_id=2, message_type="query")
    assert unpack_answer(echo(request, context).content) == about


GRANDCHILD = "held = bytearray(200_000_000); print('there', flush=True); input()"
CHILD = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {GRANDCHILD!r}], check=False)
"""


def test_the_processes_below_another_are_seen_and_not_that_one() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        below_it, below_here = largest_living_mb(child.pid), largest_living_mb()
        assert below_it > 200
        assert below_here >= below_it
        children = Children(child.pid)
        child.communicate(b"\n")
    # The largest has ended before the first look.
    assert children.end() < below_it
