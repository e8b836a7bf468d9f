"""The engine that begins in this process, and goes on on actors once that is worth their start."""

import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median

from flwr.app import Message, MessageType

from common.messages import framed_weights, unpack_request
from server.events import Tell
from simulation.engines.grid import Engine

START_S = 4.0
"""Until Ray and an actor that has loaded torch are there; on two cores, with nothing else on them
(python -m simulation.benchmark.engine: the difference of start_s)."""
WARM = 2
"""Trainings before the choice: in the first everything is loaded and built."""
MESSAGE_S, MEGABYTE_S = 0.002, 0.0001
"""What a message to an actor costs more than one in this process, and each megabyte of its weights
(python -m simulation.benchmark.engine: ours-ray less ours)."""


def saved_s(left_s: float, actors: int, messages: int, megabytes: float, read_s: float) -> float:
    """Return what actors save of the seconds of training that are left.

    messages: that are left, with so many megabytes of weights each. read_s: of all sites' data,
    which the actors have not read yet. Below 0 they cost more than they save.
    """
    engine_s = START_S + messages * (MESSAGE_S + megabytes * MEGABYTE_S)
    return left_s - (left_s + read_s) / actors - engine_s


class Chosen:
    """Measures the first trainings in this process, and leaves it for actors when they save time.

    An update has the same bytes wherever it is made, so the change may fall between any two.
    """

    def __init__(
        self,
        here: Engine,
        start_actors: Callable[[], Engine],
        actors: int,
        rounds: int,
        tell: Tell,
    ) -> None:
        """actors: how many start_actors starts. rounds: of the study."""
        self.num_nodes = here.num_nodes
        self._engine, self._start_actors = here, start_actors
        self._actors, self._rounds, self._tell = actors, rounds, tell
        self._moved = False
        self._numbers = itertools.count()
        self._names: dict[str, str] = {}
        """What the engine that is at work calls a message, by what it is called here."""
        self._waiting: dict[str, Message] = {}
        """Those that are not worked off, as long as that is done in this process."""
        self._asked = self._rounds_left = 0
        """Hospitals that are trained in a round, and rounds after this one."""
        self._read_s = 0.0
        self._train_s: list[float] = []
        self._told = False

    def push(self, messages: Sequence[Message]) -> list[str]:
        """Take the messages in."""
        trainings = [m for m in messages if m.metadata.message_type == MessageType.TRAIN]
        if trainings:
            # One site may be asked again within a round.
            self._asked = max(self._asked, len(trainings))
            self._rounds_left = self._rounds - unpack_request(trainings[0].content).round
        identifiers = [str(next(self._numbers)) for _ in messages]
        self._names |= zip(identifiers, self._engine.push(messages), strict=True)
        if not self._moved:
            self._waiting |= zip(identifiers, messages, strict=True)
        return identifiers

    def pull(self, identifier: str) -> Message | None:
        """Return the answer to a message, worked off here or there."""
        if identifier not in self._names:
            return None
        began = time.monotonic()
        answer = self._engine.pull(self._names[identifier])
        took_s = time.monotonic() - began
        if answer is None:
            return None
        del self._names[identifier]
        if not self._moved:
            message = self._waiting.pop(identifier)
            if message.metadata.message_type == MessageType.QUERY:
                self._read_s += took_s
            elif message.metadata.message_type == MessageType.TRAIN:
                self._train_s.append(took_s)
                self._choose(message)
        return answer

    def end(self) -> None:
        """End the engine that is at work."""
        self._engine.end()

    def _choose(self, message: Message) -> None:
        if len(self._train_s) < WARM:
            return
        trainings = [
            m for m in self._waiting.values() if m.metadata.message_type == MessageType.TRAIN
        ]
        left = len(trainings) + self._rounds_left * self._asked
        left_s = left * median(self._train_s[1:])
        megabytes = len(framed_weights(message.content) or b"") / 1e6
        actors = min(self._actors, self._asked)
        if saved_s(left_s, actors, left, megabytes, self._read_s) > 0:
            self._tell("engine", name="ray", actors=self._actors, left_s=round(left_s))
            self._engine, self._moved = self._start_actors(), True
            pushed = self._engine.push(list(self._waiting.values()))
            self._names = dict(zip(self._waiting, pushed, strict=True))
            self._waiting.clear()
        elif not self._told:
            self._tell("engine", name="inprocess", left_s=round(left_s))
        self._told = True
