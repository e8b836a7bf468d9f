"""What an actor does with a call: some hospitals' messages, one after the other.

It knows nothing of Ray: what it takes and returns travels as it is.
"""

import time
from dataclasses import dataclass

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from common.kept_memory import keep_freed_memory
from common.messages import WEIGHTS, framed_weights, put_in
from simulation.engines.grid import answered, identify

Stored = NDArray[np.uint8]
"""Weights as bytes, which Ray shares between processes without a copy."""
Asked = tuple[int, str, RecordDict, int | None]
"""A node, a kind of message, its records but for the weights, and which of the call's these are."""


@dataclass(frozen=True)
class Worked:
    """An answer: its records but for the weights, and these; or the code of an error."""

    records: RecordDict | None = None
    weights: Stored | None = None
    error: int = 0
    seconds: float = 0.0
    """That it took."""

    @property
    def length(self) -> int:
        """Bytes of the weights."""
        return 0 if self.weights is None else len(self.weights)


class Worker:
    """A process that plays hospitals; what it keeps in memory is for speed, never for meaning."""

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        keep_freed_memory()
        identify()
        self._client_app, self._num_nodes = client_app, num_nodes

    def work(self, asked: list[Asked], *weights: Stored) -> list[Worked]:
        """Return the ClientApp's answer to each message."""
        return [
            self._answer(node, kind, records, None if which is None else weights[which])
            for node, kind, records, which in asked
        ]

    def _answer(self, node: int, kind: str, records: RecordDict, weights: Stored | None) -> Worked:
        began = time.monotonic()
        if weights is not None:
            put_in(records, weights.data)
        answer = answered(self._client_app, Message(records, node, kind), self._num_nodes)
        seconds = time.monotonic() - began
        if answer.has_error():
            return Worked(error=answer.error.code, seconds=seconds)
        framed = framed_weights(answer.content)
        stored = None if framed is None else np.frombuffer(framed, np.uint8)
        return Worked(without_weights(answer.content), stored, 0, seconds)


def message_of(worked: Worked, question: Message) -> Message:
    """Return the answer to the question as a message."""
    if worked.records is None:
        return Message(Error(worked.error), reply_to=question)
    if worked.weights is not None:
        put_in(worked.records, worked.weights.data)
    return Message(worked.records, reply_to=question)


def without_weights(records: RecordDict) -> RecordDict:
    """Return the records but for the weights, which travel apart."""
    return RecordDict({name: record for name, record in records.items() if name != WEIGHTS})
