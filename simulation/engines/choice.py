"""The engine that begins in this process, and goes on on actors once that is worth their start."""

import itertools
import time
from collections.abc import Callable, Sequence

from flwr.app import Message, MessageType

from common.messages import framed_weights
from server.events import Tell
from simulation.engines.grid import Engine
from simulation.engines.inprocess import InProcess

START_S = 8.0
"""Until Ray and an actor that has loaded torch are there; on two cores."""
MESSAGE_S, MEGABYTE_S = 0.002, 0.001
"""What a message to an actor costs, and each megabyte of its weights
(python -m simulation.benchmark.engine)."""


def saved_s(left_s: float, actors: int, messages: int, megabytes: float, read_s: float) -> float:
    """Return what actors save of the seconds of training that are left.

    messages: that are left, with so many megabytes of weights each. read_s: of all sites' data,
    which the actors have not read yet. Below 0 they cost more than they save.
    """
    engine_s = START_S + messages * (MESSAGE_S + megabytes * MEGABYTE_S)
    return left_s - (left_s + read_s) / actors - engine_s


class Chosen:
    """Measures each training in this process, and leaves it for actors when they save time.

    An update has the same bytes wherever it is made, so the change may fall between any two.
    """

    def __init__(
        self,
        here: InProcess,
        start_actors: Callable[[], Engine],
        actors: int,
        rounds: int,
        tell: Tell,
    ) -> None:
        """actors: how many start_actors starts. rounds: of the study."""
        self.num_nodes = here.num_nodes
        self._here, self._start_actors = here, start_actors
        self._actors, self._rounds_left, self._tell = actors, rounds, tell
        self._there: Engine | None = None
        self._numbers = itertools.count()
        self._names: dict[str, str] = {}
        """What the engine that is at work calls a message, by what it is called here."""
        self._waiting: dict[str, Message] = {}
        """Those that are not worked off, as long as that is done in this process."""
        self._asked = 0
        """Hospitals that are trained in a round."""
        self._read_s = 0.0
        self._told = False

    def push(self, messages: Sequence[Message]) -> list[str]:
        """Take the messages in."""
        trainings = sum(message.metadata.message_type == MessageType.TRAIN for message in messages)
        if trainings:
            self._asked, self._rounds_left = trainings, self._rounds_left - 1
        identifiers = [str(next(self._numbers)) for _ in messages]
        self._names |= zip(identifiers, (self._there or self._here).push(messages), strict=True)
        if self._there is None:
            self._waiting |= zip(identifiers, messages, strict=True)
        return identifiers

    def pull(self, identifier: str) -> Message | None:
        """Return the answer to a message: work it off here, or wait for it there."""
        if identifier not in self._names:
            return None
        if self._there is not None:
            answer = self._there.pull(self._names[identifier])
            if answer is not None:
                del self._names[identifier]
            return answer
        message = self._waiting.pop(identifier)
        began = time.monotonic()
        answer = self._here.pull(self._names.pop(identifier))
        took_s = time.monotonic() - began
        if message.metadata.message_type == MessageType.QUERY:
            self._read_s += took_s
        elif message.metadata.message_type == MessageType.TRAIN:
            self._choose(took_s, message)
        return answer

    def end(self) -> None:
        """End the actors, if there are any."""
        if self._there is not None:
            self._there.end()

    def _choose(self, took_s: float, message: Message) -> None:
        trainings = [
            m for m in self._waiting.values() if m.metadata.message_type == MessageType.TRAIN
        ]
        left = len(trainings) + self._rounds_left * self._asked
        megabytes = len(framed_weights(message.content) or b"") / 1e6
        actors = min(self._actors, self._asked)
        saved = saved_s(left * took_s, actors, left, megabytes, self._read_s)
        if saved > 0:
            self._tell("engine", name="ray", actors=self._actors, left_s=round(left * took_s))
            self._there = self._start_actors()
            moved = self._there.push(list(self._waiting.values()))
            self._names = dict(zip(self._waiting, moved, strict=True))
        elif not self._told:
            self._tell("engine", name="inprocess", left_s=round(left * took_s))
        self._told = True
