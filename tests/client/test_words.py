import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import httpx
import pytest

from client.words import EVERY_S, Teller, Work
from simulation.chaos.waiting import until

WORK = Work(run="2026-01-01_study", round=2)


@dataclass
class Centre:
    stop: bool = False
    words: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.words.append(json.loads(request.content))
        return httpx.Response(200, json={"stop": self.stop})


@pytest.fixture
def centre() -> Centre:
    return Centre()


@pytest.fixture
def teller(centre: Centre) -> Iterator[Teller]:
    transport = httpx.MockTransport(centre.answer)
    with httpx.Client(base_url="https://centre", transport=transport) as client:
        made = Teller(client, logging.getLogger(__name__))
        yield made
        made.close()


def test_a_stop_ends_the_work_that_was_told(centre: Centre, teller: Teller) -> None:
    teller.now(WORK)
    assert teller.step()
    centre.stop = True
    until("the stop is heard", lambda: not teller.step(), 3 * EVERY_S)


def test_a_stop_does_not_end_the_same_run_when_it_is_gone_on_with(
    centre: Centre, teller: Teller
) -> None:
    teller.now(WORK)
    centre.stop = True
    until("the stop is heard", lambda: not teller.step(), 3 * EVERY_S)
    centre.stop = False
    teller.now(Work())
    teller.now(WORK)
    assert teller.step()


def test_new_work_and_a_new_session_are_told_at_once(centre: Centre, teller: Teller) -> None:
    until("the first word", lambda: len(centre.words) == 1, EVERY_S)
    teller.now(WORK)
    until("the work is told", lambda: centre.words[-1]["run"] == WORK.run, EVERY_S / 2)
    teller.now(Work())
    until("the rest is told", lambda: centre.words[-1]["run"] == "", EVERY_S / 2)
    teller.begin_session()
    first = centre.words[0]["session"]
    until("the session is told", lambda: centre.words[-1]["session"] != first, EVERY_S / 2)
    said = [(word["run"], word["session"] == first) for word in centre.words]
    assert [word for word, _ in groupby(said)] == [
        ("", True),
        (WORK.run, True),
        ("", True),
        ("", False),
    ]
