import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from common.contract import Description, Released, Request, StudyReference
from common.messages import (
    framed_weights,
    pack_answer,
    pack_request,
    reply,
    unpack_answer,
    unpack_weights,
)
from simulation.engines import actors as actors_module
from simulation.engines.actors import ATTEMPTS, Actors
from simulation.engines.grid import Engine, SimulatedGrid, identify, node_of
from simulation.engines.inprocess import InProcess
from simulation.engines.resources import Resources

STUDY = StudyReference(overrides=[], digest="ab")
QUERY = pack_request(Request(study=STUDY))
WEIGHTS = {"w": np.arange(300_000, dtype=np.float32), "count": np.array(3)}
TRAIN = pack_request(Request(study=STUDY, round=1), WEIGHTS)
GONE = "127.0.0.1:1"
"""Where no cluster is."""
DEADLY = "WARDROUND_TEST_DEADLY"
"""A file: the site of this place, so many deaths still, and below it who has worked where."""


def _app() -> ClientApp:
    # A function's own: cloudpickle sends it by value, as the actors cannot import the tests.
    app = ClientApp()

    def noted(context: Context, what: str) -> str:
        place = str(context.node_config["partition-id"])
        with Path(os.environ[DEADLY]).open("a") as file:
            file.write(f"{what} {place} {os.getpid()}\n")
        return place

    @app.query()
    def describe(message: Message, context: Context) -> Message:
        place = noted(context, "query")
        if place == "7":
            raise ValueError("a fault of the site's")
        about = Description(
            site=place, patients_train=1, patients_held_out=0, images_train=1, bad_files=0
        )
        return reply(pack_answer(Released(body=about)), message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        place = noted(context, "train")
        kill = Path(os.environ[DEADLY] + ".kill")
        if kill.exists():
            victim, left = kill.read_text().split()
            if victim == place and int(left):
                kill.write_text(f"{victim} {int(left) - 1}")
                os.kill(os.getpid(), 9)
        weights = unpack_weights(message.content)
        more = {"w": weights["w"] + int(place), "count": weights["count"]}
        return reply(pack_request(Request(study=_study(), round=1), more), message)

    def _study() -> StudyReference:
        return StudyReference(overrides=[], digest="ab")

    return app


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("actors") / "log"
    os.environ[DEADLY] = str(path)
    yield path
    del os.environ[DEADLY]


class Told:
    """What an engine tells."""

    def __init__(self) -> None:
        self._events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **fields: Any) -> None:
        self._events.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self._events if name == event]


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def engine(log: Path, told: Told) -> Iterator[Actors]:
    identify()
    found = Actors(_app(), 8, Resources(actors=2, environment=dict(os.environ)), told)
    yield found
    found.end()


@pytest.fixture
def one_by_one(engine: Actors, monkeypatch: pytest.MonkeyPatch) -> Actors:
    """Actors that are given a message when they have answered the one before."""
    monkeypatch.setattr(actors_module, "SHORT_S", 0.0)
    monkeypatch.setattr(actors_module, "CALL_S", 0.0)
    answers(engine, [0])
    return engine


def asked(records: RecordDict, kind: str, places: list[int]) -> list[Message]:
    return [Message(records, node_of(place), kind) for place in places]


def pulled(engine: Engine, identifiers: list[str]) -> list[Message]:
    found = []
    for identifier in identifiers:
        while (answer := engine.pull(identifier)) is None:
            pass
        found.append(answer)
    return found


def answers(engine: Engine, places: list[int]) -> list[Message]:
    return pulled(engine, engine.push(asked(TRAIN, MessageType.TRAIN, places)))


