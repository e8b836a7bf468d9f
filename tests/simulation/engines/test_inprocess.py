from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType
from flwr.clientapp import ClientApp

from common.contract import Description, Request, StudyReference
from common.messages import pack_request, reply, unpack_answer
from simulation.engines.grid import SERVER_NODE, SimulatedGrid
from simulation.engines.inprocess import InProcess
from tests.builders import numbers_app

PATIENTS = {"st-a": 1, "st-b": 2, "st-c": 3}
QUESTION = pack_request(Request(study=StudyReference(overrides=[], digest="ab")))


def grid_of(app: ClientApp, num_nodes: int) -> SimulatedGrid:
    return SimulatedGrid(InProcess(app, num_nodes))


def messages(grid: SimulatedGrid) -> list[Message]:
    return [
        Message(QUESTION, dst_node_id=node, message_type=MessageType.QUERY)
        for node in grid.get_node_ids()
    ]


def names(answers: Iterable[Message]) -> list[str]:
    found = [unpack_answer(answer.content) for answer in answers]
    return [about.site for about in found if isinstance(about, Description)]


def test_every_node_has_an_identity_of_its_own() -> None:
    nodes = list(grid_of(numbers_app(PATIENTS), 3).get_node_ids())
    assert len(set(nodes)) == 3
    assert SERVER_NODE not in nodes


def test_each_answer_comes_for_its_own_question() -> None:
    grid = grid_of(numbers_app(PATIENTS), 3)
    identifiers = list(grid.push_messages(messages(grid)))
    assert len(set(identifiers)) == 3
    assert names(grid.pull_messages(identifiers[2:])) == ["st-c"]
    assert names(grid.pull_messages(identifiers[:2])) == ["st-a", "st-b"]
    assert names(grid.send_and_receive(messages(grid))) == list(PATIENTS)


def test_an_answer_is_given_once() -> None:
    grid = grid_of(numbers_app(PATIENTS), 3)
    identifiers = list(grid.push_messages(messages(grid)))
    assert len(list(grid.pull_messages(identifiers))) == 3
    assert list(grid.pull_messages(identifiers)) == []
    assert list(grid.pull_messages(["nothing"])) == []


def test_work_is_done_when_the_answer_is_pulled() -> None:
    asked: list[str] = []

    def query(site: str, _: Message) -> None:
        asked.append(site)

    grid = grid_of(numbers_app(PATIENTS, query=query), 3)
    identifiers = list(grid.push_messages(messages(grid)))
    assert asked == []
    for place, identifier in enumerate(identifiers, start=1):
        list(grid.pull_messages([identifier]))
        assert asked == list(PATIENTS)[:place]


def test_a_node_knows_its_place_and_keeps_nothing_between_messages() -> None:
    app = ClientApp()
    seen: list[Context] = []

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        seen.append(context)
        context.state["before"] = ConfigRecord({"asked": True})
        return reply(QUESTION, message)

    grid = grid_of(app, 2)
    for _ in range(2):
        list(grid.send_and_receive(messages(grid)))
    assert [c.node_config["partition-id"] for c in seen] == [0, 1, 0, 1]
    assert {c.node_config["num-partitions"] for c in seen} == {2}
    assert len({id(c.state) for c in seen}) == 4


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE])
def test_a_message_that_the_grid_makes_reaches_its_node(kind: str) -> None:
    node = next(iter(grid_of(ClientApp(), 1).get_node_ids()))
    grid = grid_of(ClientApp(), 1)
    message = grid.create_message(QUESTION, kind, node, "group")
    assert message.metadata.dst_node_id == node
    assert message.metadata.message_type == kind
    assert message.metadata.group_id == "group"
