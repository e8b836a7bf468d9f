from collections.abc import Sequence

import pytest
from flwr.app import Message, MessageType, RecordDict

from common.contract import Request, StudyReference
from common.messages import pack_request, unpack_answer
from simulation.engines import choice
from simulation.engines.choice import Chosen, saved_s
from simulation.engines.grid import Engine, identify, node_of
from simulation.engines.inprocess import InProcess
from tests.builders import numbers_app

PATIENTS = {"st-a": 1, "st-b": 2, "st-c": 3}
STUDY = StudyReference(overrides=[], digest="ab")


def question(number: int) -> RecordDict:
    return pack_request(Request(study=STUDY, round=number), {})


class Clock:
    """Time that passes only while a site works."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(choice, "time", found)
    identify()
    return found


class Study:
    """A run of two actors, which are another process's engine in this one, and what it tells."""

    def __init__(self, clock: Clock, train_s: float, rounds: int, read_s: float = 0.0) -> None:
        def query(_: str, __: Message) -> None:
            clock.now += read_s

        def train(_: str, __: Message, ___: Request) -> None:
            clock.now += self.seconds.pop(0) if self.seconds else train_s

        self.seconds: list[float] = []
        """Of the first trainings, where they take another time."""
        self.told: list[dict[str, object]] = []
        self.started = 0
        self.app = numbers_app(PATIENTS, train=train, query=query)
        self.engine = Chosen(
            InProcess(self.app, 3),
            self._start,
            2,
            rounds,
            lambda event, **about: self.told.append({"event": event, **about}),
        )

    def _start(self) -> Engine:
        self.started += 1
        return InProcess(self.app, 3)

    def ask(self, kind: str, number: int = 1, nodes: Sequence[int] = (0, 1, 2)) -> list[str]:
        messages = [Message(question(number), node_of(node), kind) for node in nodes]
        found = [self.engine.pull(identifier) for identifier in self.engine.push(messages)]
        assert None not in found
        return [unpack_answer(answer.content).site for answer in found if answer is not None]


def test_short_trainings_stay_here_and_that_is_told_once(clock: Clock) -> None:
    study = Study(clock, train_s=0.1, rounds=4)
    for number in range(1, 5):
        assert study.ask(MessageType.TRAIN, number) == list(PATIENTS)
    assert study.started == 0
    assert study.told == [{"event": "engine", "name": "inprocess", "left_s": 1}]


def test_long_trainings_go_on_elsewhere_after_the_first_and_every_answer_comes_once(
    clock: Clock,
) -> None:
    study = Study(clock, train_s=60.0, rounds=2)
    assert study.ask(MessageType.QUERY) == list(PATIENTS)
    messages = [Message(question(1), node_of(node), MessageType.TRAIN) for node in range(3)]
    identifiers = study.engine.push(messages)
    assert study.engine.pull(identifiers[0]) is not None
    assert study.told == []
    assert study.engine.pull(identifiers[1]) is not None
    # Four of six are left.
    assert study.told == [{"event": "engine", "name": "ray", "actors": 2, "left_s": 240}]
    for identifier in reversed(identifiers[2:]):
        assert study.engine.pull(identifier) is not None
        assert study.engine.pull(identifier) is None
    assert study.ask(MessageType.TRAIN, 2) == list(PATIENTS)
    assert study.ask(MessageType.EVALUATE, 2, [1]) == ["st-b"]
    assert study.started == 1
    assert len(study.told) == 1


def test_a_slow_start_and_rounds_that_are_done_do_not_count(clock: Clock) -> None:
    cold = Study(clock, train_s=0.04, rounds=50)
    cold.seconds = [60.0]
    cold.ask(MessageType.TRAIN)
    assert cold.started == 0
    resumed = Study(clock, train_s=4.0, rounds=50)
    resumed.ask(MessageType.TRAIN, 50)
    assert resumed.started == 0


def test_the_last_round_does_not_start_what_it_cannot_use(clock: Clock) -> None:
    study = Study(clock, train_s=7.0, rounds=1)
    study.ask(MessageType.TRAIN)
    assert study.started == 0


def test_data_that_is_slow_to_read_again_keeps_a_study_here(clock: Clock) -> None:
    quick, slow = Study(clock, 20.0, rounds=2), Study(clock, 20.0, rounds=2, read_s=30.0)
    for study in (quick, slow):
        study.ask(MessageType.QUERY)
        study.ask(MessageType.TRAIN)
    assert (quick.started, slow.started) == (1, 0)


def test_a_stranger_has_no_answer(clock: Clock) -> None:
    assert Study(clock, 1.0, rounds=1).engine.pull("nothing") is None


def test_actors_save_their_share_of_the_training_less_what_they_cost() -> None:
    assert saved_s(100.0, 2, 0, 0.0, 0.0) == pytest.approx(50.0 - choice.START_S)
    assert saved_s(100.0, 4, 0, 0.0, 0.0) == pytest.approx(75.0 - choice.START_S)
    assert saved_s(100.0, 1, 0, 0.0, 0.0) < 0
    # Reading is part of nothing that is left; the actors share it.
    assert saved_s(100.0, 2, 0, 0.0, 10.0) == pytest.approx(45.0 - choice.START_S)
    # A message of 30 MB costs what it costs.
    assert saved_s(100.0, 2, 1000, 30.0, 0.0) < saved_s(100.0, 2, 1000, 1.0, 0.0) < 50.0
