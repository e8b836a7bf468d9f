"""Asking sites over a network that loses messages, nodes and patience."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message, MessageType
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from common.contract import Description, Request, StudyReference
from common.messages import pack_request, reply
from common.strategy_config import StrategyConfig
from server import calls as calls_module
from server.calls import GONE, Calls, Missing, StopError, Watch
from server.presence import Presence, Word
from simulation.engines.grid import identify
from tests.builders import packed

RECORDS = pack_request(Request(study=StudyReference(overrides=[], digest="ab")))
PATIENT = StrategyConfig(round_timeout_s=20.0, stall_timeout_s=20.0)
Answers = Callable[[Message], Message | None]


def described(message: Message) -> Message:
    about = Description(
        site="st-a", patients_train=1, patients_held_out=0, images_train=1, bad_files=0
    )
    return reply(packed(about), message)


def lost(message: Message) -> Message:
    return Message(Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=message)


@dataclass
class Network:
    """Nodes of which each answers its n-th message by the n-th rule; None is silence."""

    rules: dict[int, list[Answers]]
    connected: dict[str, int]
    pushed: list[int] = field(default_factory=list)
    waiting: dict[str, tuple[Message, Answers]] = field(default_factory=dict)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            node = message.metadata.dst_node_id
            turn = self.pushed.count(node)
            self.pushed.append(node)
            names.append(f"{node}-{turn}")
            message.metadata.__dict__["_message_id"] = names[-1]
            self.waiting[names[-1]] = message, self.rules[node][turn]
        return names

    def pull_messages(self, names: Iterable[str]) -> list[Message]:
        found = []
        for name in names:
            if name in self.waiting:
                message, rule = self.waiting[name]
                answer = rule(message)
                if answer is not None:
                    found.append(answer)
                    del self.waiting[name]
        return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "LOOK_S", 0.03)
    identify()


def silent(_: Message) -> None:
    return None


class Asked:
    """Calls over a network whose sites have told of themselves."""

    def __init__(self, folder: Path, network: Network, **watch: Any) -> None:
        self.network, self.told = network, list[tuple[str, dict[str, object]]]()
        self.presence = Presence(folder)
        for site in network.connected:
            self.presence.hear(site, Word(session="first"))
        grid: Grid = network  # type: ignore[assignment]
        self.calls = Calls(
            grid,
            lambda: network.connected,
            Watch(presence=self.presence, poll_s=0.01, **watch),
            lambda event, **fields: self.told.append((event, fields)),
        )

    def ask(self, *sites: str, limits: StrategyConfig = PATIENT) -> dict[str, object]:
        answers = self.calls.ask(sites, lambda _: RECORDS, MessageType.QUERY, limits)
        return {site: answer for site, answer, _ in answers}


def test_a_node_that_was_gone_and_came_back_is_asked_again(tmp_path: Path) -> None:
    network = Network({1: [lost, lost, described]}, {"st-a": 1})
    answers = Asked(tmp_path, network).ask("st-a")
    assert isinstance(answers["st-a"], Description)
    assert network.pushed == [1, 1, 1]


def test_a_new_process_of_a_node_is_asked_what_the_old_one_was(tmp_path: Path) -> None:
    def dies(_: Message) -> None:
        asked.presence.hear("st-a", Word(session="second"))

    network = Network({1: [dies, described]}, {"st-a": 1})
    asked = Asked(tmp_path, network)
    assert isinstance(asked.ask("st-a")["st-a"], Description)
    assert ("again", {"site": "st-a"}) in asked.told


def test_a_site_that_joins_late_is_asked_when_it_is_there(tmp_path: Path) -> None:
    network = Network({1: [described], 2: [described]}, {"st-b": 2})

    def joins(message: Message) -> Message:
        network.connected["st-a"] = 1
        return described(message)

    network.rules[2] = [joins]
    asked = Asked(tmp_path, network)
    answers = asked.ask("st-b", "st-a")
    assert all(isinstance(answer, Description) for answer in answers.values())


def test_a_site_that_tells_of_batches_is_waited_for_beyond_the_stall_limit(tmp_path: Path) -> None:
    began, batches = time.monotonic(), iter(range(1000))

    def slow(message: Message) -> Message | None:
        if time.monotonic() - began > 0.8:
            return described(message)
        asked.presence.hear("st-a", Word(session="first", run="r", beats=next(batches)))
        return None

    asked = Asked(tmp_path, Network({1: [slow]}, {"st-a": 1}))
    limits = StrategyConfig(round_timeout_s=20.0, stall_timeout_s=0.3)
    assert isinstance(asked.ask("st-a", limits=limits)["st-a"], Description)


def test_a_site_without_progress_is_missing_after_the_stall_limit(tmp_path: Path) -> None:
    asked = Asked(tmp_path, Network({1: [silent]}, {"st-a": 1}))
    limits = StrategyConfig(round_timeout_s=20.0, stall_timeout_s=0.3)
    began = time.monotonic()
    assert asked.ask("st-a", limits=limits) == {
        "st-a": Missing("has told of no progress for 0.3 s")
    }
    assert time.monotonic() - began < 5


def test_whom_a_round_waits_for_is_told_while_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "TELL_S", 0.1)
    asked = Asked(tmp_path, Network({1: [silent]}, {"st-a": 1}))
    asked.ask("st-a", limits=StrategyConfig(round_timeout_s=0.5, stall_timeout_s=20.0))
    told = [fields["site"] for event, fields in asked.told if event == "awaits"]
    assert 2 <= len(told) <= 5
    assert set(told) == {"st-a"}


def test_no_progress_saves_a_site_from_the_rounds_deadline(tmp_path: Path) -> None:
    asked = Asked(tmp_path, Network({1: [silent]}, {"st-a": 1}))
    limits = StrategyConfig(round_timeout_s=0.2, stall_timeout_s=20.0)
    assert asked.ask("st-a", limits=limits) == {"st-a": Missing("no answer within 0.2 s")}


def test_a_site_that_stays_away_costs_the_stall_limit_once(tmp_path: Path) -> None:
    asked = Asked(tmp_path, Network({}, {}))
    limits = StrategyConfig(round_timeout_s=20.0, stall_timeout_s=0.3)
    began = time.monotonic()
    assert asked.ask("st-a", limits=limits) == {"st-a": Missing(GONE)}
    first, began = time.monotonic() - began, time.monotonic()
    assert asked.ask("st-a", limits=limits) == {"st-a": Missing(GONE)}
    assert time.monotonic() - began < 0.3 < first


def test_a_late_answer_is_dropped_and_told(tmp_path: Path) -> None:
    ready: list[bool] = []

    def late(message: Message) -> Message | None:
        return described(message) if ready else None

    network = Network({1: [late, described]}, {"st-a": 1})
    asked = Asked(tmp_path, network)
    limits = StrategyConfig(round_timeout_s=0.1, stall_timeout_s=20.0)
    assert asked.ask("st-a", limits=limits) == {"st-a": Missing("no answer within 0.1 s")}
    ready.append(True)
    assert isinstance(asked.ask("st-a")["st-a"], Description)
    assert asked.told.count(("late", {"site": "st-a"})) == 1
    assert network.waiting == {}


def test_a_stop_ends_the_waiting(tmp_path: Path) -> None:
    asked = Asked(tmp_path, Network({1: [silent]}, {"st-a": 1}), stopped=lambda: True)
    with pytest.raises(StopError):
        asked.ask("st-a")


def test_what_answers_no_question_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    turns = iter(range(9))

    def forged(message: Message) -> Message:
        answer = described(message)
        if next(turns) == 0:
            answer.metadata.__dict__["_reply_to_message_id"] = ""
        return answer

    network = Network({1: [forged]}, {"st-a": 1})
    kept = network.pull_messages

    def pull(names: Iterable[str]) -> list[Message]:
        held = dict(network.waiting)
        found = kept(names)
        if found and found[0].metadata.reply_to_message_id == "":
            network.waiting = held
        return found

    network.pull_messages = pull  # type: ignore[method-assign]
    asked = Asked(tmp_path, network)
    assert isinstance(asked.ask("st-a")["st-a"], Description)
    assert ("stray", {"site": "st-a"}) in asked.told


def test_an_answer_that_cannot_be_read_costs_its_site_alone(tmp_path: Path) -> None:
    def broken(_: Message) -> Message:
        raise ValueError("not a message")

    network = Network({1: [broken], 2: [described]}, {"st-a": 1, "st-b": 2})
    answers = Asked(tmp_path, network).ask("st-a", "st-b")
    assert answers["st-a"] == Missing("its answer cannot be read (ValueError)")
    assert isinstance(answers["st-b"], Description)


def test_a_reason_is_what_a_file_and_a_screen_can_hold() -> None:
    reason = Missing("not in the model: " + "\ud800\n\x1b[2J" + "x" * 10**6).reason
    assert len(reason) < 500
    assert reason.isprintable()
    assert reason.startswith("not in the model: ???[2J")
    assert Missing("short").reason == "short"
