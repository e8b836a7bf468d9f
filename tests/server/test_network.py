import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from common.contract import Description, Refusal, Request, StudyReference
from common.messages import pack_request, reply
from common.strategy_config import StrategyConfig
from server.calls import Missing, Watch
from server.events import event_log
from server.network import Federation
from simulation.engines.grid import SimulatedGrid
from simulation.engines.inprocess import InProcess
from tests.builders import numbers_app, packed, trained

PATIENTS = {"st-b": 3, "st-a": 1, "st-c": 2}
MODEL = {"w": torch.zeros(2, dtype=torch.float32)}
STUDY = StudyReference(overrides=[], digest="ab")
LIMITS = StrategyConfig(round_timeout_s=60.0)


class SilentGrid(SimulatedGrid):
    """A grid on which one node, by its place, gives no answer to a request to train."""

    def __init__(self, app: ClientApp, num_nodes: int, place: int) -> None:
        super().__init__(InProcess(app, num_nodes))
        self._silent = list(self.get_node_ids())[place]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        told = list(messages)
        identifiers = list(super().push_messages(told))
        return [
            "nothing"
            if (m.metadata.message_type, m.metadata.dst_node_id)
            == (MessageType.TRAIN, self._silent)
            else i
            for m, i in zip(told, identifiers, strict=True)
        ]


def federation(app: ClientApp, folder: Path, join_timeout_s: float = 60.0) -> Federation:
    watch = Watch(join_timeout_s=join_timeout_s)
    return Federation(SimulatedGrid(InProcess(app, len(PATIENTS))), STUDY, event_log(folder), watch)


def enrolled(app: ClientApp, folder: Path) -> Federation:
    sites = federation(app, folder)
    sites.enrol(list(PATIENTS), LIMITS)
    return sites


def reasons(sites: Federation, timeout_s: float = 5.0) -> dict[str, str | None]:
    return {
        site: answer.reason if isinstance(answer, Missing) else None
        for site, answer, _ in sites.train(
            list(PATIENTS), 1, MODEL, False, StrategyConfig(round_timeout_s=timeout_s)
        )
    }


def test_sites_introduce_themselves_by_name(tmp_path: Path) -> None:
    found, absent = federation(numbers_app(PATIENTS), tmp_path).enrol(list(PATIENTS), LIMITS)
    assert list(found) == ["st-a", "st-b", "st-c"]
    assert {site: about.patients_train for site, about in found.items()} == PATIENTS
    assert absent == {}


def test_two_nodes_of_one_name_are_an_error(tmp_path: Path) -> None:
    def as_another(name: str, message: Message) -> Message | None:
        about = Description(
            site="st-a", patients_train=1, patients_held_out=0, images_train=1, bad_files=0
        )
        return reply(packed(about), message) if name == "st-c" else None

    with pytest.raises(ValueError, match="two nodes call themselves 'st-a'"):
        federation(numbers_app(PATIENTS, query=as_another), tmp_path).enrol(list(PATIENTS), LIMITS)


def test_a_site_that_refuses_the_study_is_absent_with_its_reason(tmp_path: Path) -> None:
    def refuse(name: str, message: Message) -> Message | None:
        body = Refusal(site=name, code="study", text="other version")
        return reply(packed(body), message) if name == "st-b" else None

    found, absent = federation(numbers_app(PATIENTS, query=refuse), tmp_path).enrol(
        list(PATIENTS), LIMITS
    )
    assert list(found) == ["st-a", "st-c"]
    assert absent == {"st-b": "study: other version"}


def test_an_agreed_site_that_never_comes_is_absent(tmp_path: Path) -> None:
    _, absent = federation(numbers_app(PATIENTS), tmp_path, join_timeout_s=0.2).enrol(
        [*PATIENTS, "st-z"], LIMITS
    )
    assert absent == {"st-z": "did not introduce itself"}


def test_updates_come_in_the_order_of_names_one_at_a_time(tmp_path: Path) -> None:
    worked: list[str] = []

    def work(site: str, _: int, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        worked.append(site)
        return weights

    sites = enrolled(numbers_app(PATIENTS, work), tmp_path)
    seen = []
    for site, _, weights in sites.train(["st-c", "st-a", "st-b"], 1, MODEL, False, LIMITS):
        seen.append(site)
        assert worked == seen
        np.testing.assert_array_equal(weights["w"], [0, 0])
    assert seen == ["st-a", "st-b", "st-c"]


def test_a_site_that_does_not_answer_in_time_is_missing_and_the_others_count(
    tmp_path: Path,
) -> None:
    grid = SilentGrid(numbers_app(PATIENTS), len(PATIENTS), place=0)
    sites = Federation(grid, STUDY, event_log(tmp_path))
    sites.enrol(list(PATIENTS), LIMITS)
    assert reasons(sites, timeout_s=0.1) == {
        "st-a": None,
        "st-b": "no answer within 0.1 s",
        "st-c": None,
    }


def changed(message: Message, **change: object) -> Message:
    raw = json.loads(str(packed(trained("st-b", 1, 3)).config_records["body"]["json"])) | change
    record = ConfigRecord({"kind": "TrainReply", "json": json.dumps(raw)})
    return reply(RecordDict({"body": record}), message)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda m: changed(m, site="st-a"), "answered as 'st-a' for round 1"),
        (lambda m: changed(m, round=9), "answered as 'st-b' for round 9"),
        (lambda m: changed(m, patients=0), "cannot be weighted"),
        (lambda m: changed(m, patients=10**9), "cannot be weighted"),
        (lambda m: changed(m, secret=1), "unknown fields: secret"),
        (lambda m: changed(m, train_loss=float("nan")), "not a finite number"),
        (lambda m: changed(m, seconds=float("inf")), "seconds=inf"),
        (lambda m: changed(m, seconds=1e300), "seconds=1e+300"),
        (lambda m: reply(RecordDict(), m), "holds nothing"),
        (lambda m: reply(pack_request(Request(study=STUDY)), m), "holds Request"),
        (lambda m: reply(packed(Refusal(site="st-b", code="data", text="no")), m), "data: no"),
        (
            lambda m: Message(Error(code=2, reason="/secret/path"), reply_to=m),
            "the site's process failed (code 2)",
        ),
    ],
)
def test_an_answer_that_breaks_the_contract_is_missing_with_its_reason(
    tmp_path: Path, answer: object, told: str
) -> None:
    def train(name: str, message: Message, _: Request) -> Message | None:
        return answer(message) if name == "st-b" else None  # type: ignore[operator]

    found = reasons(enrolled(numbers_app(PATIENTS, train=train), tmp_path))
    assert found["st-a"] is None
    assert found["st-c"] is None
    assert told in str(found["st-b"])
    assert "/secret" not in str(found["st-b"])


def test_a_site_of_the_roster_that_did_not_come_back_is_missing(tmp_path: Path) -> None:
    sites = enrolled(numbers_app(PATIENTS), tmp_path)
    names = ["st-a", "st-gone", "st-b"]
    answers = [(site, reply) for site, reply, _ in sites.train(names, 1, MODEL, False, LIMITS)]
    assert [site for site, _ in answers] == sorted(names)
    assert answers[2][1] == Missing("did not introduce itself")
    ((_, evaluated),) = sites.evaluate(["st-gone"], 1, MODEL, LIMITS)
    assert isinstance(evaluated, Missing)