def work_in(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


@pytest.fixture(autouse=True)
def _fresh(log: Path) -> None:
    log.write_text("")
    Path(f"{log}.kill").unlink(missing_ok=True)


def test_each_answer_is_that_of_one_process(engine: Actors) -> None:
    places = [5, 0, 6, 2]
    here = answers(InProcess(_app(), 8), places)
    there = answers(engine, places)
    for place, one, other in zip(places, here, there, strict=True):
        first, second = unpack_weights(one.content), unpack_weights(other.content)
        assert {n: a.tobytes() for n, a in first.items()} == {
            n: a.tobytes() for n, a in second.items()
        }
        assert second["w"][1] == 1 + place
        assert list(one.content) == list(other.content)


def test_an_answer_is_given_once_and_a_stranger_has_none(engine: Actors) -> None:
    identifiers = engine.push(asked(QUERY, MessageType.QUERY, [3]))
    (answer,) = pulled(engine, identifiers)
    about = unpack_answer(answer.content)
    assert isinstance(about, Description)
    assert about.site == "3"
    assert engine.pull(identifiers[0]) is None
    assert engine.pull("nothing") is None


def test_a_site_that_raises_is_an_error_and_no_dead_actor(engine: Actors, told: Told) -> None:
    (answer,) = pulled(engine, engine.push(asked(QUERY, MessageType.QUERY, [7])))
    assert answer.has_error()
    assert answer.error.code == 2
    assert told.of("actor died") == []


def test_a_hospital_goes_back_to_the_actor_that_has_its_images(engine: Actors, log: Path) -> None:
    places = list(range(6))
    for _ in range(3):
        answers(engine, places)
    homes = {place: pid for _, place, pid in work_in(log)[:6]}
    at_home = sum(homes[place] == pid for _, place, pid in work_in(log)[6:])
    # One that is free takes another's rather than wait.
    assert at_home >= 8
    assert len(set(homes.values())) == 2


def test_the_largest_begin_first(engine: Actors, log: Path) -> None:
    answers(engine, [6, 5, 4, 3, 2, 1, 0])
    done = [(int(place), pid) for _, place, pid in work_in(log)]
    # Each actor with the largest of those that it had before; one may end two before the other has
    # begun.
    first = {pid: place for place, pid in reversed(done)}
    assert 0 in first.values()
    assert 6 not in first.values()


def test_few_answers_wait_where_memory_is_short(
    engine: Actors, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine: each actor has the next message before it has answered.
    monkeypatch.setattr(actors_module, "SHORT_S", math.inf)
    answers(engine, [0])
    log.write_text("")
    monkeypatch.setattr(engine, "_store_bytes", 1.0)
    identifiers = engine.push(asked(TRAIN, MessageType.TRAIN, list(range(7, -1, -1))))
    pulled(engine, identifiers[:1])
    end = time.monotonic() + 60
    while len(work_in(log)) < 5 and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.5)
    done = [int(place) for _, place, _ in work_in(log)]
    # In the order in which they are pulled: one was pulled, four wait.
    assert sorted(done, reverse=True) == [7, 6, 5, 4, 3]
    pulled(engine, identifiers[1:])
    assert len(work_in(log)) == 8


@pytest.mark.parametrize("deaths", [1, ATTEMPTS - 1])
def test_an_actor_that_dies_is_replaced_and_its_hospitals_trained_again(
    one_by_one: Actors, log: Path, told: Told, deaths: int
) -> None:
    engine, before = one_by_one, len(told.of("actor died"))
    Path(f"{log}.kill").write_text(f"2 {deaths}")
    for answer in answers(engine, list(range(6))):
        assert not answer.has_error()
    found = told.of("actor died")[before:]
    assert [(event["partitions"], event["attempt"]) for event in found] == [
        ([2], attempt + 1) for attempt in range(deaths)
    ]
    # The new one works in every later round.
    log.write_text("")
    answers(engine, list(range(6)))
    assert len({pid for *_, pid in work_in(log)}) == 2


def test_a_hospital_that_kills_every_actor_is_given_up(
    one_by_one: Actors, log: Path, told: Told
) -> None:
    engine, before = one_by_one, len(told.of("actor died"))
    Path(f"{log}.kill").write_text(f"1 {ATTEMPTS}")
    found = answers(engine, list(range(4)))
    assert [answer.has_error() for answer in found] == [False, True, False, False]
    assert found[1].error.code == 8
    assert len(told.of("actor died")) - before == ATTEMPTS


def sizes_of_calls(engine: Actors, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what will hold how many messages each call from here on has."""
    sizes: list[int] = []
    begin = engine._begin_call

    def counted(place: int, jobs: list[Any]) -> None:
        sizes.append(len(jobs))
        begin(place, jobs)

    monkeypatch.setattr(engine, "_begin_call", counted)
    return sizes


def test_answers_of_one_call_are_those_of_one_process_each_to_its_own_weights(
    engine: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_module, "SHORT_S", 1000.0)
    places, other = list(range(40)), {"w": -WEIGHTS["w"], "count": np.array(4)}
    asked_other = pack_request(Request(study=STUDY, round=1), other)

    def questions() -> list[Message]:
        return [
            Message(asked_other if place % 3 else TRAIN, node_of(place), MessageType.TRAIN)
            for place in places
        ]

    for _ in range(2):
        pulled(engine, engine.push(questions()))
    sizes = sizes_of_calls(engine, monkeypatch)
    there = pulled(engine, engine.push(questions()))
    # Both weights were in one call of five and more.
    assert max(sizes) >= 5
    assert sum(sizes) == 40
    here = InProcess(_app(), 8)
    for one, two in zip(pulled(here, here.push(questions())), there, strict=True):
        assert framed_weights(one.content) == bytes(framed_weights(two.content) or b"")


def test_who_was_short_once_goes_alone(engine: Actors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors_module, "SHORT_S", 1000.0)
    monkeypatch.setattr(engine, "_took_s", {})
    sizes = sizes_of_calls(engine, monkeypatch)
    for _ in range(2):
        answers(engine, list(range(40)))
    assert set(sizes) == {1}
    # A question of another kind is none of those that were short.
    compared = pack_request(Request(study=STUDY, round=1, compare=True), WEIGHTS)
    pulled(engine, engine.push(asked(compared, MessageType.TRAIN, list(range(40)))))
    assert set(sizes) == {1}
    answers(engine, list(range(40)))
    assert max(sizes) > 1


@pytest.mark.parametrize("deaths", [1, ATTEMPTS])
def test_hospitals_of_one_call_are_asked_again_each_alone(
    engine: Actors, log: Path, told: Told, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    # However slow the machine: what took any time the last time is short.
    monkeypatch.setattr(actors_module, "SHORT_S", 1000.0)
    places = list(range(40))
    for _ in range(2):
        answers(engine, places)
    before = len(told.of("actor died"))
    # The largest is in the first call of the actor that had it before.
    Path(f"{log}.kill").write_text(f"0 {deaths}")
    found = answers(engine, places)
    assert [answer.has_error() for answer in found] == [deaths == ATTEMPTS, *([False] * 39)]
    for place, answer in list(zip(places, found, strict=True))[1:]:
        assert unpack_weights(answer.content)["w"][1] == 1 + place
    first, *later = told.of("actor died")[before:]
    assert first["partitions"][0] == 0
    assert len(first["partitions"]) > 1
    assert [event["partitions"] for event in later] == [[0]] * (deaths - 1)
    assert [event["attempt"] for event in (first, *later)] == list(range(1, deaths + 1))


def test_what_is_asked_meanwhile_is_answered_though_there_is_no_room(
    engine: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_store_bytes", 1.0)
    identifiers = engine.push(asked(TRAIN, MessageType.TRAIN, list(range(8))))
    pulled(engine, identifiers[:1])
    # A site that has lost its model is asked again before the others' answers are pulled.
    (again,) = pulled(engine, engine.push(asked(TRAIN, MessageType.TRAIN, [0])))
    assert not again.has_error()
    assert len(pulled(engine, identifiers[1:])) == 7


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        (Resources(actors=1, gpus_per_actor=1.0), "need 1 GPU, and Ray has 0"),
        (Resources(actors=1, address=GONE), "no Ray cluster answers there"),
        # The last ray start's cluster may have ended with its machine, and left its address.
        (
            Resources(actors=1, address="auto", environment={"RAY_ADDRESS": GONE}),
            "simulation.address=auto: no Ray cluster answers there",
        ),
        # Other runs may have a Ray of their own on this machine; it is not for everybody.
        (
            Resources(actors=1, address="auto", environment={"RAY_TMPDIR": os.devnull}),
            "simulation.address=auto: no Ray cluster answers there",
        ),
    ],
)
def test_what_ray_cannot_give_is_said_at_once(resources: Resources, told: str) -> None:
    # A process of its own: this one has an engine.
    code = (
        "from simulation.engines.actors import Actors\n"
        "from simulation.engines.resources import Resources\n"
        f"Actors(lambda *_: None, 2, {resources!r}, lambda *_, **__: None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert "SettingsError" in done.stderr
    assert told in done.stderr


def test_a_grid_waits_for_every_answer(engine: Actors) -> None:
    grid = SimulatedGrid(engine)
    assert list(grid.get_node_ids()) == [node_of(place) for place in range(8)]
    found = grid.send_and_receive(asked(QUERY, MessageType.QUERY, [1, 0]))
    sites = [unpack_answer(answer.content).site for answer in found]
    assert sites == ["1", "0"]
